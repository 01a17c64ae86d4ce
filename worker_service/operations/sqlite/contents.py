"""What is in a file, and the measures of the whole, of its tables and of its indexes."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import apsw

from worker_service.domain.outcome import Measures
from worker_service.operations.sqlite.measures import used_bytes
from worker_service.operations.sqlite.reindex import INDEXES
from worker_service.operations.wording import size

_TABLES = "SELECT name, type FROM pragma_table_list WHERE schema = 'main' AND name NOT GLOB 'sqlite_*'"
_STATISTICS = "SELECT tbl, idx, stat FROM main.sqlite_stat1"
_TELLS_PAGES = "SELECT 1 FROM pragma_module_list WHERE name = 'dbstat'"
_PAGES = "SELECT name, pgsize, unused FROM dbstat('main') WHERE aggregate = 1"
# SQLite reads every page to tell how many belong to whom, and keeps writers waiting meanwhile.
_LARGEST_READ = 2**30
LEFT_OUT = {
    "view": "a view has no rows of its own",
    "virtual": "its rows are in other tables, which are listed by themselves, or nowhere",
}
SOMETIMES_MEASURED = (
    "size_bytes",
    "data_bytes",
    "index_bytes",
    "rows",
    "unused_bytes",
    "bloat_bytes",
    "bloat_ratio",
)
"""Sizes and what is unused are left out of a large file, and rows of what was never analyzed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """What is in a file: its tables with their types, the indexes of each, and what is known of both by name.

    ``sizes`` are the bytes of their pages, ``unused`` those of them that hold nothing, ``rows`` what the
    optimizer's statistics say. ``pages_not_known`` says why there are neither sizes nor unused bytes; empty where
    there are.
    """

    tables: Mapping[str, str]
    indexes: Mapping[str, Sequence[str]]
    rows: Mapping[str, float]
    sizes: Mapping[str, float] = field(default_factory=dict)
    unused: Mapping[str, float] = field(default_factory=dict)
    pages_not_known: str = ""


def read_catalogue(connection: apsw.Connection, measures: Measures) -> Catalogue:
    """Read what is in a file that has these measures, and its pages where it is not too large for that.

    Raises:
        apsw.Error: the file cannot be read, or the look was interrupted.
    """
    indexes: dict[str, list[str]] = defaultdict(list)
    for table, index in connection.execute(INDEXES):
        indexes[str(table)].append(str(index))
    not_known = _why_not_known(connection, measures)
    pages = [] if not_known else connection.execute(_PAGES).fetchall()
    return Catalogue(
        tables={str(name): str(kind) for name, kind in connection.execute(_TABLES)},
        indexes=indexes,
        rows=_read_rows(connection),
        sizes={str(name): float(str(taken)) for name, taken, _ in pages},
        unused={str(name): float(str(unused)) for name, _, unused in pages},
        pages_not_known=not_known,
    )


def of_file(measures: Measures, catalogue: Catalogue, auto_vacuum: float) -> Measures:
    """Measure the file: what is free are whole pages, and what is unused lies within the others."""
    pages = measures["pages"]
    free = measures["free_pages"] * measures["page_bytes"]
    unused = sum(catalogue.unused.values())
    known = {"unused_bytes": unused, "bloat_bytes": free + unused} if catalogue.sizes else {}
    return {
        "size_bytes": measures["file_bytes"] + measures["wal_bytes"],
        **measures,
        "free_bytes": free,
        "free_ratio": measures["free_pages"] / pages if pages else 0.0,
        **known,
        **({"bloat_ratio": (free + unused) / used_bytes(measures)} if known else {}),
        "tables": float(sum(kind not in LEFT_OUT for kind in catalogue.tables.values())),
        "indexes": float(sum(map(len, catalogue.indexes.values()))),
        "never_analyzed": float(measures["stat_rows"] == 0),
        "auto_vacuum": auto_vacuum,
    }


def of_table(catalogue: Catalogue, name: str) -> Measures:
    """Measure a table with its indexes."""
    indexes = catalogue.indexes.get(name, ())
    measures = {**of_index(catalogue, name), "indexes": float(len(indexes))}
    if name not in catalogue.sizes:
        return measures
    of_indexes = sum(catalogue.sizes.get(index, 0.0) for index in indexes)
    own = {"data_bytes": catalogue.sizes[name], "index_bytes": of_indexes}
    return {**measures, "size_bytes": sum(own.values()), **own, **_unused(catalogue, (name, *indexes))}


def of_index(catalogue: Catalogue, name: str) -> Measures:
    """Measure what has pages of its own: an index, or a table without its indexes."""
    known = {"size_bytes": catalogue.sizes.get(name), "rows": catalogue.rows.get(name)}
    found = {measure: value for measure, value in known.items() if value is not None}
    analyzed = name in catalogue.rows
    told = {"analyzed": float(analyzed), "never_analyzed": float(not analyzed)}
    return {**found, **told, **_unused(catalogue, (name,))}


def _unused(catalogue: Catalogue, names: Iterable[str]) -> Measures:
    known = [name for name in names if name in catalogue.sizes]
    taken = sum(catalogue.sizes[name] for name in known)
    unused = sum(catalogue.unused[name] for name in known)
    return {"unused_bytes": unused, "bloat_ratio": unused / taken} if taken else {}


def _why_not_known(connection: apsw.Connection, measures: Measures) -> str:
    if used_bytes(measures) > _LARGEST_READ:
        return f"every page would be read, and the file is larger than {size(_LARGEST_READ)}"
    if not connection.execute(_TELLS_PAGES).fetchall():
        return "the SQLite library was built without dbstat"
    return ""


def _read_rows(connection: apsw.Connection) -> Mapping[str, float]:
    if not connection.table_exists("main", "sqlite_stat1"):
        return {}
    rows: dict[str, float] = {}
    for table, index, text in connection.execute(_STATISTICS):
        first = str(text).split(" ", 1)[0]
        for name in (table, index):
            if name is not None and first.isdigit():
                rows[str(name)] = max(float(first), rows.get(str(name), 0.0))
    return rows
