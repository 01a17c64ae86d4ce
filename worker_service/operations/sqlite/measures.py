from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import groupby
from operator import itemgetter

import apsw

from worker_service.domain.outcome import Measures
from worker_service.operations.sqlite.location import Location, size_of

Statistics = dict[str, list[tuple[object, ...]]]
_TABLE_AND_INDEX = itemgetter(0, 1)
_STATISTICS = ("sqlite_stat1", "sqlite_stat4")
_STATISTICS_TABLES = "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND name GLOB 'sqlite_stat?'"
# Run as one: each change between the interpreter and SQLite costs as much as the statement.
_MEASURES = f"PRAGMA main.page_count; PRAGMA main.freelist_count; PRAGMA main.page_size; {_STATISTICS_TABLES}"


@contextmanager
def snapshot(connection: apsw.Connection) -> Iterator[None]:
    """Let every statement of the block read the same state of the file, locked and looked at once for all.

    An interrupt is the business of the statements that read: it must not hide what was done before the block.
    """
    if connection.in_transaction:
        yield
        return
    with suppress(apsw.InterruptError):
        connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:
            with suppress(apsw.InterruptError):
                connection.execute("COMMIT")


def read_measures(connection: apsw.Connection, location: Location) -> dict[str, float]:
    """Read the numbers that every operation reports before and after.

    ``file_bytes`` and ``wal_bytes`` are the sizes on disk; ``pages``, ``free_pages`` and ``page_bytes`` what
    SQLite says of the file with its log applied; ``stat_rows`` the rows of the optimizer's statistics.
    """
    sizes = read_sizes(location)
    with snapshot(connection):
        found = connection.execute(_MEASURES).fetchall()
        statistics = _rows_in(connection, _known(found[3:]))
    pages, free_pages, page_bytes = (float(str(row[0])) for row in found[:3])
    return {
        **sizes,
        "pages": pages,
        "free_pages": free_pages,
        "page_bytes": page_bytes,
        "stat_rows": statistics,
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
    with snapshot(connection):
        return {
            name: connection.execute(f'SELECT * FROM main."{name}"').fetchall()  # noqa: S608 - a constant
            for name in _known(connection.execute(_STATISTICS_TABLES).fetchall())
        }


def statistics_changed(before: Statistics | None, after: Statistics | None) -> int | None:
    """Count the tables and indexes whose statistics or samples are new, gone or different."""
    if before is None or after is None:
        return None
    old, new = _by_key(before), _by_key(after)
    return sum(not _alike(old.get(key, []), new.get(key, [])) for key in old.keys() | new.keys())


def used_bytes(measures: Measures) -> float:
    """The bytes that the database takes, its pages counted, wherever they lie just now."""
    return measures["pages"] * measures["page_bytes"]


def _by_key(statistics: Statistics) -> dict[object, list[tuple[object, ...]]]:
    found: dict[object, list[tuple[object, ...]]] = {}
    for rows in statistics.values():
        for key, group in groupby(rows, _TABLE_AND_INDEX):
            found.setdefault(key, []).extend(group)
    return found


def _alike(old: list[tuple[object, ...]], new: list[tuple[object, ...]]) -> bool:
    """Compare rows in whatever order they lie; mostly it is the same."""
    return old == new or (len(old) == len(new) and Counter(old) == Counter(new))


def _known(tables: list[tuple[object, ...]]) -> list[str]:
    names = {str(row[0]) for row in tables}
    return [name for name in _STATISTICS if name in names]


def _rows_in(connection: apsw.Connection, tables: list[str]) -> float:
    # Counted there: the samples of a table in sqlite_stat4 are many and large.
    counts = ";".join(f'SELECT count(*) FROM main."{table}"' for table in tables)  # noqa: S608 - constants
    return sum(float(str(row[0])) for row in connection.execute(counts)) if counts else 0.0
