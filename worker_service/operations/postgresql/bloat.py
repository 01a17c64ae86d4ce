"""How much larger tables and indexes are than what is in them: measured where that is cheap, otherwise estimated.

To measure, the extension pgstattuple reads pages: those of a table that are not all-visible, and all of an
index. It is asked for so many bytes of each kind, the cheapest first. Of the others the number of rows and the
average widths of their columns tell.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import psycopg

from worker_service.operations.postgresql.catalog import Reader
from worker_service.operations.postgresql.wording import quoted

Measurer = Callable[[str], Sequence[tuple[Any, ...]]]
"""Runs a query that may take long, and can be stopped; returns the rows."""

_MOST = 256 * 2**20

_EXTENSION = """
SELECT n.nspname, has_schema_privilege(n.oid, 'USAGE') AND coalesce(
  has_function_privilege(to_regprocedure(format('%I.pgstattuple_approx(regclass)', n.nspname)), 'EXECUTE')
  AND has_function_privilege(to_regprocedure(format('%I.pgstatindex(regclass)', n.nspname)), 'EXECUTE'), false)
FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace WHERE e.extname = 'pgstattuple'
"""
# Nobody is waited for: what somebody holds alone is left to the estimate.
_FREE = """NOT EXISTS (
  SELECT FROM pg_locks AS l WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND l.relation = c.oid
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))"""
_FILL = "substring(array_to_string(c.reloptions, ',') FROM 'fillfactor=([0-9]+)')::int"
_TABLES = f"""
WITH sized AS (
  SELECT c.oid, coalesce({_FILL}, 100) AS fill, greatest(
           0, pg_relation_size(c.oid) - c.relallvisible::bigint * current_setting('block_size')::bigint) AS cost
  FROM pg_class AS c
  WHERE c.relkind IN ('r', 'm') AND c.relam = '2' AND c.relpersistence <> 't' AND {_FREE}),
cheap AS (SELECT oid, fill, sum(cost) OVER (ORDER BY cost, oid) AS costs FROM sized)
SELECT c.oid, a.table_len::float8,
       (a.dead_tuple_len + greatest(0, a.approx_free_space - a.table_len * (100 - c.fill) / 100.0))::float8
FROM cheap AS c, {{schema}}.pgstattuple_approx(c.oid) AS a WHERE c.costs <= {{most}}
"""  # noqa: S608 - constants
_INDEXES = f"""
WITH sized AS (
  SELECT c.oid, coalesce({_FILL}, 90) AS fill, pg_relation_size(c.oid) AS cost
  FROM pg_class AS c JOIN pg_index AS i ON i.indexrelid = c.oid JOIN pg_am AS m ON m.oid = c.relam
  WHERE c.relkind = 'i' AND m.amname = 'btree' AND i.indisvalid AND c.relpersistence <> 't' AND {_FREE}),
cheap AS (SELECT oid, fill, sum(cost) OVER (ORDER BY cost, oid) AS costs FROM sized)
SELECT c.oid, a.index_size::float8,
       CASE WHEN a.leaf_pages = 0 THEN 0 ELSE greatest(0, a.index_size - current_setting('block_size')::int * (
         1 + a.internal_pages + ceil(a.leaf_pages * least(1, a.avg_leaf_density / c.fill)))) END::float8
FROM cheap AS c, {{schema}}.pgstatindex(c.oid) AS a WHERE c.costs <= {{most}}
"""  # noqa: S608 - constants
# The bytes of a row's values, for tables of which every column has statistics. Most roles see those of the tables
# that they may read.
_WIDTHS = """
SELECT a.attrelid, sum((1 - s.stanullfrac) * s.stawidth)::float8
FROM pg_attribute AS a
LEFT JOIN pg_statistic AS s ON s.starelid = a.attrelid AND s.staattnum = a.attnum AND NOT s.stainherit
WHERE a.attnum > 0 AND NOT a.attisdropped GROUP BY 1 HAVING count(*) = count(s.starelid)
"""
_WIDTHS_OF_READABLE = """
SELECT a.attrelid, sum((1 - s.null_frac) * s.avg_width)::float8
FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_stats AS s
  ON s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = a.attname AND NOT s.inherited
WHERE a.attnum > 0 AND NOT a.attisdropped GROUP BY 1 HAVING count(*) = count(s.attname)
"""
# The same of the keys of B-trees; those of an expression have their statistics under the index's own name.
_KEYS = """
SELECT c.oid, c.reltuples, pg_relation_size(c.oid)::float8,
       coalesce({fill}, 90), {width}::float8
FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid AND c.relkind = 'i' AND c.relpersistence <> 't'
JOIN pg_am AS m ON m.oid = c.relam AND m.amname = 'btree'
CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (att, place)
{statistics}
WHERE {free} AND c.reltuples >= 0 GROUP BY c.oid HAVING count(*) = count({known})
"""
_OF_STATISTICS = {
    "width": "sum((1 - s.stanullfrac) * s.stawidth)",
    "statistics": """LEFT JOIN pg_statistic AS s ON NOT s.stainherit
  AND s.starelid = CASE k.att WHEN 0 THEN c.oid ELSE i.indrelid END
  AND s.staattnum = CASE k.att WHEN 0 THEN k.place ELSE k.att END""",
    "known": "s.starelid",
}
_OF_READABLE = {
    "width": "sum((1 - s.null_frac) * s.avg_width)",
    "statistics": """JOIN pg_class AS t ON t.oid = CASE k.att WHEN 0 THEN c.oid ELSE i.indrelid END
