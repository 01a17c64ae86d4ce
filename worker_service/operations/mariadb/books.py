"""What the server's books tell of each table, without opening one that it might repair by that."""

from collections.abc import Iterable, Mapping
from itertools import islice

from worker_service.domain.outcome import Measures
from worker_service.operations.mariadb.connection import Reader, Row, ServerError
from worker_service.operations.mariadb.state import Files
from worker_service.operations.mariadb.tables import Table

# The server opens those tables alone whose names are listed: it looks at the names first.
_BOOKS = """
SELECT TABLE_NAME, DATA_LENGTH, INDEX_LENGTH, DATA_FREE, TABLE_ROWS, TIMESTAMPDIFF(SECOND, UPDATE_TIME, NOW())
FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND CAST(TABLE_NAME AS BINARY) IN ({marks})
"""
_AT_ONCE = 1_000
_AGES = """
SELECT SUBSTRING_INDEX(SUBSTRING_INDEX(table_name, '#P#', 1), '#p#', 1),
       MAX(TIMESTAMPDIFF(SECOND, last_update, NOW()))
FROM mysql.innodb_table_stats WHERE database_name = DATABASE() GROUP BY 1
"""
_ADDED_UP = ("size_bytes", "data_bytes", "index_bytes", "free_bytes", "file_bytes", "rows")
SOMETIMES_MEASURED = (*_ADDED_UP, "free_ratio", "update_age_s", "statistics_age_s")
"""The names by which a table may be measured, even if none is just now."""


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
    ages = _read_ages(reader)
    measures: dict[str, Measures] = {}
    for row in _read_books(reader, names):
        name = str(row[0])
        measures[name] = _measures(row, ages.get(name), files.get(name) if files is not None else None)
        if files is not None and name not in files:
            # It lies in a tablespace with others, and what is free there is not its own.
            measures[name] = {key: value for key, value in measures[name].items() if not key.startswith("free_")}
    return measures


def added_up(tables: int, measures: Iterable[Measures]) -> Measures:
    """Add up what is known of the tables of a database."""
    every = list(measures)
    sums = {
        name: sum(one[name] for one in every if name in one)
        for name in _ADDED_UP
        if any(name in one for one in every)
    }
    return {"tables": float(tables), **sums, **_ratio(sums)}


def _measures(row: Row, age: float | None, files: Files | None) -> Measures:
    _, data, index, free, rows, updated = row
    known = {
        "data_bytes": data,
        "index_bytes": index,
        "free_bytes": free,
        "rows": rows,
        "file_bytes": files.size if files else None,
        "update_age_s": updated,
        "statistics_age_s": age,
    }
    found = {name: max(0.0, float(value)) for name, value in known.items() if value is not None}
    size = found.get("file_bytes", found.get("data_bytes", 0.0) + found.get("index_bytes", 0.0))
    return {"size_bytes": size, **found, **_ratio(found)}


def _ratio(known: Measures) -> Measures:
    if "free_bytes" not in known:
        return {}
    whole = known["free_bytes"] + known.get("data_bytes", 0.0) + known.get("index_bytes", 0.0)
    return {"free_ratio": known["free_bytes"] / whole} if whole else {}


def _read_books(reader: Reader, names: Iterable[str]) -> Iterable[Row]:
    left = iter(names)
    while some := list(islice(left, _AT_ONCE)):
        yield from reader.rows(_BOOKS.format(marks=", ".join(["%s"] * len(some))), *some)


def _read_ages(reader: Reader) -> Mapping[str, float]:
    try:
        return {str(name): float(age) for name, age in reader.rows(_AGES)}
    except ServerError:
        return {}  # not every role may read them
