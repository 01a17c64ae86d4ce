"""Find the heads that a session may lease, in dispatch order, without walking past the many that it may not."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from sqlalchemy import Select, and_, bindparam, func, literal_column, select, union_all

from manager_service.store.eligible import IS_OPEN, NOT_PAUSED, ROOM
from manager_service.store.locks import Locks
from manager_service.store.open_parents import first_heads
from manager_service.store.rows import locks_by_operation
from manager_service.store.statements import Among, Statement
from manager_service.store.tables import (
    is_cancelling,
    is_ready,
    leases,
    parent_jobs,
    queue,
    session_targets,
    targets,
)
from manager_service.store.unit_of_work import UnitOfWork

# How many ready heads are looked at in order before each served target is asked for its first ones.
_WINDOW = 64
# How many heads of one target and operation are looked at: they differ in their parent jobs only.
_PER_OPERATION = 8
# How many served targets are looked at together.
_AT_ONCE = 64

_q, _st, _t, _p = queue.c, session_targets.c, targets.c, parent_jobs.c


def _heads(window: Any) -> Select[Any]:
    """Return every head of a window over the queue; those the session may not lease have no room.

    That so few columns are read of targets and of what sessions offer on them, whose rows are fat, is what makes
    it fast: two indexes have all of them.
    """
    w = window.c
    served = (_st.session_id == bindparam("session_id")) & (_st.target == w.target)
    return (
        select(w.child_id, w.parent_id, w.target, w.operation, w.rank, w.turn, ROOM)
        .with_hint(session_targets, "INDEXED BY ix_session_targets_session_id")
        .with_hint(targets, "INDEXED BY ix_targets_room")
        .select_from(
            window.outerjoin(parent_jobs, and_(_p.id == w.parent_id, *IS_OPEN))
            .outerjoin(session_targets, served & _p.id.is_not(None))
            .outerjoin(targets, (_t.name == _st.target) & NOT_PAUSED)
        )
        .order_by(w.rank, w.turn, w.child_id)
    )


_first_heads = (
    select(_q.child_id, _q.parent_id, _q.target, _q.operation, _q.rank, _q.turn)
    .with_hint(queue, "INDEXED BY ix_queue_ready")
    .where(is_ready)
    .order_by(_q.rank, _q.turn, _q.child_id)
    .limit(bindparam("window"))
    .subquery("heads")
)
FIRST_HEADS = Statement(_heads(_first_heads))

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
_served = session_targets.join(targets, _t.name == _st.target).join(queue, _q.child_id == _first_of_target)


def _of_served(*columns: Any) -> Select[Any]:
    """Return something of each served target that has room and a ready head, the most urgent first."""
    return (
        select(*columns)
        .with_hint(session_targets, "INDEXED BY ix_session_targets_session_id")
        .with_hint(targets, "INDEXED BY ix_targets_room")
        .where(_st.session_id == bindparam("session_id"), NOT_PAUSED, ROOM.element > literal_column("0"))
        .order_by(_q.rank, _q.turn, _q.child_id)
    )


# The best head of each served target that has room.
SERVED_HEADS = Statement(
    _of_served(_q.child_id, _q.parent_id, _q.target, _q.operation, _q.rank, _q.turn, ROOM)
    .select_from(_served.join(parent_jobs, _p.id == _q.parent_id))
    .where(*IS_OPEN)
    .limit(bindparam("most"))
)
# The same targets.
SERVED_TARGETS = Statement(_of_served(_st.target).select_from(_served))
OFFERS = Statement(
    select(_st.target, _st.operations).where(
        _st.session_id == bindparam("session_id"), Among(_st.target, "targets")
    )
)
_heads_of_operation = (
    select(_q.child_id, _q.parent_id, _q.target, _q.operation, _q.rank, _q.turn)
    .with_hint(queue, "INDEXED BY ix_queue_ready_operation")
    .where(
        _q.target == bindparam("target"),
        _q.operation == bindparam("operation"),
        is_ready,
        ~Among(_q.parent_id, "closed"),
    )
    .order_by(_q.rank, _q.turn, _q.child_id)
    .limit(_PER_OPERATION)
    .subquery("heads")
)
OPERATION_HEADS = Statement(_heads(_heads_of_operation))
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

    def on(self, target: str) -> bool:
        """Whether the target may take another lease, as far as this claim knows."""

    def free(self, locks: Locks) -> bool:
        """Whether none of the keys is held in a way that conflicts."""

    def learn(self, keys: Iterable[str]) -> None:
        """Find out at once which of these keys are held."""


class Offers:
    """The keys that the operations take which a session offers; read for the few targets that a claim comes to."""

    def __init__(self, tx: UnitOfWork, session_id: str) -> None:
        self._tx = tx
        self._session_id = session_id
        self._known: dict[str, Mapping[str, Locks]] = {}

    def on(self, target: str) -> Mapping[str, Locks]:
        """Return the keys of each operation on a served target."""
        if target not in self._known:
            self.read([target])
        return self._known[target]

    def read(self, names: Iterable[str]) -> None:
        """Read what is offered on served targets, all at once."""
        if missing := sorted(set(names) - self._known.keys()):
            rows = self._tx.rows(OFFERS, session_id=self._session_id, targets=missing)
            self._known.update((row.target, locks_by_operation(row.operations)) for row in rows)

    def locks_of(self, head: Any) -> Locks | None:
        """Return the keys that a head's operation takes; ``None`` if it is not offered."""
        return self.on(head.target).get(head.operation)


