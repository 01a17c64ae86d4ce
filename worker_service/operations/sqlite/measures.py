import apsw

from worker_service.domain.outcome import Measures
from worker_service.operations.sqlite.location import Location, size_of

Statistics = dict[str, list[tuple[object, ...]]]
_STATISTICS = ("sqlite_stat1", "sqlite_stat4")


def read_measures(connection: apsw.Connection, location: Location) -> dict[str, float]:
    """Read the numbers that every operation reports before and after.

    ``file_bytes`` and ``wal_bytes`` are the sizes on disk; ``pages``, ``free_pages`` and ``page_bytes`` what
    SQLite says of the file with its log applied; ``stat_rows`` the rows of the optimizer's statistics.
    """
    return {
        **read_sizes(location),
        "pages": _number(connection, "PRAGMA main.page_count"),
        "free_pages": _number(connection, "PRAGMA main.freelist_count"),
        "page_bytes": _number(connection, "PRAGMA main.page_size"),
        "stat_rows": sum(_rows_in(connection, table) for table in _found(connection)),
    }


def read_sizes(location: Location) -> dict[str, float]:
    """Read the sizes on disk, which need no connection."""
    return {"file_bytes": location.size(), "wal_bytes": size_of(location.log)}


def empty_measures() -> dict[str, float]:
    """The measures of a file of zero bytes, which is a database without a page."""
    names = ("file_bytes", "wal_bytes", "pages", "free_pages", "page_bytes", "stat_rows")
    return dict.fromkeys(names, 0)


def read_statistics(connection: apsw.Connection) -> Statistics:
    """Read the rows of the statistics tables that exist."""
    return {
        name: connection.execute(f'SELECT * FROM main."{name}"').fetchall()  # noqa: S608 - a constant
        for name in _found(connection)
    }


def statistics_changed(before: Statistics | None, after: Statistics | None) -> int | None:
    """Count the tables and indexes whose statistics or samples are new, gone or different."""
    if before is None or after is None:
        return None
    old, new = _by_key(before), _by_key(after)
    return sum(old.get(key) != new.get(key) for key in old.keys() | new.keys())


def used_bytes(measures: Measures) -> float:
    """The bytes that the database takes, its pages counted, wherever they lie just now."""
    return measures["pages"] * measures["page_bytes"]


def _by_key(statistics: Statistics) -> dict[tuple[object, ...], object]:
    found: dict[tuple[object, ...], list[tuple[object, ...]]] = {}
    for rows in statistics.values():
        for row in rows:
            found.setdefault(row[:2], []).append(row[2:])
    return {key: sorted(rows, key=repr) for key, rows in found.items()}


def _found(connection: apsw.Connection) -> list[str]:
    tables = connection.execute(
        "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND name GLOB 'sqlite_stat?'"
    )
    names = {str(row[0]) for row in tables}
    return [name for name in _STATISTICS if name in names]


def _rows_in(connection: apsw.Connection, table: str) -> float:
    # Counted there: the samples of a table in sqlite_stat4 are many and large.
    return _number(connection, f'SELECT count(*) FROM main."{table}"')  # noqa: S608 - a constant


def _number(connection: apsw.Connection, sql: str) -> float:
    return float(connection.execute(sql).get)
