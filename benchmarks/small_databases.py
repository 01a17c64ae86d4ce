"""Small databases that need maintenance: deleted rows, four indexes, statistics from before most rows came."""

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

SCHEMA = """
CREATE TABLE notes (id INTEGER PRIMARY KEY, author INTEGER NOT NULL, written INTEGER NOT NULL, body TEXT NOT NULL);
CREATE TABLE authors (id INTEGER PRIMARY KEY, email TEXT NOT NULL UNIQUE, city TEXT NOT NULL);
CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX notes_by_author ON notes (author, written);
CREATE INDEX notes_by_time ON notes (written);
CREATE INDEX authors_by_city ON authors (city);
"""
_TABLES = ("authors", "notes", "settings")
_NOTES = range(150, 900)
"""How many notes a database gets; about 25 to 190 kB with all that belongs to them."""
_FEW = 20


def make(folder: Path, number: int) -> None:
    """Make databases of varied sizes, the same at each call."""
    folder.mkdir()
    span = len(_NOTES)
    for n in range(number):
        _make_one(folder / f"small{n:04}.db", _NOTES[n * 7919 % span], seed=n)


def digest(path: Path) -> str:
    """Return a hash of every row, in the order of the keys."""
    with closing(sqlite3.connect(path)) as connection:
        rows = [connection.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall() for table in _TABLES]
    return hashlib.sha256(repr(rows).encode()).hexdigest()


def is_sound(path: Path) -> bool:
    """Tell whether SQLite finds the file without an error."""
    with closing(sqlite3.connect(path)) as connection:
        return bool(connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)])


def _make_one(path: Path, notes: int, seed: int) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA journal_mode = MEMORY").fetchall()
        connection.execute("BEGIN")
        for statement in SCHEMA.strip().split("\n"):
            connection.execute(statement)
        _fill(connection, range(_FEW), seed)
        connection.execute("ANALYZE")  # from here on it knows of a few rows only
        _fill(connection, range(_FEW, notes), seed)
        connection.execute("DELETE FROM notes WHERE id % 3 = 0 OR id < ?", (notes // 5,))
        connection.execute("COMMIT")


def _fill(connection: sqlite3.Connection, numbers: range, seed: int) -> None:
    connection.executemany(
        "INSERT INTO notes VALUES (?, ?, ?, ?)",
        ((i, i * 31 % 97, 1_700_000_000 + i * 7919 % 10_007, f"note {seed}.{i} " + "n" * 120) for i in numbers),
    )
    connection.executemany(
        "INSERT INTO authors VALUES (?, ?, ?)",
        ((i, f"author.{i}.{seed}@example.org", f"city {i % 7}") for i in numbers if i % 5 == 0),
    )
    connection.executemany(
        "INSERT INTO settings VALUES (?, ?)", ((f"key {i}", f"value {i * seed}") for i in numbers if i % 20 == 0)
    )
