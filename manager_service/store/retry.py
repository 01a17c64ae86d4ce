"""Open a new round of a parent job's failed children."""

from sqlalchemy import bindparam, select, update

from manager_service.domain.errors import WrongStateError
from manager_service.domain.events import BulkChangeKind
from manager_service.domain.model import ParentJob
from manager_service.domain.states import ChildJobState, ParentJobState
from manager_service.store.lanes import Head, enter_queue
from manager_service.store.parents import ParentInWork
from manager_service.store.statements import Among, Statement
from manager_service.store.tables import child_jobs, is_failed, parent_jobs
from manager_service.store.unit_of_work import UnitOfWork
from manager_service.store.writer import Bulk, pieces

_PIECE = 2_000

_c = child_jobs.c
_FAILED = Statement(
    select(_c.id, _c.lane, _c.target, _c.operation)
    .with_hint(child_jobs, "INDEXED BY ix_child_jobs_failed")
    .where(_c.parent_id == bindparam("parent_id"), is_failed)
    .order_by(_c.lane, _c.position)
    .limit(_PIECE)
)
_REOPEN = Statement(
    update(child_jobs)
    .where(Among(_c.id, "ids"))
    .values(
        state=ChildJobState.PENDING.value,
        failures=0,
        losses=0,
        version=_c.version + 1,
        verdict=None,
        reason="",
        before="",
        after="",
        available_time=None,
        end_time=None,
        waiters=None,
    )
)
# A deadline that passed binds the round in which it passed.
_LIFT_DEADLINE = Statement(
    update(parent_jobs)
    .where(parent_jobs.c.id == bindparam("of"), parent_jobs.c.deadline <= bindparam("now"))
    .values(deadline=None)
)


def retry_parent_job(tx: UnitOfWork, parent_job_id: str) -> Bulk[ParentJob]:
    """Make the failed children pending again, with fresh budgets; the first of each lane is its head."""
    tx.own(parent_job_id)
    parent = tx.parent(parent_job_id)
    if parent.state in (ParentJobState.PLANNING, ParentJobState.RUNNING) and parent.round > 1:
        return parent.as_parent_job()
    if not parent.state.final or not parent.settled_counts().failed:
        raise WrongStateError(parent_job_id, parent.state.value, "retried")
    heads: list[Head] = []
    lane, reopened = -1, 0
    while failed := tx.rows(_FAILED, parent_id=parent.id):
        tx.run(_REOPEN, ids=[row.id for row in failed])
        reopened += len(failed)
        for row in failed:
            if row.lane != lane:
                lane = row.lane
                heads.append(_head(tx, parent, row.id, row.target, row.operation))
        yield
    _reopen(tx, parent, reopened)
    for piece in pieces(heads):
        enter_queue(tx, piece)
        yield
    return parent.as_parent_job()


def _head(tx: UnitOfWork, parent: ParentInWork, child_id: str, target: str, operation: str) -> Head:
    return Head(child_id=child_id, parent=parent, target=target, operation=operation, available_time=tx.now)


def _reopen(tx: UnitOfWork, parent: ParentInWork, reopened: int) -> None:
    """Begin the round: whatever held or ended the last one is over."""
    tx.run(_LIFT_DEADLINE, of=parent.id, now=tx.now)
    parent.reopen()
    parent.moved(ChildJobState.FAILED, ChildJobState.PENDING, reopened)
    parent.bulk_changed(BulkChangeKind.RETRIED, reopened)
    tx.settle()