def candidates(tx: UnitOfWork, session_id: str, room: Room, offers: Offers, *, wanted: int) -> Iterator[Any]:
    """Return heads that the session may lease but for locks and the parent jobs' limits, the best first.

    The walk is lazy: who has enough stops reading. A head may come twice. Heads of one target and operation share
    their keys, so where one of them may not go, the walk seeks the next operation instead of the next head.
    Closed parent jobs may have tens of thousands of heads in front: where there are some, the first heads of the
    others come next, as far as none between them was left out.
    """
    window = min(_WINDOW, 2 * wanted + 2)
    first = tx.rows(FIRST_HEADS, session_id=session_id, window=window, now=tx.now)
    yield from _open(tx, first, offers, wanted)
    if len(first) < window:
        return
    closed = [row.id for row in tx.rows(CLOSED_PARENTS, now=tx.now)]
    if closed:
        heads, more = first_heads(tx, session_id, closed, window=window)
        yield from _open(tx, heads, offers, wanted)
        if not more:
            return
    served = {"session_id": session_id, "closed": closed, "now": tx.now}
    yield from _open(tx, tx.rows(SERVED_HEADS, most=2 * wanted + 2, **served), offers, wanted)
    for target, operation in _free_operations(tx.rows(SERVED_TARGETS, **served), room, offers):
        heads = tx.rows(OPERATION_HEADS, target=target, operation=operation, **served)
        yield from _open(tx, heads, offers, wanted)


def _open(tx: UnitOfWork, heads: list[Any], offers: Offers, wanted: int) -> list[Any]:
    """Leave out heads that the session may not lease, and read at once what the first ones need."""
    found = [head for head in heads if head.room is not None]
    offers.read(head.target for head in found[:wanted])
    tx.parents(head.parent_id for head in found[:wanted])
    return found


def _free_operations(served: list[Any], room: Room, offers: Offers) -> Iterator[tuple[str, str]]:
    """Return the targets and operations whose keys are free; offers and keys are read for many at once."""
    for begin in range(0, len(served), _AT_ONCE):
        names = [row.target for row in served[begin : begin + _AT_ONCE]]
        offers.read(names)
        room.learn(key for name in names for locks in offers.on(name).values() for key in locks)
        for name in names:
            for operation, locks in offers.on(name).items():
                if room.on(name) and room.free(locks):
                    yield name, operation
