"""What the server's catalogues say of tables: which there are, how large they are, and what was done to them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from worker_service.operations.postgresql.names import Name

Reader = Callable[..., list[tuple[Any, ...]]]
"""Runs a query, with its values after it, and returns the rows."""

CATALOGUES = "pg_catalog"
SYSTEM = (CATALOGUES, "information_schema")
PLAIN = ("r", "m")
PARENT = "p"
VERSION_17 = 170_000
VERSION_18 = 180_000

# Sizes come from pg_class: to measure a file, the server would wait for the lock of whoever holds the table.
_TABLES = """
SELECT c.oid, n.nspname, c.relname, c.relkind::text, greatest(c.relpages, 0), c.reltuples, c.relallvisible,
       greatest(0, age(nullif(c.relfrozenxid, '0')), age(x.relfrozenxid)),
       greatest(0, mxid_age(nullif(c.relminmxid, '0')), mxid_age(x.relminmxid)),
       pg_stat_get_live_tuples(c.oid), pg_stat_get_dead_tuples(c.oid), pg_stat_get_mod_since_analyze(c.oid),
       pg_stat_get_vacuum_count(c.oid), pg_stat_get_analyze_count(c.oid), pg_relation_filenode(c.oid),
       CASE WHEN c.relispartition THEN
         ARRAY(SELECT relid::oid FROM pg_partition_ancestors(c.oid) WHERE relid <> c.oid) END,
       coalesce(pg_stat_get_vacuum_count(x.oid), 0), pg_relation_filenode(x.oid), {permitted}
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_class AS x ON x.oid = c.reltoastrelid
WHERE c.relkind::text = ANY (%s) AND c.relpersistence <> 't' AND {chosen}
  AND (c.relkind <> 'p' OR c.relhassubclass)
"""
# A partitioned table or index stands for its parts. As an array it is found once, and by the index.
MEANT = """ARRAY(
WITH named AS (
  SELECT c.oid, c.relkind FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
  WHERE n.nspname = %s AND c.relname = %s)
SELECT oid FROM named
UNION SELECT t.relid::oid FROM named, pg_partition_tree(named.oid) AS t WHERE named.relkind IN ('p', 'I'))
"""
# Who may rebuild a table's indexes, and who may vacuum and analyse it.
OWNER = "pg_has_role(c.relowner, 'USAGE')"
MAINTAINER = f"({OWNER} OR has_table_privilege(c.oid, 'MAINTAIN'))"
_DATABASE_OWNER = """NOT c.relisshared AND
             (SELECT pg_has_role(datdba, 'USAGE') FROM pg_database WHERE datname = current_database())"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table, a materialized view or the parent of partitions, as it was when it was looked at.

    ``age`` and ``mxid_age`` are those of its oldest row or long value; ``ancestors`` are the partitioned tables
    that it is part of, the nearest first; ``toast_file`` is ``None`` where it has no room for long values.
    """

    oid: int
    name: Name
    kind: str
    pages: int
    rows: float
    all_visible: int
    age: int
    mxid_age: int
    live_rows: int
    dead_rows: int
    modified_rows: int
    vacuums: int
    analyzes: int
    file: int | None
    ancestors: Sequence[int]
    toast_vacuums: int
    toast_file: int | None
    permitted: bool

    def urgency(self, limits: Sequence[int]) -> float:
        """Return how near it is to a forced vacuum, from 1 on beyond; the limits are those of both ages."""
        return max(self.age / limits[0], self.mxid_age / limits[1])

    @property
    def is_system(self) -> bool:
        """Whether it is one of the system's own catalogues."""
        return self.name.schema in SYSTEM

    @property
    def is_parent(self) -> bool:
        """Whether it has partitions and no rows of its own."""
        return self.kind == PARENT


def read_tables(
    read: Reader, version: int, *, kinds: Sequence[str] = PLAIN, subject: Name | None = None
) -> list[Table]:
    """Read every table of the database but temporary ones, or the one that is named, with its partitions.

    Temporary tables belong to the sessions that made them: the server answers others that all is well and does
    nothing. What a foreign table or a view shows lies elsewhere.
    """
    chosen = "true" if subject is None else f"c.oid = ANY ({MEANT})"
    values = () if subject is None else (subject.schema, subject.name)
    owner = MAINTAINER if version >= VERSION_17 else OWNER
    rows = read(_TABLES.format(permitted=f"({owner} OR {_DATABASE_OWNER})", chosen=chosen), list(kinds), *values)
    return [_table(row) for row in rows]


def only(version: int) -> str:
    """Word that a statement is on one table: from PostgreSQL 18 on it would go through those that inherit too."""
    return "ONLY " if version >= VERSION_18 else ""


def maintained(tables: Iterable[Table], *, subject: Name | None) -> tuple[list[Table], int]:
    """Leave out the system's catalogues that the role may not maintain; return what is left, and their number.

    A role that was given an application's tables was never meant to have those. One that is named is kept, so
    that the server's refusal is seen.
    """
    every = list(tables)
    kept = [table for table in every if subject is not None or table.permitted or not table.is_system]
    return kept, len(every) - len(kept)


def _table(row: tuple[Any, ...]) -> Table:
    return Table(
        oid=row[0],
        name=Name(schema=row[1], name=row[2]),
        kind=row[3],
        pages=row[4],
        rows=row[5],
        all_visible=row[6],
        age=row[7],
        mxid_age=row[8],
        live_rows=row[9],
        dead_rows=row[10],
        modified_rows=row[11],
        vacuums=row[12],
        analyzes=row[13],
        file=row[14],
        ancestors=row[15] or (),
        toast_vacuums=row[16],
        toast_file=row[17],
        permitted=row[18],
    )
