"""Grant leases."""

from threading import Lock
from typing import Any

from sqlalchemy import bindparam, insert, select, update

from manager_service.domain.errors import SessionSupersededError
from manager_service.domain.fleet import SessionState
from manager_service.domain.inspection import INSPECT, wanted_of
from manager_service.domain.leases import Lease, Poll
from manager_service.domain.states import ChildJobState
from manager_service.store.choosing import Pick, choose
from manager_service.store.lanes import LEAVE
from manager_service.store.offers import KeptOffers, Offers
from manager_service.store.parents import ParentInWork
from manager_service.store.rows import mapping_of
from manager_service.store.sessions import open_session
from manager_service.store.statements import Statement
from manager_service.store.tables import child_jobs, leases, live_locks, sessions
from manager_service.store.unit_of_work import UnitOfWork

_SESSIONS_REMEMBERED = 100_000

_GRANTED_BEFORE = Statement(
    select(
        leases.c.lease_id,
        leases.c.attempt,
        leases.c.child_id,
        leases.c.parent_id,
        leases.c.operation,
        leases.c.target,
        child_jobs.c.options,
        child_jobs.c.object,
    )
    .select_from(leases.join(child_jobs, child_jobs.c.id == leases.c.child_id))
    .where(leases.c.session_id == bindparam("session_id"), leases.c.poll_sequence == bindparam("sequence"))
    .order_by(leases.c.child_id)
)
_INSERT_LEASE = Statement(insert(leases))
_INSERT_LOCK = Statement(insert(live_locks))
_POLLED = Statement(
    update(sessions).where(sessions.c.id == bindparam("of")).values(poll_sequence=bindparam("sequence"))
)


class Polls:
    """The highest poll sequence that this manager saw of each session, and what sessions offer.

    A poll that is granted nothing is written nowhere; that a delayed lower one must get nothing is kept here. Of
    sessions that end at another manager nothing is heard, so those that polled longest ago are forgotten at last:
    what a delayed poll is granted then is taken back at no cost, because nobody accepts it.
    """

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}
        # Each connection of a manager claims in a thread of its own.
        self._lock = Lock()
        self.offers = KeptOffers()

    def see(self, session_id: str, sequence: int) -> bool:
        """Note a poll; tell whether it is the newest, or its repeat."""
        with self._lock:
            before = self._seen.pop(session_id, 0)
            # Whoever polled last stands last.
            self._seen[session_id] = max(before, sequence)
            if len(self._seen) > _SESSIONS_REMEMBERED:
                del self._seen[next(iter(self._seen))]
        return sequence >= before

    def forget(self, session_id: str) -> None:
        """Forget a session that ended."""
        self._seen.pop(session_id, None)


def acquire(tx: UnitOfWork, polls: Polls, session_id: str, poll: Poll) -> tuple[Lease, ...]:
    """Grant leases, or answer again those of an equal poll."""
    tx.exclusion.hold_session(session_id)
    session = open_session(tx, session_id)
    if session.state == SessionState.SUPERSEDED:
        raise SessionSupersededError(session.worker_name)
    return grant(tx, polls, session, poll)


def grant(tx: UnitOfWork, polls: Polls, session: Any, poll: Poll, *, ended: int = 0) -> tuple[Lease, ...]:
    """Grant leases to an open session; one that drains or was superseded is granted nothing new.

    Args:
        tx: the transaction.
        polls: what is known of the polls before, and of what sessions offer.
        session: the row of the session.
        poll: what is asked for.
        ended: how many of the session's leases ended since its row was read.
    """
    if poll.sequence < session.poll_sequence or not polls.see(session.id, poll.sequence):
        return ()
    if poll.sequence == session.poll_sequence:
        return _granted_before(tx, session.id, poll.sequence)
    if session.state != SessionState.READY:
        return ()
    wanted = min(poll.max_leases, session.slots - session.live + ended)
    picks = choose(tx, Offers(tx, session, polls.offers), wanted) if wanted > 0 else []
    return _grant(tx, session, poll, picks) if picks else ()


def _granted_before(tx: UnitOfWork, session_id: str, sequence: int) -> tuple[Lease, ...]:
    rows = tx.rows(_GRANTED_BEFORE, session_id=session_id, sequence=sequence)
    parents = tx.parents(row.parent_id for row in rows)
    return tuple(_lease(row, parents[row.parent_id], lease_id=row.lease_id, attempt=row.attempt) for row in rows)


def _grant(tx: UnitOfWork, session: Any, poll: Poll, picks: list[Pick]) -> tuple[Lease, ...]:
    rows = [_lease_row(tx, session, poll, pick.head) for pick in picks]
    tx.post(LEAVE, ids=[pick.head.child_id for pick in picks])
    tx.post_many(_INSERT_LEASE, rows)
    tx.post_many(
        _INSERT_LOCK,
        [
            {"key": key, "child_id": pick.head.child_id, "exclusive": exclusive}
            for pick in picks
            for key, exclusive in pick.locks.items()
        ],
    )
    tx.post(_POLLED, of=session.id, sequence=poll.sequence)
    return tuple(_told(tx, pick.head, row) for pick, row in zip(picks, rows, strict=True))


def _lease_row(tx: UnitOfWork, session: Any, poll: Poll, head: Any) -> dict[str, Any]:
    return {
        "child_id": head.child_id,
        "lease_id": tx.ids.new_id(),
        "parent_id": head.parent_id,
        "target": head.target,
        "operation": head.operation,
        "session_id": session.id,
        "worker_name": session.worker_name,
        "attempt": head.attempts + 1,
        "poll_sequence": poll.sequence,
        "failures": head.failures,
        "losses": head.losses,
        "grant_time": tx.now,
        "state": ChildJobState.LEASED.value,
        "version": head.version + 1,
        "accept_time": tx.now + tx.timing.accept_within,
        "start_time": None,
        "expire_time": tx.now + tx.timing.lease_duration,
        "missed": 0,
        "graced": False,
        "progress": None,
        "stop": None,
        "stop_reason": "",
    }


def _told(tx: UnitOfWork, head: Any, row: dict[str, Any]) -> Lease:
    """Count and tell a grant, and return the lease as its worker gets it."""
    parent = tx.parent(head.parent_id)
    parent.started(tx.now)
    parent.child_changed(
        head.child_id,
        ChildJobState.PENDING,
        ChildJobState.LEASED,
        attempts=row["attempt"],
        version=row["version"],
    )
    tx.granted(head.child_id, head.rank, head.turn)
    return _lease(head, parent, lease_id=row["lease_id"], attempt=row["attempt"])


def _lease(row: Any, parent: ParentInWork, *, lease_id: str, attempt: int) -> Lease:
    return Lease(
        lease_id=lease_id,
        attempt=attempt,
        child_job_id=row.child_id,
        parent_job_id=parent.id,
        operation=row.operation,
        options=mapping_of(row.options),
        target=row.target,
        object=row.object,
        timeout=parent.spec.timeout,
        inspection=wanted_of(parent.spec) if row.operation == INSPECT else None,
    )
