"""Make a parent job and its children."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import insert

from manager_service.domain.errors import RequestIdReusedError
from manager_service.domain.events import BulkChangeKind
from manager_service.domain.model import Plan
from manager_service.domain.ports import Created
from manager_service.domain.states import ChildJobState, Counts, ParentJobState
from manager_service.store.lanes import Head, enter_queue
from manager_service.store.parents import PARENT_OF_REQUEST, ParentInWork
from manager_service.store.rows import spec_text, text_of
from manager_service.store.statements import Statement
from manager_service.store.tables import child_jobs, parent_counts, parent_jobs, parent_labels, parent_targets
from manager_service.store.unit_of_work import UnitOfWork
from manager_service.store.writer import Bulk, pieces

_INSERT_PARENT = Statement(insert(parent_jobs))
_INSERT_COUNTS = Statement(insert(parent_counts))
_INSERT_LABEL = Statement(insert(parent_labels))
_INSERT_TARGET = Statement(insert(parent_targets))
_INSERT_CHILD = Statement(insert(child_jobs))


def create_parent_job(tx: UnitOfWork, plan: Plan) -> Bulk[Created]:
    """Store a parent job, its children and its first event; or find what the same request made before."""
    known = _known(tx, plan)
    if known is not None:
        return known
    parent = _insert_parent(tx, plan)
    for targets in pieces(sorted({child.target for child in plan.children})):
        tx.run_many(_INSERT_TARGET, [{"parent_id": parent.id, "target": target} for target in targets])
        yield
    children = Children(tx, parent, plan)
    for rows in pieces(children.rows()):
        tx.run_many(_INSERT_CHILD, rows)
        yield
    for heads in pieces(children.heads()):
        enter_queue(tx, heads)
        yield
    parent.moved(None, ChildJobState.PENDING, len(plan.children))
    parent.bulk_changed(BulkChangeKind.CREATED, len(plan.children))
    return Created(parent_job=tx.parent(parent.id).as_parent_job(), existing=False)


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
        state=ParentJobState.RUNNING,
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
    tx.run(_INSERT_PARENT, **_parent_row(parent, plan))
    tx.run(_INSERT_COUNTS, parent_id=parent.id, first_sequence=1, **_without_key(parent.counts_row()))
    tx.run_many(
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
    """The rows of a plan's children, and the heads of their lanes."""

    def __init__(self, tx: UnitOfWork, parent: ParentInWork, plan: Plan) -> None:
        self._tx = tx
        self._parent = parent
        self._plan = plan
        self._lanes: dict[str, int] = {}
        self._heads: list[Head] = []
        self._sizes: list[int] = []

    def rows(self) -> Iterator[dict[str, Any]]:
        """Return one row per child, in the order of the plan; the first child of each lane becomes its head."""
        new = {**_NEW_CHILD, "parent_id": self._parent.id, "create_time": self._tx.now}
        for position, child in enumerate(self._plan.children):
            child_id = self._tx.ids.new_id()
            lane = self._lanes.setdefault(child.lane, len(self._lanes))
            if lane == len(self._heads):
                self._heads.append(
                    Head(
                        child_id=child_id,
                        parent=self._parent,
                        target=child.target,
                        operation=child.operation,
                        available_time=self._tx.now,
                    )
                )
                self._sizes.append(child.size)
            self._sizes[lane] = max(self._sizes[lane], child.size)
            yield {
                **new,
                "id": child_id,
                "position": position,
                "lane": lane,
                "target": child.target,
                "operation": child.operation,
                "options": text_of(child.options),
                "object": child.object,
                "size": child.size,
            }

    def heads(self) -> Iterator[Head]:
        """Return the heads, the lanes with the largest child first; call it after ``rows`` is exhausted."""
        order = sorted(range(len(self._heads)), key=lambda lane: -self._sizes[lane])
        return (self._heads[lane] for lane in order)


_NEW_CHILD: dict[str, Any] = {
    "attempts": 0,
    "failures": 0,
    "losses": 0,
    "version": 1,
    "state": ChildJobState.PENDING.value,
    "verdict": None,
    "reason": "",
    "failure": None,
    "before": "",
    "after": "",
    "available_time": None,
    "start_time": None,
    "end_time": None,
}
