from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from worker_service.domain.inspection import (
    INSPECT,
    InspectedObject,
    Inspection,
    InspectionResult,
    Scope,
    WantedOperation,
)
from worker_service.domain.lock import Lock
from worker_service.domain.outcome import Outcome, Result, Verdict
from worker_service.operations.postgresql.catalog import Reader
from worker_service.operations.postgresql.identity import lock_on
from worker_service.operations.postgresql.inventory import Inventory
from worker_service.operations.postgresql.lanes import JOBS
from worker_service.operations.postgresql.measures import size_measures
from worker_service.operations.postgresql.names import Name
from worker_service.operations.postgresql.options import Options, lock_timeout, read_options
from worker_service.operations.postgresql.procedure import Maintenance
from worker_service.operations.postgresql.session import Session
from worker_service.operations.postgresql.standing import SOMETIMES_MEASURED, of_database, of_index, of_table
from worker_service.operations.postgresql.telling import LeftOut, tell_catalogues
from worker_service.operations.postgresql.wanted import Keeps, Wanted, preview
from worker_service.operations.wording import count

_Plan = tuple[WantedOperation, Maintenance, Options]
_ByObject = Mapping[int, Sequence[tuple[str, Wanted, str]]]
"""By the number of a table or index: each operation, what it would do, and its preview."""

_NOTHING_TO_DO = "nothing that was asked for is done to it, such as to rebuild indexes that it does not have"
_Numbers = Mapping[str, float]


class Inspect:
    """Find the tables and indexes that operations are to be done to, and measure them; nothing is changed.

    Args:
        procedures: the operations that can be asked for, by name.
    """

    name = INSPECT
    description = "Find tables and indexes and measure them, for the operations of a parent job."
    options = (lock_timeout(2_000),)

    def __init__(self, procedures: Mapping[str, Maintenance]) -> None:
        self._procedures = procedures

    def check(self, _options: Options, /) -> None:
        """Take every combination."""

    def plan(self, _read: Reader, _options: Options, _subject: Name | None, /) -> tuple[str, ...]:
        """Nothing is changed."""
        return ()

    def run(self, session: Session, _subject: Name | None, /) -> Result:
        """Read the catalogues once, whatever the number of objects, and answer what is there."""
        inspection = (session.operation.inspection or Inspection()).decided(Scope.TABLE)
        plans = [self._planned(wanted) for wanted in inspection.operations]
        inventory = Inventory.read(session.rows, session.version, session.measure, inspection.selection)
        if inspection.scope is Scope.DATABASE:
            found = _database(session, inventory, inspection, plans)
        else:
            found = _objects(session, inventory, inspection, plans)
        reason = _told(inspection.scope, found.objects)
        return Result(outcome=Outcome.COMPLETED, verdict=Verdict.EFFECTIVE, reason=reason, inspection=found)

    def _planned(self, wanted: WantedOperation) -> _Plan:
        procedure = self._procedures[wanted.name]
        return wanted, procedure, read_options(procedure.options, wanted.options)


def _of_scope(plans: Sequence[_Plan], *scopes: Scope) -> list[_Plan]:
    return [plan for plan in plans if plan[1].scope in scopes]


def _whole(
    session: Session, inventory: Inventory, inspection: Inspection, plans: Sequence[_Plan]
) -> tuple[InspectedObject, ...]:
    """Return the database with what is done to nothing less than all of it; that holds its key alone."""
    of_all = _of_scope(plans, Scope.DATABASE)
    if not of_all:
        return ()
    (whole,) = _database(session, inventory, inspection, of_all).objects
    return (replace(whole, locks=(lock_on(session.identity),)),)


def _database(
    session: Session, inventory: Inventory, inspection: Inspection, plans: Sequence[_Plan]
) -> InspectionResult:
    """Measure the database as one object, which holds what is offered for it."""
    measures = of_database(inventory, size_measures(session.rows).get("file_bytes"))
    whole = InspectedObject(
        operations=tuple(wanted.name for wanted, _, _ in plans),
        size_bytes=int(measures["size_bytes"]),
        measures=measures,
        previews=tuple(
            _preview_of_all(session, inventory, procedure, options)
            for _, procedure, options in plans
            if inspection.preview
        ),
    )
    return InspectionResult(objects=(whole,), measures=SOMETIMES_MEASURED)


def _preview_of_all(session: Session, inventory: Inventory, procedure: Maintenance, options: Options) -> str:
    if refused := _refused(session, procedure, options):
        return f"no statement: {refused}"
    tables = {index.oid: inventory.table_of(index) for index in inventory.indexes}
    needs: dict[int, float] = defaultdict(float)
    for oid, one in procedure.wanted(session.rows, inventory, options, Scope.INDEX).items():
        table = tables.get(oid, oid)
        needs[table] = max(needs[table], 0.0 if one.why_not else one.disk_bytes)
    # At worst the largest are done at once, but of one table one at a time.
    disk_bytes = sum(sorted(needs.values(), reverse=True)[: options.numbers.get(JOBS.name) or 1])
    return preview(procedure.plan(session.rows, options, None), procedure.keeps(options), disk_bytes)


def _refused(session: Session, procedure: Maintenance, options: Options) -> str:
    failure = procedure.refusal(session.rows, session.version, options)
    return failure.message.removesuffix(".") if failure else ""


