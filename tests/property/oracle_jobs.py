"""What clients may ask for, as the oracle understands it."""

from collections.abc import Sequence

from manager_service.domain.attempts import Stop
from manager_service.domain.errors import ChildJobNotFoundError, RequestIdReusedError, WrongStateError
from manager_service.domain.model import ChildJob, ParentJob, Plan
from manager_service.domain.states import ChildJobState, ParentJobState
from tests.property.ledger import Child, Ledger, Parent


class Jobs(Ledger):
    """The verbs of ``JobWrites``, and of upkeep on parent jobs."""

    def create(self, plan: Plan, got: tuple[ParentJob, bool, Sequence[ChildJob]]) -> None:
        known = self.requested(plan.request_id, plan.request_hash)
        parent_job, existing, children = got
        assert existing == (known is not None)
        if known is not None:
            assert parent_job.id == known.id
            return
        assert parent_job.id not in self.parents
        parent = Parent(id=parent_job.id, spec=plan.spec, deadline=plan.spec.deadline)
        assert parent_job.spec == plan.spec
        for position, (made, planned) in enumerate(zip(children, plan.children, strict=True)):
            assert (made.target, made.operation, made.position) == (planned.target, planned.operation, position)
            child = Child(
                id=made.id,
                parent=parent,
                position=position,
                lane=planned.lane,
                target=planned.target,
                operation=planned.operation,
            )
            parent.children.append(child)
            self.children[child.id] = child
        self.parents[parent.id] = parent
        if plan.request_id is not None:
            self.requests[plan.request_id] = (plan.request_hash, parent.id)
        self.bulk[(parent.id, "created")] += len(children)
        self.settle(parent)

    def requested(self, request_id: str | None, request_hash: str) -> Parent | None:
        if request_id is None or request_id not in self.requests:
            return None
        known_hash, parent_id = self.requests[request_id]
        if known_hash != request_hash:
            raise RequestIdReusedError(request_id, parent_id)
        return self.parents[parent_id]

    def child(self, child_id: str) -> Child:
        if child_id not in self.children:
            raise ChildJobNotFoundError(child_id)
        return self.children[child_id]

    def cancel(self, parent_id: str) -> None:
        parent = self.parent(parent_id)
        if parent.state is ParentJobState.CANCELLED:
            return
        if parent.state.final:
            raise WrongStateError(parent_id, parent.state, "cancelled")
        if not parent.cancel:
            parent.cancel = True
            self.stop_live(parent, Stop.CANCEL)
            self.end_pending(parent, _pending(parent), ChildJobState.CANCELLED)

    def stop_live(self, parent: Parent, stop: Stop) -> int:
        """Tell live children to stop; what was told before stands."""
        told = [child.lease for child in parent.children if child.lease and child.lease.stop is None]
        for held in told:
            held.stop = stop
        return len(told)

    def end_pending(
        self, parent: Parent, children: list[Child], state: ChildJobState, failure: str | None = None
    ) -> None:
        for child in children:
            child.failure, child.available, child.delayed = failure, None, False
        self.move_many(parent, children, state, "ended")
        self.settle(parent)

    def pause(self, parent_id: str) -> None:
        self._running(parent_id, "paused").paused = True

    def resume(self, parent_id: str) -> None:
        parent = self._running(parent_id, "resumed")
        if parent.paused:
            parent.paused = False
            for child in parent.children:
                child.delayed = child.available is not None and child.available > self.now

    def _running(self, parent_id: str, verb: str) -> Parent:
        parent = self.parent(parent_id)
        if parent.state is not ParentJobState.RUNNING:
            raise WrongStateError(parent_id, parent.state, verb)
        self.touched.add(parent_id)
        return parent

    def retry(self, parent_id: str) -> None:
        parent = self.parent(parent_id)
        if parent.state is ParentJobState.RUNNING and parent.round > 1:
            return
        failed = [child for child in parent.children if child.state is ChildJobState.FAILED]
        if not parent.state.final or not failed:
            raise WrongStateError(parent_id, parent.state, "retried")
        for child in failed:
            child.failures = child.losses = 0
            child.verdict, child.available, child.delayed = None, None, False
        parent.round += 1
        parent.cancel = parent.paused = False
        parent.end_time = None
        if parent.deadline is not None and parent.deadline <= self.now:
            parent.deadline = None
        self.move_many(parent, failed, ChildJobState.PENDING, "retried")
        self.settle(parent)

    def delete(self, parent_id: str) -> None:
        parent = self.parent(parent_id)
        if not parent.state.final:
            raise WrongStateError(parent_id, parent.state, "deleted")
        self._remove(parent)

    def prune(self, age: int) -> None:
        for parent in list(self.parents.values()):
            if parent.end_time is not None and parent.end_time < self.now - age:
                self.seen["pruned"] += 1
                self._remove(parent)

    def _remove(self, parent: Parent) -> None:
        del self.parents[parent.id]
        for child in parent.children:
            del self.children[child.id]
        self.requests = {r: known for r, known in self.requests.items() if known[1] != parent.id}

    # Upkeep.

    def ending(self) -> set[str]:
        """Return the parent jobs that are cancelling and have pending children."""
        cancelling = [p for p in self.parents.values() if p.state is ParentJobState.CANCELLING]
        return {parent.id for parent in cancelling if _pending(parent)}

    def sweep(self, parent_id: str, limit: int, more: bool, pending_now: set[str]) -> None:
        """End as many pending children as the store did, whichever it took."""
        if parent_id not in self.ending():
            assert not more
            return
        parent = self.parent(parent_id)
        pending = _pending(parent)
        ended = [child for child in pending if child.id not in pending_now]
        assert len(ended) == min(limit, len(pending))
        assert more == (len(ended) < len(pending))
        self.end_pending(parent, ended, ChildJobState.CANCELLED)

    def fail_overdue(self, got: int) -> None:
        changed = 0
        for parent in self.parents.values():
            if parent.end_time is None and parent.deadline is not None and parent.deadline <= self.now:
                changed += self.stop_live(parent, Stop.DEADLINE)
                if not parent.cancel and (pending := _pending(parent)):
                    changed += len(pending)
                    self.seen["overdue"] += 1
                    self.end_pending(parent, pending, ChildJobState.FAILED, "DEADLINE_EXCEEDED")
        assert got == changed

    def release_due(self, got: int) -> None:
        due = [child for child in self.delayed() if (child.available or 0) <= self.now]
        stopping = [child for child in due if not self.enters_queue(child)]
        for child in due:
            child.delayed = False
        self.seen["released"] += got
        assert len(due) - len(stopping) <= got <= len(due)

    def delayed(self) -> list[Child]:
        """Return the delayed heads, those included that their cancelling parent job's sweep has not reached."""
        return [c for c in self.children.values() if c.delayed and c.is_head and not c.parent.paused]

    def enters_queue(self, child: Child) -> bool:
        """Tell whether a child stands first in its lane and its parent job goes on."""
        parent = child.parent
        return child.is_head and parent.state is ParentJobState.RUNNING and not parent.paused


def _pending(parent: Parent) -> list[Child]:
    return [child for child in parent.children if child.state is ChildJobState.PENDING]
