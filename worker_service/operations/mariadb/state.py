"""What the server's own books say of a database: the files, the tables' dates, the statistics' dates.

The books of InnoDB's files need the privilege PROCESS, and those of its statistics SELECT on a table of the schema
mysql. Where the role may not read them the answer is ``None``, never a guess.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from worker_service.operations.mariadb.connection import Connection, Reader, Row, ServerError
from worker_service.operations.mariadb.tables import Table, read_tables

# A file's name is spelt in the server's own `filename` character set, in which a # parts off a partition.
_FILES = """
SELECT CONVERT(CONVERT(SUBSTRING_INDEX(SUBSTRING(CAST(NAME AS BINARY), LENGTH({database}) + 2), '#', 1)
               USING filename) USING utf8mb4), SPACE, FILE_SIZE
FROM information_schema.{view} WHERE {which}
"""
_DATABASE = "CAST(CONVERT(DATABASE() USING filename) AS BINARY)"
_EVERY = f"LEFT(CAST(NAME AS BINARY), LENGTH({_DATABASE}) + 1) = CONCAT({_DATABASE}, '/')"
# Those that begin like one table's, which is spelt once and not for each file; others among them are told by name.
_BEGINNING = "LEFT(CAST(NAME AS BINARY), %s) = %s"
_SPELT = f"SELECT CONCAT({_DATABASE}, '/', CAST(CONVERT(%s USING filename) AS BINARY))"
_VIEWS = ("INNODB_SYS_TABLESPACES", "INNODB_TABLESPACES")
_STATISTICS = """
SELECT SUBSTRING_INDEX(SUBSTRING_INDEX(table_name, '#P#', 1), '#p#', 1), last_update >= %s - INTERVAL 1 SECOND
FROM mysql.innodb_table_stats WHERE database_name = DATABASE()
"""
_OF_TABLE = " AND (table_name = %s OR table_name LIKE %s)"
_NOW = "SELECT CAST(NOW() AS CHAR)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """The tablespace files of a table: the server's numbers for them, which a rebuild changes, and their bytes."""

    spaces: frozenset[int]
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What a database's books said at one moment.

    ``files`` is ``None`` where the role may not read them. An InnoDB table that is not among them lies in a
    tablespace that it shares with others. ``hidden`` are tables that have files and that the role may not see.
    """

    tables: Mapping[str, Table] = field(default_factory=dict)
    files: Mapping[str, Files] | None = None
    hidden: tuple[str, ...] = ()

    def size(self, name: str) -> int | None:
        """Return the bytes of a table's files; ``None`` where nobody tells."""
        table = self.tables.get(name)
        if table is None:
            return None
        if not table.is_innodb:
            return table.data_bytes
        found = self.files.get(name) if self.files is not None else None
        return found.size if found else None

    def counts(self) -> dict[str, float]:
        """Return what is known without sizes."""
        return {"tables": float(len(self.tables))}

    def measures(self) -> dict[str, float]:
        """Return what every operation that changes something reports."""
        sizes = [self.size(name) for name in self.tables]
        numbers = {
            **self.counts(),
            "data_bytes": float(sum(table.data_bytes for table in self.tables.values())),
            "free_bytes": float(sum(table.free_bytes for table in self.tables.values())),
        }
        known = [size for size in sizes if size is not None]
        return {**numbers, "file_bytes": float(sum(known))} if len(known) == len(sizes) else numbers


def read_state(connection: Connection, name: str | None = None, *, books: bool = True) -> State:
    """Read the books of the database, or of one table.

    Args:
        connection: what reads.
        name: the one table that is asked for; ``None`` for all.
        books: whether the tables' sizes and dates are read too, for which the server opens each.

    Raises:
        ServerError: not even the catalogue can be read.
    """
    found = read_tables(connection, name, books=books)
    files = read_files(connection, name)
    hidden = () if name is not None else hidden_in(files, found)
    tables = {table.name: table for table in found if not table.left_alone({})}
    return State(tables=tables, files=files, hidden=hidden)


def rebuilt(name: str, before: State, after: State, *, said: bool = False) -> bool | None:
    """Tell whether a table was written anew between two readings; ``None`` where nobody tells.

    Where the server ``said`` so, any change of its books bears it out. Otherwise it may be the work of writers.
    """
    old, new = before.tables.get(name), after.tables.get(name)
    if old is None or new is None:
        return None
    if old.is_innodb and before.files is not None and after.files is not None:
        had, has = before.files.get(name), after.files.get(name)
        if had and has:
            return had.spaces != has.spaces
    if old.created != new.created:
        return True
    changed = (old.data_bytes, old.updated) != (new.data_bytes, new.updated)
    return True if said and changed else None


def now(connection: Connection) -> str:
    """Return the server's time, to be compared with its own later."""
    return str(connection.value(_NOW))


def renewed_since(connection: Connection, moment: str, name: str | None = None) -> Mapping[str, bool] | None:
    """Tell of each InnoDB table with kept statistics, or of one, whether they are of ``moment`` or later.

    Returns:
        ``None`` where the role may not read them. Of a partitioned table each partition has to be.
    """
    try:
        if name is None:
            rows = connection.rows(_STATISTICS, moment)
        else:
            rows = connection.rows(f"{_STATISTICS}{_OF_TABLE}", moment, name, f"{_literally(name)}#%")
    except ServerError:
        return None
    found: dict[str, bool] = {}
    for table, renewed in rows:
        found[str(table)] = found.get(str(table), True) and bool(renewed)
    return found


def hidden_in(files: Mapping[str, Files] | None, tables: Iterable[Table]) -> tuple[str, ...]:
    """Name the tables that have files and that the role may not see, in order."""
    return tuple(sorted(_own(files or {}) - {table.name for table in tables}))


def _own(files: Mapping[str, Files]) -> set[str]:
    # The tables of a full-text index, and what a rebuild works on, have files and are nobody's tables. A name that
    # starts with # is spelt with @0023, so that nothing stands before the # here.
    return {name for name in files if name and not name.startswith("FTS_")}


def read_files(reader: Reader, name: str | None = None) -> Mapping[str, Files] | None:
    """Read the files of the tables, or at least of one, by their names; ``None`` where the role may not."""
    which = _EVERY
    values: tuple[object, ...] = ()
    for view in _VIEWS:
        try:
            if name is not None and not values:
                spelt = reader.rows(_SPELT, name)[0][0]
                which, values = _BEGINNING, (len(spelt), spelt)
            return _by_table(reader.rows(_FILES.format(database=_DATABASE, view=view, which=which), *values))
        except ServerError:
            continue
    return None


def _literally(name: str) -> str:
    r"""Return a name as LIKE takes it for itself: ``a\_b`` for ``a_b``."""
    return re.sub(r"([\\%_])", r"\\\1", name)


def _by_table(rows: list[Row]) -> Mapping[str, Files]:
    spaces: dict[str, set[int]] = defaultdict(set)
    sizes: dict[str, int] = defaultdict(int)
    for name, space, size in rows:
        spaces[str(name)].add(int(space))
        sizes[str(name)] += int(size or 0)
    return {name: Files(spaces=frozenset(found), size=sizes[name]) for name, found in spaces.items()}