def _objects(
    session: Session, inventory: Inventory, inspection: Inspection, plans: Sequence[_Plan]
) -> InspectionResult:
    by_object = _by_object(session, inventory, inspection, plans)
    key = lock_on(session.identity).key
    takes = inspection.selection.takes
    log = LeftOut()
    tables = [
        _object(
            table.name,
            of_table(inventory, table),
            _locks(key, inventory, table.oid),
            by_object[table.oid],
            log,
        )
        for table in inventory.tables
        if table.oid in by_object and takes(table.name.shown, table.name.name)
    ]
    indexes = [
        _object(
            index.name,
            of_index(inventory, index),
            _locks(key, inventory, inventory.table_of(index)),
            by_object[index.oid],
            log,
        )
        for index in inventory.indexes
        if index.oid in by_object and takes(index.name.shown, index.name.name)
    ]
    log.tell(session)
    keeps = {procedure.keeps(options) for _, procedure, options in _of_scope(plans, Scope.TABLE)}
    if keeps - {Keeps.EVERYBODY}:  # what rewrites tables goes near no catalogue
        tell_catalogues(session, inventory.left_catalogues())
    # Among those that go first of all their order here counts.
    tables.sort(key=lambda one: -_urgency(one.measures) if one.urgent else 0.0)
    whole = _whole(session, inventory, inspection, plans)
    # What shares a table's key is done in this order, which is that of the request.
    first = plans[0][1].scope if plans and inspection.scope is Scope.INDEX else Scope.TABLE
    ordered = [*indexes, *tables] if first is Scope.INDEX else [*tables, *indexes]
    alone = (*_left_alone(inventory, inspection, plans), *_passed_over(inventory, inspection, by_object, plans))
    return InspectionResult(
        objects=(*whole, *ordered, *alone), locks=(Lock(key=key, exclusive=False),), measures=SOMETIMES_MEASURED
    )


def _by_object(
    session: Session, inventory: Inventory, inspection: Inspection, plans: Sequence[_Plan]
) -> _ByObject:
    found: dict[int, list[tuple[str, Wanted, str]]] = defaultdict(list)
    for wanted, procedure, options in _of_scope(plans, Scope.TABLE, Scope.INDEX):
        scope = inspection.scope if procedure.scope is Scope.INDEX else Scope.TABLE
        keeps = procedure.keeps(options)
        refused = _refused(session, procedure, options)
        for oid, planned in procedure.wanted(session.rows, inventory, options, scope).items():
            one = Wanted(statements=(), why_not=refused) if refused else planned
            text = preview(one.statements, keeps, one.disk_bytes) if inspection.preview else ""
            found[oid].append((wanted.name, one, text))
    return found


def _object(
    name: Name,
    measures: _Numbers,
    locks: tuple[Lock, ...],
    wanted: Iterable[tuple[str, Wanted, str]],
    left_out: LeftOut,
) -> InspectedObject:
    every = list(wanted)
    done = [one for one in every if not one[1].why_not]
    if done:
        left_out.count(one for one in every if one[1].why_not)
    chosen = done or every
    return InspectedObject(
        object=name.written,
        operations=tuple(operation for operation, _, _ in chosen),
        size_bytes=int(measures["size_bytes"]),
        measures=measures,
        locks=locks,
        previews=tuple(text for _, _, text in chosen if text),
        left_out="" if done else every[0][1].why_not,
        # Its vacuum will be forced, and at the end the whole server would stop writing.
        urgent=_urgency(measures) >= 1,
    )


def _urgency(measures: _Numbers) -> float:
    return max(measures.get("xid_age_ratio", 0.0), measures.get("mxid_age_ratio", 0.0))


def _locks(key: str, inventory: Inventory, table: int) -> tuple[Lock, ...]:
    """Return the keys of a table; those of the partitioned ones that it is part of are shared."""
    shared = [Lock(key=f"{key}/{oid}", exclusive=False) for oid in inventory.ancestors(table)]
    return (*shared, Lock(key=f"{key}/{table}"))


def _left_alone(inventory: Inventory, inspection: Inspection, plans: Sequence[_Plan]) -> Iterator[InspectedObject]:
    """List what no operation goes near, with its reason, where tables are maintained as such."""
    operations = _on_tables(inspection, plans)
    for name, why in inventory.left_alone if operations else ():
        if inspection.selection.takes(name.shown, name.name):
            yield InspectedObject(object=name.written, operations=operations, left_out=why)


def _passed_over(
    inventory: Inventory, inspection: Inspection, by_object: _ByObject, plans: Sequence[_Plan]
) -> Iterator[InspectedObject]:
    """List the tables that were asked for by name and that nothing of what is wanted is done to."""
    operations = _on_tables(inspection, plans)
    named = frozenset(inspection.selection.include)  # a pattern with signs of its own names nothing
    for table in inventory.tables if operations and named else ():
        # A partition may be done with what it is part of.
        listed = any(oid in by_object for oid in (table.oid, *inventory.ancestors(table.oid)))
        names = (table.name.shown, table.name.name)
        if not listed and not table.is_system and named.intersection(names) and inspection.selection.takes(*names):
            why = "it is partitioned, and its partitions are listed" if table.is_parent else _NOTHING_TO_DO
            yield InspectedObject(object=table.name.written, operations=operations, left_out=why)


def _on_tables(inspection: Inspection, plans: Sequence[_Plan]) -> tuple[str, ...]:
    return tuple(
        wanted.name
        for wanted, procedure, _ in _of_scope(plans, Scope.TABLE, Scope.INDEX)
        if inspection.scope is Scope.TABLE or procedure.scope is Scope.TABLE
    )


def _told(scope: Scope, objects: Sequence[InspectedObject]) -> str:
    if scope is Scope.DATABASE:
        return "measured the whole database"
    left_out = sum(bool(one.left_out) for one in objects)
    note = f", {left_out} of them left out" if left_out else ""
    if scope is Scope.TABLE:
        return f"found {count(len(objects), 'table')}{note}"
    return f"found {count(len(objects), 'table or index', 'tables and indexes')}{note}"
