"""What falls due by itself: leases that ran out, delays that are over."""

from sqlalchemy import bindparam, func, select, update

from manager_service.domain.attempts import Loss
from manager_service.domain.model import Instant, Span
from manager_service.domain.states import ChildJobState
from manager_service.store.endings import hold_leases, lose_leases
from manager_service.store.statements import Among, Connection, Statement
from manager_service.store.tables import READY, is_delayed, is_unaccepted, leases, parent_jobs, queue
from manager_service.store.unit_of_work import UnitOfWork

# A worker that beats says within one interval that it lacks a lease; the second one is for a beat that was lost.
_INTERVALS_TO_ACCEPT = 2
_RELEASED_AT_ONCE = 5_000

_l, _q, _p = leases.c, queue.c, parent_jobs.c
EXPIRED = Statement(
    select(leases)
    .with_hint(leases, "INDEXED BY ix_leases_expire_time")
    .where(_l.expire_time < bindparam("now"))
    .order_by(_l.expire_time)
    .limit(bindparam("limit"))
)
UNACCEPTED = Statement(
    select(leases)
    .with_hint(leases, "INDEXED BY ix_leases_accept_time")
    .where(is_unaccepted, _l.accept_time < bindparam("due"), _l.expire_time >= bindparam("now"))
    .order_by(_l.accept_time)
    .limit(bindparam("limit"))
)
DUE = Statement(
    select(_q.child_id, _q.target)
    .with_hint(queue, "INDEXED BY ix_queue_delayed")
    .where(is_delayed, _q.available_time <= bindparam("now"))
    .order_by(_q.available_time)
    .limit(_RELEASED_AT_ONCE)
    .with_for_update(skip_locked=True)
)
_RELEASE = Statement(update(queue).where(Among(_q.child_id, "ids")).values(hold=READY))
_NEXT_DELAYED = Statement(
    select(func.min(_q.available_time).label("due"))
    .select_from(queue)
    .with_hint(queue, "INDEXED BY ix_queue_delayed")
    .where(is_delayed)
)
_NEXT_EXPIRED = Statement(
    select(func.min(_l.expire_time).label("due")).with_hint(leases, "INDEXED BY ix_leases_expire_time")
)
_NEXT_UNACCEPTED = Statement(
    select(func.min(_l.accept_time).label("due"))
    .select_from(leases)
    .with_hint(leases, "INDEXED BY ix_leases_accept_time")
    .where(is_unaccepted)
)
_NEXT_DEADLINE = Statement(
    select(func.min(_p.deadline).label("due"))
    .select_from(parent_jobs)
    .with_hint(parent_jobs, "INDEXED BY ix_parent_jobs_deadline")
    .where(_p.deadline.is_not(None), _p.end_time.is_(None), _p.deadline > bindparam("now"))
)


def expire_leases(tx: UnitOfWork, *, limit: int) -> int:
    """Take back leases that ran out or were never accepted."""
    expired = tx.rows(EXPIRED, now=tx.now, limit=limit)
    due = tx.now - accept_slack(tx.timing.heartbeat_interval)
    unaccepted = tx.rows(UNACCEPTED, due=due, now=tx.now, limit=limit - len(expired))
    lost = [
        (row, Loss.UNACCEPTED if row.state == ChildJobState.LEASED else Loss.EXPIRED)
        for row in hold_leases(tx, (*expired, *unaccepted), wait=False)
        if row.expire_time < tx.now or (row.state == ChildJobState.LEASED and row.accept_time < due)
    ]
    lose_leases(tx, lost)
    return len(lost)


def accept_slack(heartbeat_interval: Span) -> Span:
    """Return how long after the accept time the expirer waits for the worker's own word."""
    return _INTERVALS_TO_ACCEPT * heartbeat_interval


def release_due(tx: UnitOfWork) -> int:
    """Make delayed heads claimable whose time has come."""
    due = tx.rows(DUE, now=tx.now)
    if due:
        tx.run(_RELEASE, ids=[row.child_id for row in due])
    for row in due:
        tx.ready(row.child_id, row.target)
    return len(due)


def next_available(connection: Connection, *, now: Instant, heartbeat_interval: Span) -> Span | None:
    """Return how long until the next delay, lease or deadline falls due."""
    [delayed], [expired] = connection.rows(_NEXT_DELAYED), connection.rows(_NEXT_EXPIRED)
    [unaccepted], [deadline] = connection.rows(_NEXT_UNACCEPTED), connection.rows(_NEXT_DEADLINE, now=now)
    slack = accept_slack(heartbeat_interval)
    accept_due = None if unaccepted.due is None else unaccepted.due + slack
    due = [time for time in (delayed.due, expired.due, accept_due, deadline.due) if time is not None]
    # What runs out at an instant is taken back after it.
    return max(0, min(due) - now + 1) if due else None
