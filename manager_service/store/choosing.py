"""Choose what a session is granted: heads that have room, and that nobody else has a hand on."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import bindparam, func, select

from manager_service.store.candidates import HEADS_NOW, Reader, candidates, free_heads
from manager_service.store.locks import Locks, LockTable
from manager_service.store.offers import Offers
from manager_service.store.statements import Statement
from manager_service.store.tables import READY, leases
from manager_service.store.unit_of_work import UnitOfWork

_LIVE_OF_PARENT = Statement(
    select(func.count().label("live")).select_from(leases).where(leases.c.parent_id == bindparam("parent_id"))
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """A head that may go, and the keys that it takes."""

    head: Any
    locks: dict[str, bool]


class Choice:
    """Which of some heads fit together, and with what is live.

    Args:
        tx: the transaction.
        final: whether what is chosen is granted, and not compared once more with the parent jobs as they are then.
        trusting: whether keys are taken for free.
        taken: what the transaction is going to grant already.
        held_back: targets on which nothing is to begin.
    """

    def __init__(
        self,
        tx: UnitOfWork,
        *,
        final: bool,
        trusting: bool = False,
        taken: Sequence[Pick] = (),
        held_back: Iterable[str] = (),
    ) -> None:
        self._held = LockTable(tx, trusting=trusting)
        self._seen: set[str] = set()
        self.limits = Limits(tx, self._held, knows_parents=final, held_back=held_back)
        for pick in taken:
            self._held.take(pick.locks)
            self.limits.allow(pick.head)
            self.limits.take(pick.head)
            self._seen.add(pick.head.child_id)

    def ask(self, many: Iterable[Locks]) -> Callable[[set[str]], None]:
        """Ask which keys are held; what is returned takes in what is said of some of them."""
        return self._held.ask(key for locks in many for key in locks)

    def picks(self, heads: Iterable[tuple[Any, Locks | None]]) -> Iterator[Pick]:
        """Return the heads that may go, each with the keys that it takes."""
        for head, locks in heads:
            if head.child_id in self._seen or not self.limits.allow(head):
                continue
            if locks is None or not self._held.take(locks):
                continue
            self.limits.take(head)
            self._seen.add(head.child_id)
            yield Pick(head=head, locks=dict(locks))


class Secured:
    """Keeps of a claim's picks those that no other transaction has a hand on, compared with what is live now."""

    def __init__(self, tx: UnitOfWork) -> None:
        self._tx = tx
        self._choice = Choice(tx, final=True)

    def of(self, picks: Sequence[Pick]) -> list[Pick]:
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
        learn({key for pick in held for key in pick.locks})
        return list(
            self._choice.picks((now[pick.head.child_id], pick.locks) for pick in held if pick.head.child_id in now)
        )


def _keys(pick: Pick) -> set[str]:
    """Return what is counted or compared for a pick, and not covered by its target."""
    limit = {f"limit {pick.head.parent_id}"} if pick.head.max_parallel else set()
    return {f"key {key}" for key in pick.locks} | limit


class Limits:
    """How much room targets and parent jobs have left in this claim; counted, never stored."""

    def __init__(self, tx: UnitOfWork, held: LockTable, *, knows_parents: bool, held_back: Iterable[str]) -> None:
        self._tx = tx
        self.free = held.free
        self.foresee = held.foresee
        self.learn = held.learn
        # What is trusted is compared once more, with the parent jobs as they are then.
        self._knows_parents = knows_parents
        self._targets = dict.fromkeys(held_back, 0)
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
        """Take the room of a lease."""
        self._targets[head.target] -= 1
        self._parents[head.parent_id] -= 1

    def _room(self, head: Any) -> int:
        if head.parent_id not in self._parents:
            most = head.max_parallel
            live = self._tx.row(_LIVE_OF_PARENT, parent_id=head.parent_id) if most else None
            self._parents[head.parent_id] = most - live.live if live else 1_000_000
        return self._parents[head.parent_id]


def choose(tx: UnitOfWork, offers: Offers, wanted: int) -> list[Pick]:
    """Return the best heads that the session may lease now.

    Args:
        tx: the transaction of the claim.
        offers: what the session offers.
        wanted: how many at most.
    """
    held_back = offers.held_back
    if tx.exclusion.alone:
        with closing(_picks(tx, offers, wanted, Choice(tx, final=True, held_back=held_back))) as picks:
            return list(islice(picks, wanted))
    secure, picked = Secured(tx).of, list[Pick]()
    trusting = Choice(tx, final=False, trusting=True, held_back=held_back)
    heads = Reader(tx, trusting.limits, offers).prepare(free_heads(tx, offers.session_id, wanted))
    if batch := list(islice(trusting.picks((head, offers.locks_of(head)) for head in heads), wanted)):
        picked += secure(batch)
    # Who got too little looks again, at what others want too: what could not be had may have kept others out, and
    # what others want is told when they are done.
    choice = Choice(tx, final=False, taken=picked, held_back=held_back)
    with closing(_picks(tx, offers, wanted, choice)) as picks:
        while len(picked) < wanted and (batch := list(islice(picks, wanted - len(picked)))):
            picked += secure(batch)
    return picked


def _picks(tx: UnitOfWork, offers: Offers, wanted: int, choice: Choice) -> Generator[Pick]:
    with closing(candidates(tx, choice.limits, offers, wanted=wanted)) as heads:
        yield from choice.picks((head, offers.locks_of(head)) for head in heads)
