"""What the server's catalogues say of indexes, and the leftovers of concurrent rebuilds among them."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from worker_service.operations.postgresql.catalog import MEANT, SYSTEM, Reader
from worker_service.operations.postgresql.names import Name

TOAST = "pg_toast"
_FIRST_NORMAL_OID = 16_384
_LONGEST = 63
_LEFTOVER = re.compile(r"(?:_cc(?:new|old)\d*)+\Z")
_INDEXES = """
SELECT c.oid, n.nspname, c.relname, t.oid, tn.nspname, t.relname, greatest(c.relpages, 0),
       pg_relation_filenode(c.oid), i.indisvalid, i.indisexclusion, a.amname, i.indisclustered,
       i.indexprs IS NOT NULL OR i.indpred IS NOT NULL
FROM pg_index AS i
JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_class AS t ON t.oid = i.indrelid JOIN pg_namespace AS tn ON tn.oid = t.relnamespace
JOIN pg_am AS a ON a.oid = c.relam
WHERE c.relkind = 'i' AND c.relpersistence <> 't' AND {chosen}
"""
# Both columns have an index of their own.
_NAMED = f"({{alias}}.indexrelid = ANY ({MEANT}) OR {{alias}}.indrelid = ANY ({MEANT}))"
_BESIDE = f"i.indrelid = ANY (ARRAY(SELECT x.indrelid FROM pg_index AS x WHERE {_NAMED.format(alias='x')}))"  # noqa: S608 - constants
_BUILDING = """
SELECT relation FROM pg_locks
WHERE locktype = 'relation' AND mode = 'ShareUpdateExclusiveLock' AND pid <> ALL (%s) AND relation = ANY (%s)
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """An index as it was when it was looked at; the indexes of a partitioned index's parts, not itself.

    ``waited_for``: for its expression or condition a rebuild may read other tables, and others wait for it.
    """

    oid: int
    name: Name
    table_oid: int
    table: Name
    pages: int
    file: int | None
    valid: bool
    exclusion: bool
    method: str
    clustered: bool
    waited_for: bool

    @property
    def is_system(self) -> bool:
        """Whether it is one of the system's own."""
        return self.table.schema in SYSTEM or (self.table.schema == TOAST and self.table_oid < _FIRST_NORMAL_OID)


def read_indexes(read: Reader, *, subject: Name | None = None) -> list[Index]:
    """Read every index of the database but those of temporary tables, or the one or the table's that is named."""
    chosen = "true" if subject is None else _NAMED.format(alias="i")
    return [_index(row) for row in read(_INDEXES.format(chosen=chosen), *_values(subject))]


def read_beside(read: Reader, *, subject: Name | None) -> list[Index]:
    """Read every index of the database, or those that are named and those beside them on their tables."""
    chosen = "true" if subject is None else _BESIDE
    return [_index(row) for row in read(_INDEXES.format(chosen=chosen), *_values(subject))]


def meant(read: Reader, beside: Iterable[Index], subject: Name) -> list[Index]:
    """Return the index or the table's indexes that are named, out of all those on their tables.

    Of a partitioned one the catalogues tell the parts.
    """
    own = [index for index in beside if subject in {index.name, index.table}]
    return own or read_indexes(read, subject=subject)


def may_use_toast(read: Reader) -> bool:
    """Tell whether the role may name the indexes of the tables that hold long values; mostly superusers may."""
    return bool(read("SELECT has_schema_privilege('pg_toast', 'USAGE')")[0][0])


def leftovers(indexes: Iterable[Index]) -> list[Index]:
    """Return what concurrent rebuilds that were broken off have left: invalid, and named after another index.

    ``x_ccnew`` is a new one that was not finished, ``x_ccold`` an old one that was replaced already. One whose
    namesake is not on the same table was named so by somebody else.
    """
    return [index for index in _named_as_left(indexes) if not index.valid]


def revived(indexes: Iterable[Index]) -> list[Index]:
    """Return those whose name says that they were left so, and that are valid: a rewrite of the table does it."""
    return [index for index in _named_as_left(indexes) if index.valid]


def _named_as_left(indexes: Iterable[Index]) -> list[Index]:
    every = list(indexes)
    names = {(index.table_oid, index.name.name) for index in every}
    return [index for index in every if _LEFTOVER.search(index.name.name) and _has_namesake(index, names)]


def is_being_built(read: Reader, index: Index, own: list[int]) -> bool:
    """Tell whether a session may be building the index just now: it would hold this lock on the table."""
    return bool(being_built(read, [index], own))


def being_built(read: Reader, indexes: Sequence[Index], own: list[int]) -> list[Index]:
    """Return those that a session may be building just now, in one question at most."""
    numbers = [oid for index in indexes for oid in (index.oid, index.table_oid)]
    held = {relation for (relation,) in read(_BUILDING, own, numbers)} if numbers else set()
    return [index for index in indexes if held & {index.oid, index.table_oid}]


def _values(subject: Name | None) -> tuple[str, ...]:
    return () if subject is None else (subject.schema, subject.name) * 2


def _has_namesake(index: Index, names: set[tuple[int, str]]) -> bool:
    base = _LEFTOVER.sub("", index.name.name)
    if (index.table_oid, base) in names:
        return True
    # The server cuts a long name so that its ending fits.
    cut = len(index.name.name.encode()) >= _LONGEST - 4
    return cut and any(
        table == index.table_oid and name.startswith(base) and not _LEFTOVER.search(name) for table, name in names
    )


def _index(row: tuple[Any, ...]) -> Index:
    return Index(
        oid=row[0],
        name=Name(schema=row[1], name=row[2]),
        table_oid=row[3],
        table=Name(schema=row[4], name=row[5]),
        pages=row[6],
        file=row[7],
        valid=row[8],
        exclusion=row[9],
        method=row[10],
        clustered=row[11],
        waited_for=row[12],
    )
