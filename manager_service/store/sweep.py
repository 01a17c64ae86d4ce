"""End pending children by the batch: of cancelling parent jobs, and past a deadline."""

from sqlalchemy import bindparam, select, update

from manager_service.domain.attempts import Stop, deadline_failure
from manager_service.domain.events import BulkChangeKind
from manager_service.domain.states import ChildJobState, ParentJobState
from manager_service.store.lanes import LEAVE
from manager_service.store.parents import PARENTS, ParentInWork
from manager_service.store.rows import failure_text
from manager_service.store.statements import Among, Connection, Statement
from manager_service.store.tables import child_jobs, is_cancelling, is_open, leases, parent_counts, parent_jobs
from manager_service.store.unit_of_work import UnitOfWork

_POLICY_REASON = "the failure policy ended the job"

_c, _l, _p = child_jobs.c, leases.c, parent_jobs.c
_PENDING = Statement(
    select(_c.id)
    .with_hint(child_jobs, "INDEXED BY ix_child_jobs_open")
    .where(
        _c.parent_id == bindparam("parent_id"),
        is_open,
        # A live child's row still says pending; its lease says better.
        _c.id.not_in(select(_l.child_id).where(_l.parent_id == bindparam("parent_id"))),
    )
    .limit(bindparam("limit"))
)
_END = Statement(
    update(child_jobs)
    .where(Among(_c.id, "ids"))
    .values(
        state=bindparam("state"),
        reason=bindparam("reason"),
        failure=bindparam("failure"),
        version=_c.version + 1,
        available_time=None,
        end_time=bindparam("now"),
    )
)
_SESSIONS_TO_STOP = Statement(
    select(_l.session_id).distinct().where(_l.parent_id == bindparam("parent_id"), _l.stop.is_(None))
)
_STOP = Statement(
    update(leases)
    .where(_l.parent_id == bindparam("of"), _l.stop.is_(None))
    .values(stop=bindparam("stop"), stop_reason=bindparam("stop_reason"))
)
_CANCELLING = Statement(
    select(_p.id)
    .select_from(PARENTS)
    .with_hint(parent_jobs, "INDEXED BY ix_parent_jobs_cancelling")
    .where(is_cancelling, parent_counts.c.pending > 0)
)
_OVERDUE = Statement(
    select(_p.id)
    .with_hint(parent_jobs, "INDEXED BY ix_parent_jobs_deadline")
    .where(_p.deadline.is_not(None), _p.end_time.is_(None), _p.deadline <= bindparam("now"))
    .order_by(_p.deadline)
)


def sweep(tx: UnitOfWork, parent_job_id: str, *, limit: int) -> bool:
    """End pending children of a cancelling parent job; tell whether more are left."""
    tx.own(parent_job_id)
    parent = tx.parents([parent_job_id]).get(parent_job_id)
    if parent is None or tx.parent(parent_job_id).state is not ParentJobState.CANCELLING:
        return False
    reason = (parent.cancel_reason or "cancelled") if parent.cancel_requested else _POLICY_REASON
    _end(tx, parent, ChildJobState.CANCELLED, limit=limit, reason=reason)
    return parent.settled_counts().pending > 0


def stop_live(tx: UnitOfWork, parent: ParentInWork, stop: Stop, reason: str = "") -> int:
    """Tell the live children of a parent job to stop; what was told before stands."""
    for row in tx.rows(_SESSIONS_TO_STOP, parent_id=parent.id):
        tx.tell_session(row.session_id)
    return tx.run(_STOP, of=parent.id, stop=stop.value, stop_reason=reason)


def ending_parent_jobs(connection: Connection) -> tuple[str, ...]:
    """Return the parent jobs that are cancelling and have pending children."""
    return tuple(row.id for row in connection.rows(_CANCELLING))


def fail_overdue(tx: UnitOfWork, *, limit: int) -> int:
    """Fail pending children past the deadline and tell live ones to stop."""
    changed = 0
    for row in tx.rows(_OVERDUE, now=tx.now):
        if changed >= limit:
            break
        if not tx.try_own(row.id):
            continue
        parent = tx.parent(row.id)
        changed += stop_live(tx, parent, Stop.DEADLINE)
        if not parent.cancel_requested and changed < limit:
            failure = deadline_failure()
            changed += _end(
                tx,
                parent,
                ChildJobState.FAILED,
                limit=limit - changed,
                reason=failure.message,
                failure=failure_text(failure),
            )
    return changed


def _end(
    tx: UnitOfWork,
    parent: ParentInWork,
    state: ChildJobState,
    *,
    limit: int,
    reason: str,
    failure: str | None = None,
) -> int:
    """End up to ``limit`` pending children with one event."""
    ids = [row.id for row in tx.rows(_PENDING, parent_id=parent.id, limit=limit)]
    if not ids:
        return 0
    tx.run(LEAVE, ids=ids)
    tx.run(_END, ids=ids, state=state.value, reason=reason, failure=failure, now=tx.now)
    parent.moved(ChildJobState.PENDING, state, len(ids))
    parent.bulk_changed(BulkChangeKind.ENDED, len(ids))
    tx.settle()
    return len(ids)
