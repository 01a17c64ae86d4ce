"""Find the heads that a session may lease, in dispatch order, without walking past the many that it may not."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from sqlalchemy import Select, bindparam, func, literal_column, select, union_all

from manager_service.domain.fleet import Lock
from manager_service.store.open_parents import IS_OPEN, LIVE_ON_TARGET, first_heads
from manager_service.store.rows import operations_of
from manager_service.store.statements import Among, Statement
from manager_service.store.tables import (
    is_cancelling,
    is_ready,
    leases,
    live_locks,
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

_q, _st, _t, _p = queue.c, session_targets.c, targets.c, parent_jobs.c


def _heads(window: Any) -> Select[Any]:
    """Return the heads of a window over the queue that the session serves, on targets that have room."""
    w = window.c
    return (
        select(
            w.child_id,
            w.parent_id,
            w.target,
            w.operation,
            w.rank,
            w.turn,
            _st.operations,
            (_t.max_parallel - LIVE_ON_TARGET).label("room"),
        )
        .select_from(
            window.join(session_targets, (_st.session_id == bindparam("session_id")) & (_st.target == w.target))
            .join(targets, _t.name == w.target)
            .join(parent_jobs, _p.id == w.parent_id)
        )
        .where(_t.paused == literal_column("0"), *IS_OPEN)
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
READY_HEADS = Statement(
    select(func.count().label("seen")).select_from(
        select(literal_column("1"))
        .select_from(queue)
        .with_hint(queue, "INDEXED BY ix_queue_ready")
        .where(is_ready)
        .limit(bindparam("window"))
        .subquery()
    )
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
_served = session_targets.join(targets, _t.name == _st.target).join(queue, _q.child_id == _first_of_target)
_has_room = (
    _st.session_id == bindparam("session_id"),
    _t.paused == literal_column("0"),
    _t.max_parallel > LIVE_ON_TARGET,
)
# The best head of each served target that has room, the most urgent first.
SERVED_HEADS = Statement(
    select(
        _q.child_id,
        _q.parent_id,
        _q.target,
        _q.operation,
        _q.rank,
        _q.turn,
        _st.operations,
        (_t.max_parallel - LIVE_ON_TARGET).label("room"),
    )
    .select_from(_served.join(parent_jobs, _p.id == _q.parent_id))
    .where(*_has_room, *IS_OPEN)
    .order_by(_q.rank, _q.turn, _q.child_id)
    .limit(bindparam("most"))
)
# The same targets and what the session offers on them.
SERVED_TARGETS = Statement(
    select(_st.target, _st.operations)
    .select_from(_served)
    .where(*_has_room)
    .order_by(_q.rank, _q.turn, _q.child_id)
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
        .select_from(leases.join(parent_jobs, _p.id == leases.c.parent_id))
        .where(_p.max_parallel > literal_column("0"))
        .group_by(_p.id)
        .having(func.count() >= _p.max_parallel),
    )
)
LIVE_LOCKS = Statement(
    select(live_locks.c.key, func.max(live_locks.c.exclusive).label("exclusive"))
    .where(Among(live_locks.c.key, "keys"))
    .group_by(live_locks.c.key)
)


class Room(Protocol):
    """What a claim knows of the room that it has left."""

    def on(self, target: str) -> bool:
        """Whether the target may take another lease, as far as this claim knows."""

    def free(self, locks: Mapping[str, bool]) -> bool:
        """Whether none of the keys is held in a way that conflicts."""


def candidates(tx: UnitOfWork, session_id: str, room: Room, *, wanted: int) -> Iterator[Any]:
    """Return heads that the session may lease but for locks and the parent jobs' limits, the best first.

    The walk is lazy: who has enough stops reading. A head may come twice. Heads of one target and operation share
    their keys, so where one of them may not go, the walk seeks the next operation instead of the next head.
    Closed parent jobs may have tens of thousands of heads in front: where there are some, the first heads of the
    others come next, as far as none between them was left out.
    """
    window = min(_WINDOW, 2 * wanted + 2)
    yield from tx.rows(FIRST_HEADS, session_id=session_id, window=window, now=tx.now)
    seen = tx.row(READY_HEADS, window=window + 1)
    if seen is None or seen.seen <= window:
        return
    closed = [row.id for row in tx.rows(CLOSED_PARENTS)]
    if closed:
        heads, more = first_heads(tx, session_id, closed, window=window)
        yield from heads
        if not more:
            return
    served = {"session_id": session_id, "closed": closed, "now": tx.now}
    yield from tx.rows(SERVED_HEADS, most=2 * wanted + 2, **served)
    for row in tx.rows(SERVED_TARGETS, **served):
        for name, offered in operations_of(row.operations).items():
            if room.on(row.target) and room.free(_merged(offered.locks)):
                yield from tx.rows(OPERATION_HEADS, target=row.target, operation=name, **served)


class LockTable:
    """Which keys are held, by live leases and by what was picked in this claim."""

    def __init__(self, tx: UnitOfWork) -> None:
        self._tx = tx
        self._held: dict[str, bool | None] = {}

    def free(self, locks: Mapping[str, bool]) -> bool:
        """Tell whether none of the keys is held in a way that conflicts."""
        unknown = [key for key in locks if key not in self._held]
        if unknown:
            self._held.update(dict.fromkeys(unknown))
            for row in self._tx.rows(LIVE_LOCKS, keys=unknown):
                self._held[row.key] = bool(row.exclusive)
        return not any(self._conflicts(key, exclusive=exclusive) for key, exclusive in locks.items())

    def take(self, locks: Mapping[str, bool]) -> bool:
        """Take keys, each exclusive or shared, or none of them if one conflicts."""
        if not self.free(locks):
            return False
        self._held.update(locks)
        return True

    def _conflicts(self, key: str, *, exclusive: bool) -> bool:
        held = self._held[key]
        return held is not None and (held or exclusive)


def locks_of(head: Any) -> Mapping[str, bool] | None:
    """Return the keys that a head's operation takes, each exclusive or not; ``None`` if it is not offered."""
    offered = operations_of(head.operations).get(head.operation)
    return None if offered is None else _merged(offered.locks)


def _merged(locks: tuple[Lock, ...]) -> dict[str, bool]:
    merged: dict[str, bool] = {}
    for lock in locks:
        merged[lock.key] = lock.exclusive or merged.get(lock.key, False)
    return merged
