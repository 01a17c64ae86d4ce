"""Make a parent job and its children."""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import bindparam, insert, select

from manager_service.domain.errors import RequestIdReusedError
from manager_service.domain.events import BulkChangeKind
from manager_service.domain.model import Plan, PlannedChild
from manager_service.domain.ports import Created
from manager_service.domain.states import ChildJobState, Counts, ParentJobState
from manager_service.store.parents import PARENT_OF_REQUEST, ParentInWork
from manager_service.store.rows import spec_text, text_of
from manager_service.store.statements import Statement
from manager_service.store.tables import (
    HELD,
    READY,
    child_jobs,
    parent_counts,
    parent_jobs,
    parent_labels,
    parent_targets,
    queue,
)
from manager_service.store.unit_of_work import UnitOfWork
from manager_service.store.writer import Bulk, pieces

_INSERT_PARENT = Statement(insert(parent_jobs))
_INSERT_COUNTS = Statement(insert(parent_counts))
_INSERT_LABEL = Statement(insert(parent_labels))
_c = child_jobs.c
_LAST = Statement(
    select(_c.position)
    .with_hint(child_jobs, "INDEXED BY uq_child_jobs_parent_id_position")
    .where(_c.parent_id == bindparam("parent_id"))
    .order_by(_c.position.desc())
    .limit(1)
)


def create_parent_job(tx: UnitOfWork, plan: Plan) -> Bulk[Created]:
    """Store a parent job, its children and its first event; or find what the same request made before."""
    known = _known(tx, plan)
    if known is not None:
        return known
    parent = _insert_parent(tx, plan)
    targets = ({"target": target} for target in sorted({child.target for child in plan.children}))
    yield from tx.copy_many(parent_targets, pieces(targets), parent_id=parent.id)
    yield from _insert_children(tx, parent, plan.children)
    if plan.spec.deadline is not None:
        tx.fall_due()
    parent.bulk_changed(BulkChangeKind.CREATED, len(plan.children))
    return Created(parent_job=tx.parent(parent.id).as_parent_job(), existing=False)


def add_children(tx: UnitOfWork, parent: ParentInWork, planned: Sequence[PlannedChild]) -> Bulk[None]:
    """Add children to a parent job that the transaction has for itself, behind those that it has."""
    if not planned:
        return
    [last] = tx.rows(_LAST, parent_id=parent.id)
    # There are no more lanes than children.
    yield from _insert_children(tx, parent, planned, position=last.position + 1, lane=last.position + 1)
    parent.bulk_changed(BulkChangeKind.PLANNED, len(planned))


def _insert_children(
    tx: UnitOfWork, parent: ParentInWork, planned: Sequence[PlannedChild], *, position: int = 0, lane: int = 0
) -> Bulk[None]:
    """Write children and the heads of their lanes, and count them; positions and lanes go on from these."""
    children = Children(tx, parent, planned, position=position, lane=lane)
    alike = {"parent_id": parent.id, "create_time": tx.now}
    yield from tx.copy_many(child_jobs, pieces(children.rows()), **alike, **_NEW_CHILD)
    at_once = {
        "parent_id": parent.id,
        "rank": -parent.spec.priority,
        "available_time": tx.now,
        "hold": HELD if parent.paused else READY,
    }
    yield from tx.copy_many(queue, pieces(children.heads()), **at_once)
    skipped = sum(child.skipped for child in planned)
    parent.moved(None, ChildJobState.PENDING, len(planned) - skipped)
    if skipped:
        parent.moved(None, ChildJobState.SKIPPED, skipped)


def _known(tx: UnitOfWork, plan: Plan) -> Created | None:
    row = tx.row(PARENT_OF_REQUEST, request_id=plan.request_id) if plan.request_id is not None else None
    if row is None:
        return None
    if row.request_hash != plan.request_hash:
        raise RequestIdReusedError(str(plan.request_id), row.id)
    return Created(parent_job=tx.parent(row.id).as_parent_job(), existing=True)


