"""What is in a database, and what of it an operation leaves alone and why."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from worker_service.operations.mariadb.connection import Reader, Row

# Only these three are read without opening the table. Opening one that is marked as crashed makes the server
# repair it by itself, which neither a plan nor a check may bring about.
_NAMES = "TABLE_NAME, TABLE_TYPE, ENGINE"
_BOOKS = f"{_NAMES}, CREATE_TIME, UPDATE_TIME, DATA_LENGTH, INDEX_LENGTH, DATA_FREE"
_TABLES = "SELECT {columns} FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()"
_KINDS = {
    "VIEW": "a view has no rows of its own",
    "SYSTEM VIEW": "a view has no rows of its own",
    "SEQUENCE": "a sequence is a single row",
    "TEMPORARY": "a temporary table belongs to its session",
}
_ELSEWHERE = "its rows are kept elsewhere, by another server or program"
ENGINES_ELSEWHERE = {
    "FEDERATED": _ELSEWHERE,
    "SPIDER": _ELSEWHERE,
    "CONNECT": _ELSEWHERE,
    "S3": _ELSEWHERE,
    "MRG_MYISAM": "it only joins other tables, which are listed by themselves",
    "BLACKHOLE": "it keeps no rows",
    "SEQUENCE": "its rows are made when they are read",
}
ENGINES_WITHOUT_SPACE = {
    **ENGINES_ELSEWHERE,
    "MEMORY": "its rows are in memory, and there is no file to make smaller",
    "CSV": "a CSV file is written without gaps, and has no index",
}
_INNODB = "InnoDB"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table, view or sequence, as the server's catalogue tells of it.

    ``engine`` is empty for a view, and for a table that cannot be opened. The others are known where the tables
    were read with their books: ``created`` and ``updated`` are the server's own dates, to be compared and not
    read; ``data_bytes`` are an estimate for InnoDB.
    """

    name: str
    kind: str
    engine: str = ""
    created: str = ""
    updated: str = ""
    data_bytes: int = 0
    free_bytes: int = 0

    @property
    def is_innodb(self) -> bool:
        """Whether InnoDB keeps it."""
        return self.engine == _INNODB

    def left_alone(self, engines: Mapping[str, str]) -> str:
        """Say why the table gets no statement; empty when it does."""
        if reason := _KINDS.get(self.kind):
            return reason
        return engines.get(self.engine.upper(), "")


def reading_keeps_out(table: Table) -> str:
    """Say whom a statement keeps waiting that only reads the table."""
    return "nobody waits" if table.is_innodb else "writers wait"


def read_tables(reader: Reader, name: str | None = None, *, books: bool = False) -> list[Table]:
    """Read what the role may see in the database, or one table of it, in the order of the names.

    The names are sorted here, because the server's order is that of its collation and may tie.

    Args:
        reader: what reads.
        name: the one table that is asked for; ``None`` for all.
        books: whether sizes and dates are read too, for which the server opens every table.
    """
    sql = _TABLES.format(columns=_BOOKS if books else _NAMES)
    rows = reader.rows(sql) if name is None else reader.rows(f"{sql} AND TABLE_NAME = %s", name)
    tables = [_table(row) for row in rows]
    # The catalogue compares names in any case, and a server may keep two tables that differ in case alone.
    exact = [table for table in tables if table.name == name]
    return exact or sorted(tables, key=lambda table: table.name)


def _table(row: Row) -> Table:
    name, kind, engine, *books = row
    table = Table(name=str(name), kind=str(kind), engine=str(engine or ""))
    if not books:
        return table
    created, updated, data, index, free = books
    return replace(
        table,
        created=str(created or ""),
        updated=str(updated or ""),
        data_bytes=int(data or 0) + int(index or 0),
        free_bytes=int(free or 0),
    )
