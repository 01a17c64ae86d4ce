"""Checking the rows and pages of tables, by ``verify_heapam`` of the extension amcheck."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from worker_service.domain.outcome import Failure, FailureCategory
from worker_service.operations.postgresql.catalog import MEANT, Reader
from worker_service.operations.postgresql.names import Name
from worker_service.operations.postgresql.session import Row
from worker_service.operations.postgresql.sweep import Step
from worker_service.operations.postgresql.wording import literal, quoted
from worker_service.operations.wording import listed

FUNCTION = "verify_heapam"
# Only tables of the server's own kind (its access method's number never changes) can be read so.
_HEAPS = """
SELECT c.oid, n.nspname, c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND c.relam = '2' AND c.relpersistence <> 't' AND {chosen}
ORDER BY c.relpages DESC, 2, 3
"""
# It stops behind the first damaged page: a file of noise has as many findings as rows.
_CALL = (
    "SELECT blkno, offnum, attnum, msg FROM {schema}.verify_heapam({name}::regclass, on_error_stop => true, "
    "check_toast => true)"
)
_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Heap:
    """A table whose rows can be checked."""

    oid: int
    name: Name


def read_heaps(read: Reader, subject: Name | None) -> list[Heap]:
    """Read which tables can be checked, the largest first: all, or the named one with its partitions."""
    chosen = "true" if subject is None else f"c.oid = ANY ({MEANT})"
    rows = read(_HEAPS.format(chosen=chosen), *(() if subject is None else (subject.schema, subject.name)))
    return [Heap(oid=row[0], name=Name(schema=row[1], name=row[2])) for row in rows]


def heap_steps(heaps: Iterable[Heap], schema: str) -> list[Step]:
    """Word one call a table."""
    return [
        Step(
            name=heap.name,
            statement=_CALL.format(schema=quoted(schema), name=literal(str(heap.name))),
            table=heap.oid,
        )
        for heap in heaps
    ]


def why_unchecked(found: Sequence[Row]) -> Failure | None:
    """Tell why tables cannot be checked, from the function's schema and the role's right on it, if it is there."""
    if not found:
        text = f"this release of the extension has no {FUNCTION}: run ALTER EXTENSION amcheck UPDATE"
        return Failure(reason="EXTENSION_OLD", message=text, category=FailureCategory.INVALID, retryable=False)
    if not found[0][1]:
        text = f"the role may not run {FUNCTION}: GRANT EXECUTE on it, or choose heap=false"
        return Failure(
            reason="PERMISSION_DENIED", message=text, category=FailureCategory.PERMISSION, retryable=False
        )
    return None


def damage_in(_step: Step, rows: Sequence[Row]) -> Failure | None:
    """Tell the damage that the rows of an answer stand for; the call for an index answers none that count."""
    found = [row for row in rows if len(row) > 1]
    if not found:
        return None
    text = listed([f"block {block}, row {row}: {said}" for block, row, _, said in found], _SHOWN)
    return Failure(reason="DAMAGED", message=f"{text}.", category=FailureCategory.CORRUPT, retryable=False)
