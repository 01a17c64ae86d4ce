"""What is in a database, and what of it an operation leaves alone and why."""

from collections.abc import Mapping
from dataclasses import dataclass

from worker_service.operations.mariadb.connection import Connection

_TABLES = """
SELECT TABLE_NAME, TABLE_TYPE, ENGINE, CREATE_OPTIONS, CREATE_TIME, DATA_LENGTH, INDEX_LENGTH, DATA_FREE,
       UPDATE_TIME
FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()
"""
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

    ``engine`` is empty for a view, and for a table that cannot be opened. ``created`` and ``updated`` are the
    server's own dates, to be compared and not read. ``data_bytes`` are an estimate for InnoDB.
    """

    name: str
    kind: str
    engine: str = ""
    partitioned: bool = False
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


def read_tables(connection: Connection, name: str | None = None) -> list[Table]:
    """Read what the role may see in the database, or one table of it, in the order of the names.

    The names are sorted here, because the server's order is that of its collation and may tie.
    """
    rows = connection.rows(_TABLES) if name is None else connection.rows(f"{_TABLES} AND TABLE_NAME = %s", name)
    tables = [
        Table(
            name=str(row[0]),
            kind=str(row[1]),
            engine=str(row[2] or ""),
            partitioned="partitioned" in str(row[3] or ""),
            created=str(row[4] or ""),
            data_bytes=int(row[5] or 0) + int(row[6] or 0),
            free_bytes=int(row[7] or 0),
            updated=str(row[8] or ""),
        )
        for row in rows
    ]
    # The catalogue compares names in any case, and a server may keep two tables that differ in case alone.
    exact = [table for table in tables if table.name == name]
    return exact or sorted(tables, key=lambda table: table.name)