def _insert_parent(tx: UnitOfWork, plan: Plan) -> ParentInWork:
    parent = ParentInWork(
        id=tx.ids.new_id(),
        spec=plan.spec,
        state=ParentJobState.PLANNING if plan.spec.inspections else ParentJobState.RUNNING,
        counts=Counts(),
        sequence=0,
        last_turn=0,
        paused=False,
        cancel_requested=False,
        cancel_reason="",
        round=1,
        create_time=tx.now,
        start_time=None,
        end_time=None,
    )
    tx.post(_INSERT_PARENT, **_parent_row(parent, plan))
    tx.post(_INSERT_COUNTS, parent_id=parent.id, first_sequence=1, **_without_key(parent.counts_row()))
    tx.post_many(
        _INSERT_LABEL,
        [{"parent_id": parent.id, "key": key, "value": value} for key, value in plan.spec.labels.items()],
    )
    tx.adopt(parent, made=True)
    return parent


def _parent_row(parent: ParentInWork, plan: Plan) -> dict[str, Any]:
    return {
        **_without_key(parent.row()),
        "id": parent.id,
        "request_id": plan.request_id,
        "request_hash": plan.request_hash,
        "spec": spec_text(plan.spec),
        "max_parallel": plan.spec.max_parallel,
        "deadline": plan.spec.deadline,
        "create_time": parent.create_time,
    }


def _without_key(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "of"}


class Children:
    """The rows of planned children, and of the heads of their lanes.

    Args:
        tx: the transaction.
        parent: their parent job.
        planned: the children in their order.
        position: the place of the first.
        lane: the number of the first lane.
    """

    def __init__(
        self, tx: UnitOfWork, parent: ParentInWork, planned: Sequence[PlannedChild], *, position: int, lane: int
    ) -> None:
        self._tx = tx
        self._parent = parent
        self._planned = planned
        self._position = position
        self._first_lane = lane
        self._lanes: dict[str, int] = {}
        self._heads: dict[int, tuple[str, PlannedChild]] = {}
        self._sizes: dict[int, int] = {}

    def rows(self) -> Iterator[dict[str, Any]]:
        """Return one row per child, in their order; the first of each lane that waits becomes its head."""
        new_id, lanes, heads, sizes = self._tx.ids.new_id, self._lanes, self._heads, self._sizes
        for position, child in enumerate(self._planned, self._position):
            child_id = new_id()
            lane = lanes.setdefault(child.lane, len(lanes))
            if not child.skipped:
                heads.setdefault(lane, (child_id, child))
                sizes[lane] = sizes.get(lane, 0) + child.size
            yield {
                "id": child_id,
                "position": position,
                "lane": self._first_lane + lane,
                "target": child.target,
                "operation": child.operation,
                "options": text_of(child.options),
                "object": child.object,
                "locks": text_of(child.locks) or None,
                "size": child.size,
                "state": _SKIPPED if child.skipped else _PENDING,
                "reason": child.reason,
                "before": text_of(child.before),
                "end_time": self._tx.now if child.skipped else None,
            }

    def heads(self) -> Iterator[dict[str, Any]]:
        """Return the heads, the lanes with most to do first; call it after ``rows`` is exhausted.

        Their turns begin after the last granted one of their rank, so that parent jobs share fairly, and go on one
        by one, so that the lanes of one parent job go round.
        """
        first = max(self._tx.turn(-self._parent.spec.priority), self._parent.last_turn) + 1
        order = sorted(self._heads, key=lambda lane: -self._sizes[lane])
        for turn, lane in enumerate(order, first):
            child_id, child = self._heads[lane]
            self._parent.last_turn = turn
            if not self._parent.paused:
                self._tx.ready(child_id, child.target)
            yield {"child_id": child_id, "target": child.target, "operation": child.operation, "turn": turn}


_PENDING, _SKIPPED = ChildJobState.PENDING.value, ChildJobState.SKIPPED.value
_NEW_CHILD: dict[str, Any] = {
    "attempts": 0,
    "failures": 0,
    "losses": 0,
    "version": 1,
    "verdict": None,
    "failure": None,
    "after": "",
    "available_time": None,
    "start_time": None,
}