JOIN pg_namespace AS n ON n.oid = t.relnamespace
JOIN pg_attribute AS a ON a.attrelid = t.oid AND a.attnum = CASE k.att WHEN 0 THEN k.place ELSE k.att END
LEFT JOIN pg_stats AS s
  ON s.schemaname = n.nspname AND s.tablename = t.relname AND s.attname = a.attname AND NOT s.inherited""",
    "known": "s.attname",
}
_MAY_READ_WIDTHS = "SELECT has_table_privilege('pg_catalog.pg_statistic', 'SELECT')"
_ROW_OVERHEAD = 28
_KEY_OVERHEAD = 8
_POINTER = 4
_ALIGNED = 8
_PAGE_HEADER = 24
_TREE_HEADER = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Spare:
    """The bytes of a file, how many of them what is in it would not need, and whether that is an estimate."""

    file_bytes: float
    spare_bytes: float
    estimated: bool

    @classmethod
    def of(cls, parts: Iterable[Self]) -> Self | None:
        """Sum up; nothing of nothing."""
        every = list(parts)
        if not every:
            return None
        return cls(
            file_bytes=sum(one.file_bytes for one in every),
            spare_bytes=sum(one.spare_bytes for one in every),
            estimated=any(one.estimated for one in every),
        )

    def measures(self, prefix: str = "") -> dict[str, float]:
        """Name the numbers."""
        return {
            f"{prefix}bloat_bytes": self.spare_bytes,
            f"{prefix}bloat_ratio": self.spare_bytes / max(1.0, self.file_bytes),
            f"{prefix}bloat_estimated": float(self.estimated),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Bloat:
    """By the number of a table what was measured of it, and by that of an index what was measured or estimated."""

    tables: Mapping[int, Spare]
    indexes: Mapping[int, Spare]

    @classmethod
    def read(cls, read: Reader, measure: Measurer, block_bytes: int) -> Self:
        """Measure what can be, and estimate indexes; tables are estimated by those who know their rows."""
        schema = _schema(read)
        return cls(
            tables=_measured(measure, _TABLES, schema),
            indexes={**_estimated(read, block_bytes), **_measured(measure, _INDEXES, schema)},
        )


def read_widths(read: Reader) -> Mapping[int, float]:
    """Read the average bytes of the values of a row of each table whose statistics the role may see."""
    return dict(read(_WIDTHS if read(_MAY_READ_WIDTHS)[0][0] else _WIDTHS_OF_READABLE))


def needed_bytes(rows: float, width: float, fill: int, block_bytes: int) -> float:
    """Estimate the bytes of the pages that so many rows would fill, as full as the table is meant to be."""
    row = _ROW_OVERHEAD + -(-width // _ALIGNED) * _ALIGNED
    room = (block_bytes - _PAGE_HEADER) * fill / 100
    return -(-rows * row // room) * block_bytes


def needed_by_tree(rows: float, width: float, fill: int, block_bytes: int) -> float:
    """Estimate the bytes of a B-tree with so many keys; equal keys share one entry, so it may be smaller."""
    key = _POINTER + -(-(_KEY_OVERHEAD + width) // _ALIGNED) * _ALIGNED
    room = (block_bytes - _TREE_HEADER) * fill / 100
    return (1 + -(-rows * key // room)) * block_bytes


def _schema(read: Reader) -> str | None:
    """Return where the functions of the extension are; ``None`` without it, or without the right to run them."""
    return next((schema for schema, permitted in read(_EXTENSION) if permitted), None)


def _measured(measure: Measurer, query: str, schema: str | None) -> Mapping[int, Spare]:
    if schema is None:
        return {}
    try:
        rows = measure(query.format(schema=quoted(schema), most=_MOST))
    except (psycopg.errors.LockNotAvailable, psycopg.ProgrammingError, psycopg.InternalError):
        # Somebody locked or dropped one of them meanwhile: then all are estimated.
        return {}
    return {oid: Spare(file_bytes=file, spare_bytes=spare, estimated=False) for oid, file, spare in rows}


def _estimated(read: Reader, block_bytes: int) -> Mapping[int, Spare]:
    parts = _OF_STATISTICS if read(_MAY_READ_WIDTHS)[0][0] else _OF_READABLE
    try:
        rows = read(_KEYS.format(free=_FREE, fill=_FILL, **parts))
    except psycopg.errors.LockNotAvailable:
        return {}
    return {
        oid: Spare(
            file_bytes=file,
            spare_bytes=max(0.0, file - needed_by_tree(keys, width, fill, block_bytes)),
            estimated=True,
        )
        for oid, keys, file, fill, width in rows
    }
