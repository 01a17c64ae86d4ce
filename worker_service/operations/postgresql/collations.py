"""Collations whose order may have changed with the operating system, and the indexes that were built by them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from worker_service.operations.postgresql.catalog import Reader
from worker_service.operations.postgresql.names import Name
from worker_service.operations.postgresql.wording import quoted

_VERSION_15 = 150_000
_DEFAULT = 100
"""The number of the collation that stands for the database's own."""

_CHANGED = """
SELECT c.oid, n.nspname, c.collname, c.collversion, pg_collation_actual_version(c.oid),
       pg_has_role(c.collowner, 'USAGE')
FROM pg_collation AS c JOIN pg_namespace AS n ON n.oid = c.collnamespace
WHERE c.collversion <> pg_collation_actual_version(c.oid) ORDER BY 2, 3
"""
_DATABASE = """
SELECT 100::oid, NULL, datname, datcollversion, pg_database_collation_actual_version(oid),
       pg_has_role(datdba, 'USAGE')
FROM pg_database
WHERE datname = current_database() AND datcollversion <> pg_database_collation_actual_version(oid)
"""
# A column's collation stands in the index, that of an expression or a predicate among what the index depends on.
# There nothing is noted of the database's own, and for records not which they have: such indexes are taken to
# depend on it, and those on records on whatever changed.
_DEPENDING = """
SELECT i.indexrelid, c.oid FROM pg_index AS i, unnest(%s::oid[]) AS c (oid)
WHERE c.oid = ANY (i.indcollation::oid[])
UNION
SELECT d.objid, d.refobjid FROM pg_depend AS d JOIN pg_index AS i ON i.indexrelid = d.objid
WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_collation'::regclass AND d.refobjid = ANY (%s::oid[])
UNION
SELECT i.indexrelid, c.oid FROM unnest(%s::oid[]) AS c (oid), pg_index AS i
JOIN pg_class AS t ON t.oid = i.indrelid AND t.relnamespace <> 'pg_catalog'::regnamespace
WHERE c.oid = 100 AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL) OR EXISTS (
  SELECT FROM pg_attribute AS a JOIN pg_type AS y ON y.oid = a.atttypid
  JOIN pg_type AS b ON b.oid IN (y.oid, y.typelem, y.typbasetype) AND b.typtype IN ('r', 'm', 'c')
  LEFT JOIN pg_range AS r ON b.oid IN (r.rngtypid, r.rngmultitypid)
  WHERE a.attrelid = i.indexrelid AND (b.typtype = 'c' OR r.rngcollation = c.oid))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collation:
    """A collation, or the database's own (without a schema), that may sort otherwise than its data are sorted.

    ``depending`` are the numbers of the indexes that may have been built by it; ``owned`` is whether the role may
    note that they were built anew.
    """

    oid: int
    schema: str | None
    name: str
    noted: str
    actual: str
    owned: bool
    depending: frozenset[int] = frozenset()

    @property
    def shown(self) -> str:
        """The collation for people."""
        return f"the default of {self.name}" if self.schema is None else f"{self.schema}.{self.name}"

    @property
    def statement(self) -> str:
        """What notes that everything is sorted by the actual version."""
        if self.schema is None:
            return f"ALTER DATABASE {quoted(self.name)} REFRESH COLLATION VERSION"
        return f"ALTER COLLATION {Name(schema=self.schema, name=self.name)} REFRESH VERSION"


def changed_collations(read: Reader, version: int) -> list[Collation]:
    """Read the collations whose version is not the noted one; databases note that of their own from release 15."""
    rows = read(_CHANGED) + (read(_DATABASE) if version >= _VERSION_15 else [])
    oids = [row[0] for row in rows]
    depending = _by_collation(read(_DEPENDING, oids, oids, oids) if oids else [])
    return [
        Collation(
            oid=oid,
            schema=schema,
            name=name,
            noted=noted,
            actual=actual,
            owned=owned,
            depending=frozenset(depending.get(oid, ())),
        )
        for oid, schema, name, noted, actual, owned in rows
    ]


def _by_collation(rows: Sequence[tuple[int, int]]) -> Mapping[int, set[int]]:
    found: dict[int, set[int]] = {}
    for index, collation in rows:
        found.setdefault(collation, set()).add(index)
    return found
