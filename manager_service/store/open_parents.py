"""The first heads of the parent jobs that are not closed, however many heads of closed ones lie in front."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import bindparam, func, literal_column, select

from manager_service.store.eligible import HEAD, IS_OPEN, NOT_PAUSED
from manager_service.store.statements import Among, Statement
from manager_service.store.tables import child_jobs, parent_jobs, queue, session_targets, targets
from manager_service.store.unit_of_work import UnitOfWork

# How many parent jobs with heads may be asked one by one.
_PARENTS = 64

_q, _st, _t, _p = queue.c, session_targets.c, targets.c, parent_jobs.c
# One seek in the index for each parent job that has heads, however many they are.
_walk = (
    select(func.min(_q.parent_id).label("id"))
    .select_from(queue)
    .with_hint(queue, "INDEXED BY ix_queue_parent_id")
    .cte("walk", recursive=True)
)
_next = queue.alias("next")
_walk = _walk.union_all(
    select(
        select(func.min(_next.c.parent_id))
        .with_hint(_next, "INDEXED BY ix_queue_parent_id")
        .where(_next.c.parent_id > _walk.c.id)
        .correlate(_walk)
        .scalar_subquery()
    ).where(_walk.c.id.is_not(None))
)
QUEUED_PARENTS = Statement(select(_walk.c.id).where(_walk.c.id.is_not(None)).limit(_PARENTS + 1))
_of_parent = queue.alias("of_parent")
_ready_of_parent = (
    select(_of_parent.c.child_id)
    .with_hint(_of_parent, "INDEXED BY ix_queue_parent_id")
    .where(_of_parent.c.parent_id == _p.id, _of_parent.c.hold == literal_column("0"))
    .order_by(_of_parent.c.turn, _of_parent.c.child_id)
    .correlate(parent_jobs)
)
# The first heads of some parent jobs, on targets that the session serves and that are not paused.
PARENT_HEADS = Statement(
    select(*HEAD)
    .with_hint(session_targets, "INDEXED BY ix_session_targets_session_id")
    .with_hint(targets, "INDEXED BY ix_targets_room")
    .select_from(
        parent_jobs.join(queue, _q.child_id.in_(_ready_of_parent.limit(bindparam("window"))))
        .join(session_targets, (_st.session_id == bindparam("session_id")) & (_st.target == _q.target))
        .join(targets, _t.name == _q.target)
        .join(child_jobs, child_jobs.c.id == _q.child_id)
    )
    .where(Among(_p.id, "parents"), NOT_PAUSED, *IS_OPEN)
    .order_by(_q.rank, _q.turn, _q.child_id)
)
# The most urgent of the heads that follow on these.
NEXT_HEAD = Statement(
    select(_q.rank, _q.turn, _q.child_id)
    .select_from(
        parent_jobs.join(
            queue, _q.child_id == _ready_of_parent.limit(1).offset(bindparam("window")).scalar_subquery()
        )
    )
    .where(Among(_p.id, "parents"))
    .order_by(_q.rank, _q.turn, _q.child_id)
    .limit(1)
)


def first_heads(
    tx: UnitOfWork, session_id: str, closed: Collection[str], *, window: int
) -> tuple[list[Any], bool]:
    """Return heads that the session serves, in dispatch order without a gap, and whether there may be more.

    Args:
        tx: the transaction of the claim.
        session_id: the session that claims.
        closed: parent jobs none of whose heads may go now.
        window: how many heads of each other parent job are looked at.
    """
    queued = [row.id for row in tx.rows(QUEUED_PARENTS)]
    if len(queued) > _PARENTS:
        return [], True
    given = {"parents": [parent_id for parent_id in queued if parent_id not in closed], "window": window}
    following = tx.row(NEXT_HEAD, **given)
    heads = tx.rows(PARENT_HEADS, session_id=session_id, now=tx.now, **given)
    if following is None:
        return heads, False
    return [head for head in heads if _place(head) < _place(following)], True


def _place(head: Any) -> tuple[int, int, str]:
    return head.rank, head.turn, head.child_id
