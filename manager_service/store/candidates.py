"""Find the heads that a session may lease, in dispatch order, without walking past the many that it may not."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import Select, bindparam, func, literal_column, select, union_all

from manager_service.store.eligible import HEAD, IS_OPEN, NOT_PAUSED, ROOM, SHARED
from manager_service.store.locks import Locks
from manager_service.store.offers import Offers
from manager_service.store.open_parents import first_heads
from manager_service.store.statements import Among, Statement
from manager_service.store.tables import (
    child_jobs,
    is_cancelling,
    leases,
    parent_jobs,
    queue,
    session_targets,
    targets,
)
from manager_service.store.unit_of_work import UnitOfWork

# How many ready heads, of whatever target, are walked past in order before each served target is asked for its
# best one.
_WINDOW = 64
# How many heads of one target and operation are looked at: they differ in their parent jobs, or their objects.
_PER_OPERATION = 16
# How many served targets are looked at together.
_AT_ONCE = 64


_q, _st, _t, _p = queue.c, session_targets.c, targets.c, parent_jobs.c


def _may_go(window: Any) -> Select[Any]:
    """Return the heads of a window over the queue that the session may lease, in the window's order.

    That only narrow indexes are read of the heads that others serve is what makes the walk fast. It is not sorted:
    a window is a walk along an index, and who has enough of it stops.
    """
    w = window.c
    return (
        select(*HEAD)
        .with_hint(session_targets, "INDEXED BY ix_session_targets_session_id")
        .with_hint(targets, "INDEXED BY ix_targets_room")
        .select_from(
            window.join(session_targets, (_st.session_id == bindparam("session_id")) & (_st.target == w.target))
            .join(targets, _t.name == w.target)
            .join(queue, _q.child_id == w.child_id)
            .join(parent_jobs, _p.id == _q.parent_id)
            .join(child_jobs, child_jobs.c.id == w.child_id)
        )
        .where(NOT_PAUSED, ROOM.element > literal_column("0"), *IS_OPEN)
    )


_w = queue.alias("w")
_first_heads = (
    select(_w.c.child_id, _w.c.target)
    .with_hint(_w, "INDEXED BY ix_queue_ready")
    .where(_w.c.hold == literal_column("0"))
    .order_by(_w.c.rank, _w.c.turn, _w.c.child_id)
)
FIRST_HEADS = Statement(_may_go(_first_heads.limit(_WINDOW).subquery("heads")))
BEYOND = Statement(_first_heads.limit(1).offset(_WINDOW))
# The first of them that no other transaction has a hand on, nor on their targets, held from now on; their parent
# jobs are shared before. More are held than will be granted, until the transaction ends.
FREE_HEADS = Statement(
    _may_go(_first_heads.limit(bindparam("window")).subquery("heads"))
    .where(SHARED)
    .limit(bindparam("heads"))
    .with_for_update(of=[queue, targets], key_share=True, skip_locked=True)
)

_best = queue.alias("best")
_first_of_target = (
    select(_best.c.child_id)
    .with_hint(_best, "INDEXED BY ix_queue_ready_target")
    .where(
        _best.c.target == _st.target,
        _best.c.hold == literal_column("0"),
        ~Among(_best.c.parent_id, "closed"),
    )
    .order_by(_best.c.rank, _best.c.turn, _best.c.child_id)
    .limit(1)
    .correlate(session_targets)
    .scalar_subquery()
)
# The best head of each served target. A limit of its own, though there is none, keeps the order of what it is
# joined to: so room and parent jobs are looked up for no more of them than are asked for.
_best_heads = (
    select(_q.child_id, _q.target)
    .with_hint(session_targets, "INDEXED BY ix_session_targets_session_id")
    .select_from(session_targets.join(queue, _q.child_id == _first_of_target))
    .where(_st.session_id == bindparam("session_id"))
    .order_by(_q.rank, _q.turn, _q.child_id)
    .limit(-1)
)
SERVED_HEADS = Statement(_may_go(_best_heads.subquery("heads")))
_heads_of_operation = (
    select(_w.c.child_id, _w.c.target)
    .with_hint(_w, "INDEXED BY ix_queue_ready_operation")
    .where(
        _w.c.target == bindparam("target"),
        _w.c.operation == bindparam("operation"),
        _w.c.hold == literal_column("0"),
        ~Among(_w.c.parent_id, "closed"),
    )
    .order_by(_w.c.rank, _w.c.turn, _w.c.child_id)
    .limit(_PER_OPERATION)
)
OPERATION_HEADS = Statement(_may_go(_heads_of_operation.subquery("heads")))
# What some heads are now, ready or not, of those that may go. Whether they are ready is not asked here: a planner
# that knows a few of them would go through the index of all that are.
HEADS_NOW = Statement(
    select(*HEAD)
    .select_from(
        queue.join(targets, _t.name == _q.target)
        .join(parent_jobs, _p.id == _q.parent_id)
        .join(child_jobs, child_jobs.c.id == _q.child_id)
    )
    .where(Among(_q.child_id, "ids"), NOT_PAUSED, *IS_OPEN)
)
# Parent jobs none of whose heads may go now, however many of them lie in front.
CLOSED_PARENTS = Statement(
    union_all(
        select(_p.id).with_hint(parent_jobs, "INDEXED BY ix_parent_jobs_cancelling").where(is_cancelling),
        select(_p.id)
        .with_hint(parent_jobs, "INDEXED BY ix_parent_jobs_deadline")
        .where(_p.deadline.is_not(None), _p.end_time.is_(None), _p.deadline <= bindparam("now")),
        select(_p.id)
        .select_from(leases.join(parent_jobs, _p.id == leases.c.parent_id))
        .where(_p.max_parallel > literal_column("0"))
        .group_by(_p.id)
        .having(func.count() >= _p.max_parallel),
    )
)


class Room(Protocol):
    """What a claim knows of the room that it has left."""

    def allow(self, head: Any) -> bool:
        """Whether target and parent job of a head may take another lease."""

    def foresee(self, keys: Iterable[str]) -> None:
        """Look these keys up together with the first that has to be."""

    def on(self, target: str) -> bool:
        """Whether the target may take another lease, as far as this claim knows."""

    def free(self, locks: Locks) -> bool:
        """Whether none of the keys is held in a way that conflicts."""

    def learn(self, keys: Iterable[str]) -> None:
        """Find out at once which of these keys are held."""


def free_heads(tx: UnitOfWork, session_id: str, wanted: int) -> Sequence[Any]:
    """Hold the first heads that a session may lease and no other transaction wants."""
    # Twice as many, for the heads of two parent jobs on the same targets lie side by side.
    heads = 2 * wanted
    return tx.rows(FREE_HEADS, session_id=session_id, now=tx.about_now, window=max(_WINDOW, heads), heads=heads)


def candidates(tx: UnitOfWork, room: Room, offers: Offers, *, wanted: int) -> Generator[Any]:
    """Return heads that the session may lease but perhaps for locks and the parent jobs' limits, the best first.

    The walk is lazy: who has enough closes it. A head may come twice. Heads of one target and operation share
    their keys, but for those of its parts, so where one of them may not go, the walk seeks the next operation
    instead of the next head.
    Closed parent jobs may have tens of thousands of heads in front: where there are some, the first heads of the
    others come next, as far as none between them was left out.
    """
    reader = Reader(tx, room, offers)
    with closing(tx.batches(FIRST_HEADS, wanted, session_id=offers.session_id, now=tx.now)) as first:
        for heads in first:
            yield from reader.prepare(heads)
    if tx.row(BEYOND) is None:
        return
    closed = [row.id for row in tx.rows(CLOSED_PARENTS, now=tx.now)]
    if closed:
        heads, more = first_heads(tx, offers.session_id, closed, window=min(_WINDOW, 2 * wanted + 2))
        yield from reader.prepare(heads[:wanted])
        yield from heads[wanted:]
        if not more:
            return
    served = {"session_id": offers.session_id, "closed": closed, "now": tx.now}
    names: list[str] = []
    parted: set[str] = set()
    with closing(tx.batches(SERVED_HEADS, wanted, **served)) as best:
        for heads in best:
            names += [head.target for head in heads]
            parted.update(head.target for head in heads if head.locks is not None)
            yield from reader.prepare(heads)
    for target, operation in _free_operations(names, parted, room, offers):
        yield from tx.rows(OPERATION_HEADS, target=target, operation=operation, **served)


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads all at once what has to be known of some heads, and leaves out those that have no room."""

    tx: UnitOfWork
    room: Room
    offers: Offers

    def prepare(self, heads: Sequence[Any]) -> list[Any]:
        """Return those of some heads that have room, as far as that can be told without waiting for each."""
        if self.tx.exclusion.alone:
            self.tx.parents(head.parent_id for head in heads)
        open_heads = [head for head in heads if self.room.allow(head)]
        self.offers.read(head.target for head in open_heads)
        self.room.foresee(key for head in open_heads for key in self.offers.locks_of(head) or ())
        return open_heads


def _free_operations(served: list[str], parted: set[str], room: Room, offers: Offers) -> Iterator[tuple[str, str]]:
    """Return the targets and operations whose keys are free; offers and keys are read for many at once.

    Heads on the parts of a target have keys of their own: of those that are ``parted`` nothing can be told before.
    """
    for begin in range(0, len(served), _AT_ONCE):
        names = served[begin : begin + _AT_ONCE]
        offers.read(names)
        room.learn(key for name in names for locks in offers.on(name).values() for key in locks)
        for name in names:
            for operation, locks in offers.on(name).items():
                if room.on(name) and (name in parted or room.free(locks)):
                    yield name, operation
