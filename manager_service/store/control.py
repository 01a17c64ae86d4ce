"""Cancel, pause and resume parent jobs."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import bindparam, case, func, select, update

from manager_service.domain.attempts import Stop
from manager_service.domain.errors import WrongStateError
from manager_service.domain.model import ParentJob
from manager_service.domain.states import ParentJobState
from manager_service.store.parents import ParentInWork
from manager_service.store.statements import Among, Statement
from manager_service.store.sweep import stop_live, sweep
from manager_service.store.tables import DELAYED, HELD, READY, queue
from manager_service.store.unit_of_work import UnitOfWork
from manager_service.store.writer import Bulk

# So many pending children end together with the cancel itself; more are left to the sweep.
_SWEPT_AT_ONCE = 1_000
_PIECE = 2_000

_q = queue.c
_TO_HOLD = Statement(
    select(_q.child_id, _q.target, _q.available_time)
    .with_hint(queue, "INDEXED BY ix_queue_parent_id")
    .where(_q.parent_id == bindparam("parent_id"), _q.hold < HELD)
    .limit(_PIECE)
)
_TO_LET_GO = Statement(
    select(_q.child_id, _q.target, _q.available_time)
    .with_hint(queue, "INDEXED BY ix_queue_parent_id")
    .where(_q.parent_id == bindparam("parent_id"), _q.hold == HELD)
    .limit(_PIECE)
)
_FIRST_TURN = Statement(
    select(func.min(_q.turn).label("turn"))
    .select_from(queue)
    .with_hint(queue, "INDEXED BY ix_queue_parent_id")
    .where(_q.parent_id == bindparam("parent_id"))
)
_HOLD = Statement(update(queue).where(Among(_q.child_id, "ids")).values(hold=HELD))
_LET_GO = Statement(
    update(queue)
    .where(Among(_q.child_id, "ids"))
    .values(
        hold=case((_q.available_time > bindparam("now"), DELAYED), else_=READY),
        turn=_q.turn + bindparam("missed_turns"),
    )
)


def cancel_parent_job(tx: UnitOfWork, parent_job_id: str, reason: str) -> ParentJob:
    """Set the cancel flag, stop what is live, and end what is pending if it is little."""
    tx.own(parent_job_id)
    parent = tx.parent(parent_job_id)
    if parent.state is ParentJobState.CANCELLED or (parent.state.final and parent.cancel_requested):
        return parent.as_parent_job()
    if parent.state.final:
        raise WrongStateError(parent_job_id, parent.state.value, "cancelled")
    if not parent.cancel_requested:
        parent.cancel_requested, parent.cancel_reason = True, reason
        tx.settle()
        stop_live(tx, parent, Stop.CANCEL, reason)
        if parent.settled_counts().pending <= _SWEPT_AT_ONCE:
            sweep(tx, parent_job_id, limit=_SWEPT_AT_ONCE)
        tx.to_sweep(parent)
    return parent.as_parent_job()


def pause_parent_job(tx: UnitOfWork, parent_job_id: str) -> Bulk[ParentJob]:
    """Set the pause flag and hold the heads."""
    parent = _running(tx, parent_job_id, "paused")
    if not parent.paused:
        parent.paused = True
        tx.settle()
        while heads := tx.rows(_TO_HOLD, parent_id=parent.id):
            tx.run(_HOLD, ids=[head.child_id for head in heads])
            yield
    return parent.as_parent_job()


def resume_parent_job(tx: UnitOfWork, parent_job_id: str) -> Bulk[ParentJob]:
    """Clear the pause flag and let the heads go on, from the turn that the others have reached meanwhile."""
    parent = _running(tx, parent_job_id, "resumed")
    if parent.paused:
        parent.paused = False
        tx.settle()
        missed = _missed_turns(tx, parent)
        parent.last_turn += missed
        for heads in _held(tx, parent):
            tx.run(_LET_GO, ids=[head.child_id for head in heads], now=tx.now, missed_turns=missed)
            for head in heads:
                if head.available_time <= tx.now:
                    tx.ready(head.child_id, head.target)
                else:
                    tx.fall_due()
            yield
    return parent.as_parent_job()


def _running(tx: UnitOfWork, parent_job_id: str, verb: str) -> ParentInWork:
    tx.own(parent_job_id)
    parent = tx.parent(parent_job_id)
    if parent.state.final or parent.state is ParentJobState.CANCELLING:
        raise WrongStateError(parent_job_id, parent.state.value, verb)
    return parent


def _missed_turns(tx: UnitOfWork, parent: ParentInWork) -> int:
    first = tx.row(_FIRST_TURN, parent_id=parent.id)
    if first is None or first.turn is None:
        return 0
    return max(0, tx.turn(-parent.spec.priority) - int(first.turn))


def _held(tx: UnitOfWork, parent: ParentInWork) -> Iterator[list[Any]]:
    while heads := tx.rows(_TO_LET_GO, parent_id=parent.id):
        yield heads
