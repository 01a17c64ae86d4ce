"""Grant leases."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import bindparam, func, insert, select, update

from manager_service.domain.errors import SessionSupersededError
from manager_service.domain.fleet import SessionState
from manager_service.domain.leases import Lease, Poll
from manager_service.domain.states import ChildJobState
from manager_service.store.candidates import HEADS_NOW, KeptOffers, Offers, ask_first_heads, candidates
from manager_service.store.lanes import LEAVE
from manager_service.store.locks import Locks, LockTable
from manager_service.store.parents import ParentInWork
from manager_service.store.rows import mapping_of
from manager_service.store.sessions import ask_session, open_session
from manager_service.store.statements import Statement
from manager_service.store.tables import READY, child_jobs, leases, live_locks, sessions
from manager_service.store.unit_of_work import UnitOfWork

_SESSIONS_REMEMBERED = 100_000

_LIVE_OF_PARENT = Statement(
    select(func.count().label("live")).select_from(leases).where(leases.c.parent_id == bindparam("parent_id"))
)
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
        self.offers = KeptOffers()

    def see(self, session_id: str, sequence: int) -> bool:
        """Note a poll; tell whether it is the newest, or its repeat."""
        before = self._seen.pop(session_id, 0)
        # Whoever polled last stands last.
        self._seen[session_id] = max(before, sequence)
        if len(self._seen) > _SESSIONS_REMEMBERED:
            del self._seen[next(iter(self._seen))]
        return sequence >= before

    def forget(self, session_id: str) -> None:
        """Forget a session that ended."""
        self._seen.pop(session_id, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pick:
    head: Any
    locks: dict[str, bool]


def acquire(tx: UnitOfWork, polls: Polls, session_id: str, poll: Poll) -> tuple[Lease, ...]:
    """Grant leases, or answer again those of an equal poll."""
    tx.exclusion.hold_session(session_id)
    asked = ask_session(tx, session_id)
    with closing(ask_first_heads(tx, session_id, poll.max_leases)) as first:
        session = open_session(tx, session_id, asked)
        if session.state == SessionState.SUPERSEDED:
            raise SessionSupersededError(session.worker_name)
        return grant(tx, polls, session, poll, first)


def grant(
    tx: UnitOfWork, polls: Polls, session: Any, poll: Poll, first: Generator[list[Any]], *, ended: int = 0
) -> tuple[Lease, ...]:
    """Grant leases to an open session; one that drains or was superseded is granted nothing new.

    Args:
        tx: the transaction.
        polls: what is known of the polls before, and of what sessions offer.
        session: the row of the session.
        poll: what is asked for.
        first: the first heads that the session may lease, which were asked for.
        ended: how many of the session's leases ended since its row was read.
    """
    if poll.sequence < session.poll_sequence or not polls.see(session.id, poll.sequence):
        return ()
    if poll.sequence == session.poll_sequence:
        return _granted_before(tx, session.id, poll.sequence)
    if session.state != SessionState.READY:
        return ()
    wanted = min(poll.max_leases, session.slots - session.live + ended)
    picks = _pick(tx, Offers(tx, session, polls.offers), session.id, first, wanted) if wanted > 0 else []
    return _grant(tx, session, poll, picks) if picks else ()


def _granted_before(tx: UnitOfWork, session_id: str, sequence: int) -> tuple[Lease, ...]:
    rows = tx.rows(_GRANTED_BEFORE, session_id=session_id, sequence=sequence)
    parents = tx.parents(row.parent_id for row in rows)
    return tuple(_lease(row, parents[row.parent_id], lease_id=row.lease_id, attempt=row.attempt) for row in rows)


def _pick(
    tx: UnitOfWork, offers: Offers, session_id: str, first: Generator[list[Any]], wanted: int
) -> list[_Pick]:
    choice = _Choice(tx, trusting=not tx.exclusion.alone)
    picked: list[_Pick] = []
    secure = _Secured(tx).of if not tx.exclusion.alone else list
    with closing(candidates(tx, session_id, choice.limits, offers, first, wanted=wanted)) as heads:
        picks = choice.picks((head, offers.locks_of(head)) for head in heads)
        while len(picked) < wanted and (batch := list(islice(picks, wanted - len(picked)))):
            secured = secure(batch)
            choice.give_back(batch, secured)
            picked += secured
    return picked


class _Choice:
    """Which of some heads fit together, and with what is live.

    Args:
        tx: the transaction.
        trusting: whether what is chosen is compared once more, so that keys are taken for free at first.
    """

    def __init__(self, tx: UnitOfWork, *, trusting: bool = False) -> None:
        self._held = LockTable(tx, trusting=trusting)
        self._seen: set[str] = set()
        self.limits = _Limits(tx, self._held)

    def ask(self, many: Iterable[Locks]) -> Callable[[], None]:
        """Ask which keys are held; what is returned takes it in."""
        return self._held.ask(key for locks in many for key in locks)

    def give_back(self, picks: Sequence[_Pick], secured: Sequence[_Pick]) -> None:
        """Have the room again that picks took which could not be secured, and look keys up from now on."""
        kept = {pick.head.child_id for pick in secured}
        for pick in picks:
            if pick.head.child_id not in kept:
                self.limits.give_back(pick.head)
                self._held.forget(pick.locks)

    def picks(self, heads: Iterable[tuple[Any, Locks | None]]) -> Iterator[_Pick]:
        """Return the heads that may go, each with the keys that it takes."""
        for head, locks in heads:
            if head.child_id in self._seen or not self.limits.allow(head):
                continue
            if locks is None or not self._held.take(locks):
                continue
            self.limits.take(head)
            self._seen.add(head.child_id)
            yield _Pick(head=head, locks=dict(locks))


class _Secured:
    """Keeps of a claim's picks those that no other transaction has a hand on, compared with what is live now."""

    def __init__(self, tx: UnitOfWork) -> None:
        self._tx = tx
        self._choice = _Choice(tx)

    def of(self, picks: Sequence[_Pick]) -> list[_Pick]:
        """Hold picks, and return those that still may go."""
        tx, ids = self._tx, [pick.head.child_id for pick in picks]
        keys = {pick.head.child_id: _keys(pick) for pick in picks}
        # All of it is asked at once: of what could not be held, the rest is of no use.
        share = tx.ask_share(pick.head.parent_id for pick in picks)
        hold = tx.exclusion.heads(ids, {key for of_pick in keys.values() for key in of_pick})
        look, learn = tx.ask(HEADS_NOW, ids=ids, now=tx.now), self._choice.ask(pick.locks for pick in picks)
        tx.ask_turns()
        shared, (heads, free) = share(), hold()
        held = [
            pick
            for pick in picks
            if pick.head.parent_id in shared and pick.head.child_id in heads and keys[pick.head.child_id] <= free
        ]
        tx.contended({pick.head.target for pick in picks} - {pick.head.target for pick in held})
        now = {row.child_id: row for row in look() if row.hold == READY}
        learn()
        return list(
            self._choice.picks((now[pick.head.child_id], pick.locks) for pick in held if pick.head.child_id in now)
        )


