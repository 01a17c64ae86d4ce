"""SQLite files for the tests, one factory a stage, and what the tests read from them.

Only apsw opens them: a second SQLite library in one process would drop the first one's locks.
"""

import hashlib
from pathlib import Path

import apsw

from worker_service.operations.sqlite.session import SqlValue

HOSTILE = ('od d"ix :p %s', "sqlitex_ix", "nocase", "it's; DROP TABLE t--", "índice ☃", "a%20b?#=&", "select")


def empty_database(path: Path, *, journal: str = "delete", auto_vacuum: int = 0) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    connection.pragma("auto_vacuum", auto_vacuum)
    connection.pragma("journal_mode", journal)
    connection.pragma("synchronous", 0)
    connection.execute("CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT, body BLOB)")
    connection.execute("CREATE INDEX item_name ON item(name)")
    return connection


def filled_database(
    path: Path, *, rows: int = 2_000, width: int = 200, journal: str = "delete", auto_vacuum: int = 0
) -> Path:
    with empty_database(path, journal=journal, auto_vacuum=auto_vacuum) as connection:
        fill(connection, rows, width)
    connection.close()
    return path


def bloated_database(
    path: Path, *, rows: int = 2_000, width: int = 200, journal: str = "delete", auto_vacuum: int = 0
) -> Path:
    filled_database(path, rows=rows, width=width, journal=journal, auto_vacuum=auto_vacuum)
    connection = apsw.Connection(str(path))
    connection.execute("DELETE FROM item WHERE id % 4 <> 0 OR id > ?", (rows // 2,))
    connection.close()
    return path


def fill(connection: apsw.Connection, rows: int, width: int) -> None:
    connection.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
        "INSERT INTO item SELECT i, 'name ' || (i % 97), randomblob(?) FROM n",
        (rows, width),
    )


def with_foreign_collation(path: Path) -> Path:
    filled_database(path, rows=50)
    connection = apsw.Connection(str(path))
    connection.create_collation("mine", lambda left, right: (left > right) - (left < right))
    connection.execute("CREATE TABLE theirs(word TEXT COLLATE mine, number); CREATE INDEX word ON theirs(word)")
    connection.execute("CREATE INDEX number ON theirs(number); INSERT INTO theirs VALUES ('b', 1), ('a', 2)")
    connection.close()
    return path


def with_corrupt_index(path: Path) -> Path:
    """An index whose rows are those of another: entries are missing in it."""
    connection = empty_database(path)
    fill(connection, 100, 20)
    root, page_bytes = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'item_name'").get, 4096
    connection.close()
    data = bytearray(path.read_bytes())
    start = (root - 1) * page_bytes
    data[start : start + 12] = b"\x0a" + b"\x00" * 4 + page_bytes.to_bytes(2, "big") + b"\x00" * 5
    path.write_bytes(data)
    return path


def content(path: Path) -> str:
    """A hash of every row of every table, in order, without the optimizer's statistics."""
    digest = hashlib.sha256()
    connection = apsw.Connection(str(path))
    names = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT GLOB 'sqlite_*' ORDER BY name"
    for (name,) in list(connection.execute(names)):
        quoted = '"' + str(name).replace('"', '""') + '"'
        for row in sorted(map(repr, connection.execute(f"SELECT * FROM {quoted}"))):
            digest.update(f"{name} {row}".encode())
    connection.close()
    return digest.hexdigest()


def query(path: Path, sql: str) -> list[tuple[SqlValue, ...]]:
    connection = apsw.Connection(str(path))
    rows = [tuple(row) for row in connection.execute(sql)]
    connection.close()
    return rows


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
