from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from worker_service.domain.inspection import Scope
from worker_service.operations.postgresql.indexes import TOAST, Index
from worker_service.operations.postgresql.inventory import Inventory
from worker_service.operations.postgresql.sweep import Step
from worker_service.operations.wording import disk_need


class Keeps(StrEnum):
    """The lock that a statement takes on the table, and whom it keeps out."""

    NOBODY = "ACCESS SHARE: keeps out what rewrites or drops the table"
    MAINTENANCE = "SHARE UPDATE EXCLUSIVE: keeps out changes of the table's definition and other maintenance"
    WRITERS = "SHARE: keeps out writers"
    USERS_OF_THE_INDEX = "SHARE, and ACCESS EXCLUSIVE on the index: keeps out writers, and readers of the index"
    EVERYBODY = "ACCESS EXCLUSIVE: keeps out everybody"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What an operation would do to an object: its statements, or why it is left out.

    ``disk_bytes`` are what it needs on the disk while it runs, beside what is there.
    """

    statements: tuple[str, ...]
    why_not: str = ""
    disk_bytes: float = 0.0


def preview(statements: tuple[str, ...], keeps: Keeps, disk_bytes: float) -> str:
    """Word the statements, their lock and their need of disk in one line."""
    return "; ".join(part for part in (*(statements or ("no statement",)), keeps, disk_need(disk_bytes)) if part)


def beginning_with(wanted: Mapping[int, Wanted], first: Mapping[int, tuple[str, ...]]) -> Mapping[int, Wanted]:
    """Put further statements before those on objects, by their numbers."""
    return {
        oid: replace(one, statements=(*first[oid], *one.statements)) if oid in first and not one.why_not else one
        for oid, one in wanted.items()
    }


def by_index_or_table(
    inventory: Inventory,
    steps: Iterable[tuple[Index, Step]],
    scope: Scope,
    *,
    by_owner: bool | None,
    copies: bool = False,
) -> Mapping[int, Wanted]:
    """Put the statements on indexes down to each index, or to its table, in their order.

    A table does not stand for the indexes of its long values. ``by_owner`` is as for ``Inventory.why_not``, or
    ``None`` where no right on the table is needed. ``copies``: whether each index is written a second time, one
    after the other.
    """
    tables = {table.oid: table for table in inventory.tables}
    statements: dict[int, list[str]] = defaultdict(list)
    owners: dict[int, int] = {}
    disk: dict[int, float] = defaultdict(float)
    for index, step in steps:
        if scope is Scope.TABLE and index.table.schema == TOAST:
            continue
        oid = index.oid if scope is Scope.INDEX else index.table_oid
        owners[oid] = inventory.table_of(index)
        statements[oid].append(step.statement)
        disk[oid] = max(disk[oid], inventory.index_bytes[index.oid] if copies else 0.0)
    return {
        oid: Wanted(
            statements=tuple(texts),
            why_not=inventory.why_not(tables[owners[oid]], by_owner=by_owner),
            disk_bytes=disk[oid],
        )
        for oid, texts in statements.items()
        if owners[oid] in tables
    }
