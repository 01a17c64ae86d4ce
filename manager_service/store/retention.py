"""Delete what is finished: on request, by age, and events beyond what is kept."""

from typing import Any

from sqlalchemy import bindparam, delete, select, update

from manager_service.domain.errors import WrongStateError
from manager_service.domain.model import Span
from manager_service.store.statements import Among, Statement
from manager_service.store.tables import (
    attempts,
    child_jobs,
    events,
    job_logs,
    parent_counts,
    parent_jobs,
    parent_labels,
    parent_targets,
    stale_reports,
)
from manager_service.store.unit_of_work import UnitOfWork
from manager_service.store.writer import Bulk

# Each row takes its attempts, logs and index entries along.
_PIECE = 500

_p, _n, _e, _c = parent_jobs.c, parent_counts.c, events.c, child_jobs.c
_CHILDREN = Statement(select(_c.id).where(_c.parent_id == bindparam("parent_id")).limit(bindparam("limit")))
_DELETE_LOGS = Statement(delete(job_logs).where(Among(job_logs.c.child_id, "ids")))
_DELETE_STALE = Statement(delete(stale_reports).where(Among(stale_reports.c.child_id, "ids")))
_DELETE_ATTEMPTS = Statement(delete(attempts).where(Among(attempts.c.child_id, "ids")))
_DELETE_CHILDREN = Statement(delete(child_jobs).where(Among(_c.id, "ids")))
_TARGETS = Statement(
    select(parent_targets.c.target)
    .where(parent_targets.c.parent_id == bindparam("parent_id"))
    .limit(bindparam("limit"))
)
_DELETE_TARGETS = Statement(
    delete(parent_targets).where(
        parent_targets.c.parent_id == bindparam("of"), Among(parent_targets.c.target, "names")
    )
)
_DELETE_EVENTS = Statement(delete(events).where(_e.parent_id == bindparam("of"), _e.sequence < bindparam("below")))
_KEPT = Statement(
    select(_n.parent_id, _n.sequence, _n.first_sequence).where(_n.parent_id == bindparam("parent_id"))
)
# In the order in which all transactions lock these rows.
_LONG = Statement(
    select(_n.parent_id, _n.sequence, _n.first_sequence)
    .where(_n.sequence - _n.first_sequence >= bindparam("keep"))
    .order_by(_n.parent_id)
)
_SET_FIRST = Statement(
    update(parent_counts)
    # Another manager may have trimmed more meanwhile.
    .where(_n.parent_id == bindparam("of"), _n.first_sequence < bindparam("first"))
    .values(first_sequence=bindparam("first"))
)
_OLD = Statement(
    select(_p.id)
    .with_hint(parent_jobs, "INDEXED BY ix_parent_jobs_end_time")
    .where(_p.end_time.is_not(None), _p.end_time < bindparam("before"))
    .order_by(_p.end_time)
    .limit(bindparam("limit"))
)
# A retry may have opened it again since it was found.
_STILL_OLD = Statement(select(_p.id).where(_p.id == bindparam("of"), _p.end_time < bindparam("before")))
_DELETE_PARENT = tuple(
    Statement(delete(table).where(column == bindparam("of")))
    for table, column in (
        (parent_labels, parent_labels.c.parent_id),
        (parent_counts, _n.parent_id),
        (parent_jobs, _p.id),
    )
)


def delete_parent_job(tx: UnitOfWork, parent_job_id: str) -> Bulk[None]:
    """Delete a finished parent job with all that belongs to it."""
    tx.own(parent_job_id)
    parent = tx.parent(parent_job_id)
    if not parent.state.final:
        raise WrongStateError(parent_job_id, parent.state.value, "deleted")
    tx.flush()
    while not _remove(tx, parent_job_id, _PIECE)[1]:
        yield


def prune(tx: UnitOfWork, *, age: Span, limit: int) -> int:
    """Delete rows of parent jobs that ended long ago, the oldest first."""
    removed = 0
    tx.flush()
    for row in tx.rows(_OLD, before=tx.now - age, limit=limit):
        if removed >= limit:
            break
        if tx.try_own(row.id) and tx.rows(_STILL_OLD, of=row.id, before=tx.now - age):
            removed += _remove(tx, row.id, limit - removed)[0]
    return removed


def trim_events(tx: UnitOfWork, *, keep: int, limit: int) -> int:
    """Delete events beyond the newest ``keep`` of a parent job."""
    trimmed = 0
    tx.flush()
    for row in tx.rows(_LONG, keep=keep):
        if trimmed >= limit:
            break
        trimmed += _trim(tx, row, min(row.sequence - keep + 1, row.first_sequence + limit - trimmed))
    return trimmed


def _trim(tx: UnitOfWork, kept: Any, below: int) -> int:
    tx.run(_SET_FIRST, of=kept.parent_id, first=below)
    return tx.run(_DELETE_EVENTS, of=kept.parent_id, below=below)


def _remove(tx: UnitOfWork, parent_id: str, limit: int) -> tuple[int, bool]:
    """Delete about ``limit`` rows of a parent job, itself last; tell how many, and whether it is gone.

    A half removed one can still be read: its events go first, because they tell of its children.
    """
    removed = 0
    for row in tx.rows(_KEPT, parent_id=parent_id):
        removed += _trim(tx, row, min(row.sequence + 1, row.first_sequence + limit))
    if removed < limit:
        ids = [row.id for row in tx.rows(_CHILDREN, parent_id=parent_id, limit=limit - removed)]
        for statement in (_DELETE_LOGS, _DELETE_STALE, _DELETE_ATTEMPTS, _DELETE_CHILDREN):
            tx.run(statement, ids=ids)
        removed += len(ids)
    if removed < limit:
        named = tx.rows(_TARGETS, parent_id=parent_id, limit=limit - removed)
        removed += tx.run(_DELETE_TARGETS, of=parent_id, names=[row.target for row in named])
    if removed >= limit:
        return removed, False
    for statement in _DELETE_PARENT:
        removed += tx.run(statement, of=parent_id)
    tx.forget(parent_id)
    return removed, True