def _keys(pick: _Pick) -> set[str]:
    """Return what is counted or compared for a pick, and not covered by its target."""
    limit = {f"limit {pick.head.parent_id}"} if pick.head.max_parallel else set()
    return {f"key {key}" for key in pick.locks} | limit


class _Limits:
    """How much room targets and parent jobs have left in this claim; counted, never stored."""

    def __init__(self, tx: UnitOfWork, held: LockTable) -> None:
        self._tx = tx
        self.free = held.free
        self.foresee = held.foresee
        self.learn = held.learn
        # What is trusted is compared once more, with the parent jobs as they are then.
        self._knows_parents = not held.trusting
        self._targets: dict[str, int] = {}
        self._parents: dict[str, int] = {}

    def on(self, target: str) -> bool:
        """Whether the target may take another lease, as far as this claim has looked."""
        return self._targets.get(target, 1) > 0

    def allow(self, head: Any) -> bool:
        """Whether target and parent job of a head may take another lease."""
        if self._targets.setdefault(head.target, head.room) <= 0:
            return False
        if self._knows_parents:
            parent = self._tx.parent(head.parent_id)
            if parent.stopping or parent.paused:
                return False
        return self._room(head) > 0

    def take(self, head: Any) -> None:
        self._targets[head.target] -= 1
        self._parents[head.parent_id] -= 1

    def give_back(self, head: Any) -> None:
        self._targets[head.target] += 1
        self._parents[head.parent_id] += 1

    def _room(self, head: Any) -> int:
        if head.parent_id not in self._parents:
            most = head.max_parallel
            live = self._tx.row(_LIVE_OF_PARENT, parent_id=head.parent_id) if most else None
            self._parents[head.parent_id] = most - live.live if live else 1_000_000
        return self._parents[head.parent_id]


def _grant(tx: UnitOfWork, session: Any, poll: Poll, picks: list[_Pick]) -> tuple[Lease, ...]:
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
    )
