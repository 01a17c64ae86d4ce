"""Lanes and the queue of their heads."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, delete, insert, literal_column, select

from manager_service.domain.model import Instant
from manager_service.store.parents import ParentInWork
from manager_service.store.statements import Among, Rows, Statement
from manager_service.store.tables import DELAYED, HELD, READY, child_jobs, queue
from manager_service.store.unit_of_work import UnitOfWork

_ended, _next, _ahead = child_jobs.alias("ended"), child_jobs.alias("next"), child_jobs.alias("ahead")
# One seek in the index of open children finds what follows in a lane, also where a retry left ended ones between.
SUCCESSORS = Statement(
    select(
        _ended.c.id.label("after"),
        _next.c.id,
        _next.c.parent_id,
        _next.c.target,
        _next.c.operation,
        _next.c.available_time,
    )
    .select_from(
        _ended.join(
            _next,
            _next.c.id
            == select(_ahead.c.id)
            .with_hint(_ahead, "INDEXED BY ix_child_jobs_open")
            .where(
                _ahead.c.parent_id == _ended.c.parent_id,
                _ahead.c.lane == _ended.c.lane,
                _ahead.c.position > _ended.c.position,
                _ahead.c.state == literal_column("'pending'"),
            )
            .order_by(_ahead.c.position)
            .limit(1)
            .correlate(_ended)
            .scalar_subquery(),
        )
    )
    .where(Among(_ended.c.id, "ids"))
)
_ENTER = Statement(insert(queue))
LEAVE = Statement(delete(queue).where(Among(queue.c.child_id, "ids")))
LEAVE_ONE = Statement(delete(queue).where(queue.c.child_id == bindparam("of")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A pending child that stands first in its lane."""

    child_id: str
    parent: ParentInWork
    target: str
    operation: str
    available_time: Instant


def enter_queue(tx: UnitOfWork, heads: Iterable[Head]) -> None:
    """Put heads into the queue; those of a stopping parent job stay out, its sweep ends them.

    A head's turn is one more than the larger of the last granted turn and its parent job's last turn, so that
    parent jobs share fairly, and one parent job's lanes go round. Nobody joins the turn that is being granted: it
    would never end where newcomers keep coming, and who waits for a later one would wait for ever.
    """
    tx.post_many(_ENTER, [_row(tx, head) for head in heads if not head.parent.stopping])


def enter_successors(
    tx: UnitOfWork, ended: Collection[str], parents: dict[str, ParentInWork], following: Rows | None = None
) -> None:
    """Put the next open child of each ended child's lane into the queue; ``following`` has them, if asked for."""
    rows = following() if following is not None else tx.rows(SUCCESSORS, ids=list(ended))
    enter_queue(
        tx,
        [
            Head(
                child_id=row.id,
                parent=parents[row.parent_id],
                target=row.target,
                operation=row.operation,
                available_time=row.available_time or tx.now,
            )
            for row in rows
            if row.after in ended
        ],
    )


def _row(tx: UnitOfWork, head: Head) -> dict[str, Any]:
    parent = head.parent
    rank = -parent.spec.priority
    parent.last_turn = max(tx.turn(rank), parent.last_turn) + 1
    hold = _hold(tx, head)
    if hold == READY:
        tx.ready(head.child_id, head.target)
    return {
        "child_id": head.child_id,
        "parent_id": parent.id,
        "target": head.target,
        "operation": head.operation,
        "rank": rank,
        "turn": parent.last_turn,
        "available_time": head.available_time,
        "hold": hold,
    }


def _hold(tx: UnitOfWork, head: Head) -> int:
    if head.parent.paused:
        return HELD
    if head.available_time <= tx.now:
        return READY
    tx.fall_due()
    return DELAYED
