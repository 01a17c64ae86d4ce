"""What the server's books tell of each table, without opening one that it might repair by that."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice

from worker_service.domain.outcome import Measures
from worker_service.operations.mariadb.connection import Reader, Row
from worker_service.operations.mariadb.state import Files
from worker_service.operations.mariadb.statistics import Statistics, read_statistics
from worker_service.operations.mariadb.tables import Table

# The server opens those tables alone whose names are listed: it looks at the names first.
_BOOKS = """
SELECT TABLE_NAME, DATA_LENGTH, INDEX_LENGTH, DATA_FREE, TABLE_ROWS, TIMESTAMPDIFF(SECOND, UPDATE_TIME, NOW()),
       TIMESTAMPDIFF(SECOND, CREATE_TIME, NOW()), CREATE_OPTIONS, @@innodb_stats_persistent
FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND CAST(TABLE_NAME AS BINARY) IN ({marks})
"""
_AT_ONCE = 1_000
_ADDED_UP = ("size_bytes", "data_bytes", "index_bytes", "free_bytes", "file_bytes", "rows", "never_analyzed")
_OLDEST = ("rebuild_age_seconds", "analyze_age_seconds")
# The names of before, told beside the new ones for one release.
_OLD_NAMES = {"update_age_s": "update_age_seconds", "statistics_age_s": "analyze_age_seconds"}
SOMETIMES_MEASURED = (
    *(*_ADDED_UP, *_OLDEST, *_OLD_NAMES, "update_age_seconds"),
    *("free_ratio", "bloat_bytes", "bloat_ratio"),
)
"""The names by which a table may be measured, even if none is just now."""
_NEVER = Statistics(never=True)


def read_measures(
    reader: Reader, tables: Iterable[Table], files: Mapping[str, Files] | None
) -> Mapping[str, Measures]:
    """Read the measures of each table that InnoDB keeps; what is not known of one is not among its measures.

    Other engines' tables have none: the server opens a table to tell its size, and one of MyISAM or Aria that is
    marked as crashed it repairs by that.

    Raises:
        ServerError: the catalogue cannot be read.
    """
    names = [table.name for table in tables if table.is_innodb]
    statistics = read_statistics(reader)
    measures: dict[str, Measures] = {}
    for row in _read_books(reader, names):
        name = str(row[0])
        own = (
            Statistics()
            if statistics is None
            else statistics.get(name, _NEVER if _keeps_them(row) else Statistics())
        )
        measures[name] = _measures(row, own, files.get(name) if files is not None else None)
        if files is not None and name not in files:
            # It lies in a tablespace with others, and what is free there is not its own.
            measures[name] = {key: value for key, value in measures[name].items() if not key.startswith("free_")}
    return measures


def added_up(tables: int, measures: Iterable[Measures]) -> Measures:
    """Add up what is known of the tables of a database; of ages the oldest is told."""
    every = list(measures)
    sums = _of_each(every, _ADDED_UP, sum)
    bloated = [one for one in every if "bloat_bytes" in one]
    spare, whole = (sum(one[name] for one in bloated) for name in ("bloat_bytes", "file_bytes"))
    bloat = {"bloat_bytes": spare, "bloat_ratio": spare / whole} if whole else {}
    return {"tables": float(tables), **sums, **_of_each(every, _OLDEST, max), **_ratio(sums), **bloat}


def _of_each(
    every: Sequence[Measures], names: Iterable[str], together: Callable[[Iterable[float]], float]
) -> Measures:
    found = {name: [one[name] for one in every if name in one] for name in names}
    return {name: together(numbers) for name, numbers in found.items() if numbers}


def _measures(row: Row, statistics: Statistics, files: Files | None) -> Measures:
    data, index, free, rows, updated, created = row[1:7]
    known = {
        "data_bytes": data,
        "index_bytes": index,
        "free_bytes": free,
        "rows": rows,
        "file_bytes": files.size if files else None,
        "update_age_seconds": updated,
        "rebuild_age_seconds": created,
        "analyze_age_seconds": statistics.age,
        "never_analyzed": statistics.never,
    }
    found = {name: max(0.0, float(value)) for name, value in known.items() if value is not None}
    held = found.get("data_bytes", 0.0) + found.get("index_bytes", 0.0)
    old = {name: found[new] for name, new in _OLD_NAMES.items() if new in found}
    return {
        "size_bytes": found.get("file_bytes", held),
        **found,
        **old,
        **_ratio(found),
        **_bloat(found, statistics),
    }


def _bloat(known: Measures, statistics: Statistics) -> Measures:
    """Tell what of the files no index uses: pages that no index has, and those of an index that are empty."""
    size = known.get("file_bytes", 0.0)
    if not size or "data_bytes" not in known:
        return {}
    held = known["data_bytes"] + known.get("index_bytes", 0.0)
    spare = max(0.0, size - held * statistics.used)
    return {"bloat_bytes": spare, "bloat_ratio": spare / size}


def _ratio(known: Measures) -> Measures:
    if "free_bytes" not in known:
        return {}
    whole = known["free_bytes"] + known.get("data_bytes", 0.0) + known.get("index_bytes", 0.0)
    return {"free_ratio": known["free_bytes"] / whole} if whole else {}


def _keeps_them(row: Row) -> bool:
    """Tell whether the server keeps a table's statistics: by the table's option, otherwise by the server's."""
    options, everywhere = str(row[7] or "").lower(), bool(row[8])
    return "stats_persistent=1" in options or (everywhere and "stats_persistent=0" not in options)


def _read_books(reader: Reader, names: Iterable[str]) -> Iterable[Row]:
    left = iter(names)
    while some := list(islice(left, _AT_ONCE)):
        yield from reader.rows(_BOOKS.format(marks=", ".join(["%s"] * len(some))), *some)
