"""Learn how long operations take on objects, and tell it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import and_, bindparam, delete, func, insert, literal_column, select, update

from manager_service.domain.durations import Completion, Doing, Expectation, expectation, learned
from manager_service.domain.model import Span
from manager_service.store.statements import Among, Connection, Statement
from manager_service.store.tables import child_jobs, durations, targets
from manager_service.store.unit_of_work import UnitOfWork

_WHOLE = ""
_LEARNT = ("expected", "kept", "completions", "update_time")

_d, _c = durations.c, child_jobs.c
_object = func.coalesce(_c.object, literal_column("''"))
_KEY = (_d.target, _d.operation, _d.object)
# Of a target that was forgotten nothing is kept.
DONE = Statement(
    select(_c.id, _c.target, _c.operation, _object.label("object"))
    .with_hint(targets, "INDEXED BY ix_targets_room")
    .select_from(child_jobs.join(targets, targets.c.name == _c.target))
    .where(Among(_c.id, "ids"))
)
# In the order in which all managers lock these rows.
KNOWN = Statement(
    select(*_KEY, _d.kept, _d.completions)
    .select_from(
        child_jobs.join(
            durations, and_(_d.target == _c.target, _d.operation == _c.operation, _d.object == _object)
        )
    )
    .where(Among(_c.id, "ids"))
    .order_by(*_KEY)
    .with_for_update(of=durations)
)
_ADD = Statement(insert(durations))
SET = Statement(
    update(durations)
    .where(
        _d.target == bindparam("of_target"),
        _d.operation == bindparam("of_operation"),
        _d.object == bindparam("of_object"),
    )
    .values({name: bindparam(name) for name in _LEARNT})
)
ONE = Statement(
    select(_d.kept, _d.completions).where(
        _d.target == bindparam("target"), _d.operation == bindparam("operation"), _d.object == bindparam("object")
    )
)
OF_OBJECTS = Statement(
    select(_d.operation, _d.object, _d.expected).where(
        _d.target == bindparam("target"), Among(_d.operation, "operations"), Among(_d.object, "objects")
    )
)
OF_DATABASES = Statement(
    select(_d.target, _d.operation, _d.expected).where(
        Among(_d.target, "targets"), Among(_d.operation, "operations"), _d.object == literal_column("''")
    )
)
OLD = Statement(
    select(*_KEY)
    .with_hint(durations, "INDEXED BY ix_durations_update_time")
    .where(_d.update_time < bindparam("before"))
    .order_by(_d.update_time)
    .limit(bindparam("limit"))
    # What another manager adds to is not old any more.
    .with_for_update(skip_locked=True)
)
_DELETE = Statement(
    delete(durations).where(
        _d.target == bindparam("of_target"),
        _d.operation == bindparam("of_operation"),
        _d.object == bindparam("of_object"),
    )
)


def learn(tx: UnitOfWork, completions: Sequence[Completion]) -> int:
    """Add how long children took to what is known; return of how many operations on objects."""
    ids = sorted({item.child_job_id for item in completions})
    done = {row.id: (row.target, row.operation, row.object) for row in tx.rows(DONE, ids=ids)}
    known = {(row.target, row.operation, row.object): row for row in tx.rows(KNOWN, ids=ids)} if done else {}
    spans: dict[tuple[str, str, str], list[Span]] = {}
    for item in completions:
        if (key := done.get(item.child_job_id)) is not None:
            spans.setdefault(key, []).append(item.span)
    written = [(key, _row(tx, known.get(key), spans[key])) for key in sorted(spans)]
    tx.run_many(SET, [{**_of(key), **row} for key, row in written if key in known])
    tx.run_many(
        _ADD,
        [
            {"target": key[0], "operation": key[1], "object": key[2], **row}
            for key, row in written
            if key not in known
        ],
    )
    return len(written)


def prune_durations(tx: UnitOfWork, *, age: Span, limit: int) -> int:
    """Delete what was not added to for long."""
    old = tx.rows(OLD, before=tx.now - age, limit=limit)
    return tx.run_many(_DELETE, [_of((row.target, row.operation, row.object)) for row in old])


def read_expected(
    connection: Connection, target: str, object_name: str | None, operation: str
) -> Expectation | None:
    """Return what an operation is expected to take on an object, ``None`` for the whole database."""
    rows = connection.rows(ONE, target=target, operation=operation, object=object_name or _WHOLE)
    return expectation(json.loads(rows[0].kept), rows[0].completions) if rows else None


def read_expected_of_objects(
    connection: Connection, target: str, objects: Sequence[str | None], operations: Sequence[str]
) -> Mapping[Doing, Span]:
    """Return what these operations are expected to take on objects of a target."""
    names = [name or _WHOLE for name in objects]
    rows = connection.rows(OF_OBJECTS, target=target, operations=list(operations), objects=names)
    return {(row.operation, row.object or None): row.expected for row in rows}


def read_expected_of_databases(
    connection: Connection, names: Sequence[str], operations: Sequence[str]
) -> Mapping[tuple[str, str], Span]:
    """Return what these operations are expected to take on whole databases, by target and operation."""
    rows = connection.rows(OF_DATABASES, targets=list(names), operations=list(operations))
    return {(row.target, row.operation): row.expected for row in rows}


def _row(tx: UnitOfWork, known: Any | None, spans: Sequence[Span]) -> dict[str, Any]:
    kept = learned(json.loads(known.kept) if known else (), spans)
    completions = (known.completions if known else 0) + len(spans)
    return {
        "expected": expectation(kept, completions).span,
        "kept": json.dumps(kept),
        "completions": completions,
        "update_time": tx.now,
    }


def _of(key: tuple[str, str, str]) -> dict[str, Any]:
    return dict(zip(("of_target", "of_operation", "of_object"), key, strict=True))
