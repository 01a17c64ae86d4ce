"""What is known of tables beside what every operation reads of them: their files, ages and rights."""

from dataclasses import dataclass
from typing import Any

import psycopg

from worker_service.operations.postgresql.bloat import read_widths
from worker_service.operations.postgresql.catalog import MAINTAINER, OWNER, VERSION_17, Reader

# To measure the files of a relation the server locks it against being dropped. Where somebody holds it alone, or
# waits for that, the catalogue's own numbers have to do: nobody is waited for.
_LOCKED = """
  SELECT relation FROM pg_locks WHERE locktype = 'relation' AND mode = 'AccessExclusiveLock'
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_ESTIMATE = "greatest(c.relpages, 0)::bigint * current_setting('block_size')::bigint"
_ALL = "SELECT oid AS relation FROM pg_class"
_DETAILS = """
WITH locked AS ({locked})
SELECT c.oid,
       CASE WHEN l.relation IS NULL THEN pg_relation_size(c.oid) ELSE {estimate} END,
       CASE WHEN l.relation IS NULL THEN pg_table_size(c.oid) ELSE {estimate} END,
       CASE WHEN l.relation IS NULL THEN pg_indexes_size(c.oid) END,
       l.relation IS NOT NULL, c.reltoastrelid,
       pg_stat_get_ins_since_vacuum(c.oid),
       extract(epoch FROM clock_timestamp() - greatest(pg_stat_get_last_vacuum_time(c.oid),
                                                       pg_stat_get_last_autovacuum_time(c.oid)))::float8,
       extract(epoch FROM clock_timestamp() - greatest(pg_stat_get_last_analyze_time(c.oid),
                                                       pg_stat_get_last_autoanalyze_time(c.oid)))::float8,
       {owned}, has_schema_privilege(c.relnamespace, 'USAGE'), h.inhparent,
       substring(array_to_string(c.reloptions, ',') FROM 'fillfactor=([0-9]+)')::int
FROM pg_class AS c LEFT JOIN locked AS l ON l.relation = c.oid
LEFT JOIN pg_inherits AS h ON c.relispartition AND h.inhrelid = c.oid
WHERE c.relkind IN ('r', 'm', 'p') AND c.relpersistence <> 't'
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """What is known of one table beside what every operation reads of it; ``None`` is unknown or never."""

    heap_bytes: int
    table_bytes: int
    index_bytes: int | None
    estimated: bool
    toast: int
    inserted_rows: int
    vacuum_age: float | None
    analyze_age: float | None
    owned: bool
    usable: bool
    parent: int | None
    fill: int
    width: float | None = None


def read_details(read: Reader, version: int) -> dict[int, Details]:
    """Read what is known of every table, by its number."""
    owned = MAINTAINER if version >= VERSION_17 else OWNER
    widths = read_widths(read)
    rows = measured(read, _DETAILS, owned=owned)
    return {row[0]: _detail(row, widths.get(row[0])) for row in rows}


def measured(read: Reader, query: str, **parts: str) -> list[tuple[Any, ...]]:
    """Run a query that measures files, with estimates in place of those that somebody holds alone."""
    try:
        return read(query.format(locked=_LOCKED, estimate=_ESTIMATE, **parts))
    except psycopg.errors.LockNotAvailable:
        # Somebody came between the look at the locks and the measuring.
        return read(query.format(locked=_ALL, estimate=_ESTIMATE, **parts))


def _detail(row: tuple[Any, ...], width: float | None) -> Details:
    return Details(
        heap_bytes=row[1],
        table_bytes=row[2],
        index_bytes=row[3],
        estimated=row[4],
        toast=row[5],
        inserted_rows=row[6],
        vacuum_age=row[7],
        analyze_age=row[8],
        owned=row[9],
        usable=row[10],
        parent=row[11],
        fill=row[12] or 100,
        width=width,
    )
