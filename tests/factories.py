"""A factory per stage of a child job's life, each built on the one before."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from uuid import UUID

from manager_service.domain.events import ChildJobChange, Event
from manager_service.domain.fleet import Lock, OfferedOperation, Registration, ServedTarget, Timing
from manager_service.domain.leases import Heartbeat, HeldLease, Lease, Poll, ReleaseReason, Report
from manager_service.domain.model import (
    ChildJob,
    Failure,
    JobSpec,
    ParentJob,
    Plan,
    PlannedChild,
    Progress,
    RequestedOperation,
)
from manager_service.domain.ports import ChildJobFilter, Hints, JobStore
from manager_service.domain.states import ChildJobState, FailureCategory, Outcome, ParentJobState, Verdict
from tests.doubles import FakeClock

_numbers = count(1)


def number() -> int:
    """Return a number that no other factory call gets."""
    return next(_numbers)


def operation(name: str, *locks: Lock) -> OfferedOperation:
    return OfferedOperation(name=name, locks=locks)


def served_target(
    name: str = "orders",
    *,
    operations: Sequence[str] = ("vacuum", "analyze", "reindex"),
    locks: Sequence[Lock] | None = None,
    **fields: Any,
) -> ServedTarget:
    keys = (Lock(key=f"sqlite:{name}", exclusive=True),) if locks is None else tuple(locks)
    given = {"engine": "sqlite", "engine_version": "3.53", "identity": f"file:{name}", **fields}
    return ServedTarget(name=name, operations=tuple(operation(o, *keys) for o in operations), **given)


def registration(*targets: ServedTarget | str, worker_name: str = "anna", **fields: Any) -> Registration:
    served = tuple(served_target(t) if isinstance(t, str) else t for t in targets or ("orders",))
    given = {"instance_id": str(UUID(int=number())), "slots": 100, **fields}
    return Registration(worker_name=worker_name, targets=served, **given)


def plan(
    *targets: str,
    operations: Sequence[str] = ("vacuum",),
    request_id: str | None = None,
    request_hash: str = "hash",
    sizes: Mapping[str, int] | None = None,
    children: Sequence[PlannedChild] | None = None,
    **spec: Any,
) -> Plan:
    planned = [
        PlannedChild(target=target, operation=name, lane=target, size=(sizes or {}).get(target, 0))
        for target in targets or ("orders",)
        for name in operations
    ]
    asked = tuple(RequestedOperation(name=name) for name in operations)
    return Plan(
        request_id=request_id,
        request_hash=request_hash,
        spec=JobSpec(**{"name": "upkeep", "operations": asked, **spec}),
        children=tuple(planned if children is None else children),
    )


def failure(reason: str = "SQLITE_BUSY", *, retryable: bool = True) -> Failure:
    return Failure(reason=reason, message="locked", category=FailureCategory.LOCKED, retryable=retryable)


def report_of(lease: Lease, outcome: Outcome = Outcome.COMPLETED, **fields: Any) -> Report:
    given: dict[str, Any] = {"report_id": str(UUID(int=number()))}
    match outcome:
        case Outcome.COMPLETED:
            given["verdict"] = Verdict.EFFECTIVE
        case Outcome.FAILED:
            given["failure"] = failure()
        case Outcome.RELEASED:
            given["released"] = ReleaseReason.DRAIN
        case _:
            pass
    return Report(
        child_job_id=lease.child_job_id,
        lease_id=lease.lease_id,
        attempt=lease.attempt,
        outcome=outcome,
        **{**given, **fields},
    )


@dataclass(slots=True)
class FakeWorker:
    """A worker's side of the lease protocol: it numbers its polls and heartbeats."""

    store: JobStore
    session_id: str
    registration: Registration
    polls: int = 0
    beats: int = 0

    def poll(self, max_leases: int = 100) -> Poll:
        self.polls += 1
        return Poll(sequence=self.polls, max_leases=max_leases)

    async def acquire(self, max_leases: int = 100) -> tuple[Lease, ...]:
        return await self.store.acquire(self.session_id, self.poll(max_leases))

    def heartbeat(
        self,
        *leases: Lease,
        draining: bool = False,
        progress: Mapping[str, Progress] | None = None,
        held_back: Mapping[str, str] | None = None,
    ) -> Heartbeat:
        self.beats += 1
        told = progress or {}
        held = tuple(
            HeldLease(lease_id=lease.lease_id, attempt=lease.attempt, progress=told.get(lease.lease_id))
            for lease in leases
        )
        return Heartbeat(
            session_id=self.session_id,
            sequence=self.beats,
            draining=draining,
            leases=held,
            held_back=held_back or {},
        )

    async def beat(self, *leases: Lease, draining: bool = False) -> Any:
        return await self.store.heartbeat(self.heartbeat(*leases, draining=draining))

    async def hold_back(self, *leases: Lease, **reasons: str) -> Any:
        """Beat with why targets are held back, by name; without any it holds none back."""
        return await self.store.heartbeat(self.heartbeat(*leases, held_back=reasons))

    async def tell(self, lease: Lease, progress: Progress, *others: Lease) -> Any:
        """Beat with the progress of one lease, and with others that tell none."""
        return await self.store.heartbeat(self.heartbeat(lease, *others, progress={lease.lease_id: progress}))

    async def end(self, lease: Lease, outcome: Outcome = Outcome.COMPLETED, **fields: Any) -> Any:
        answer = await self.store.report(self.session_id, [report_of(lease, outcome, **fields)], None)
        return answer.statuses[0]

    async def register_again(self) -> str:
        self.session_id = await self.store.register(self.registration)
        return self.session_id


@dataclass(slots=True)
class World:
    """A store, its clock, what it told its listeners, and short ways to the stages of a child's life."""

    store: JobStore
    clock: FakeClock
    timing: Timing
    hints: list[Hints] = field(default_factory=list)

    async def worker(self, *targets: ServedTarget | str, **fields: Any) -> FakeWorker:
        known = registration(*targets, **fields)
        return FakeWorker(self.store, await self.store.register(known), known)

    async def parent_job(self, *targets: str, **fields: Any) -> ParentJob:
        return (await self.store.create_parent_job(plan(*targets, **fields))).parent_job

    async def children(self, parent: ParentJob) -> tuple[ChildJob, ...]:
        return await self.store.child_jobs(parent.id, ChildJobFilter(), limit=1000)

    async def child_job(self, *targets: str, **fields: Any) -> ChildJob:
        return (await self.children(await self.parent_job(*targets, **fields)))[0]

    async def leased_child_job(self, worker: FakeWorker | None = None, **fields: Any) -> tuple[FakeWorker, Lease]:
        worker = worker or await self.worker()
        await self.child_job(**fields)
        [lease] = await worker.acquire(1)
        return worker, lease

    async def running_child_job(self, worker: FakeWorker | None = None, **fields: Any) -> tuple[FakeWorker, Lease]:
        worker, lease = await self.leased_child_job(worker, **fields)
        await worker.beat(lease)
        return worker, lease

    async def expired_lease(self, worker: FakeWorker | None = None, **fields: Any) -> tuple[FakeWorker, Lease]:
        """Let a running child's lease run out, but leave it where it is."""
        worker, lease = await self.running_child_job(worker, **fields)
        await self.live_on(self.timing.lease_duration + 1)
        return worker, lease

    async def lost_lease(self, worker: FakeWorker | None = None, **fields: Any) -> tuple[FakeWorker, Lease]:
        """Let a running child's lease run out and be taken back."""
        worker, lease = await self.expired_lease(worker, **fields)
        await self.store.expire_leases(limit=100)
        return worker, lease

    async def finished_parent_job(self, outcome: Outcome = Outcome.COMPLETED, **fields: Any) -> ParentJob:
        worker, lease = await self.running_child_job(**fields)
        if outcome is Outcome.FAILED:
            await worker.end(lease, outcome, failure=failure(retryable=False))
        else:
            await worker.end(lease, outcome)
        return await self.store.parent_job(lease.parent_job_id)

    async def live_on(self, span: int) -> None:
        """Let time pass while the manager lives: it marks itself alive as it goes."""
        step = self.timing.heartbeat_interval
        while span > 0:
            self.clock.pass_time(min(step, span))
            await self.store.mark_alive()
            span -= step

    async def state(self, parent_job_id: str) -> ParentJobState:
        return (await self.store.parent_job(parent_job_id)).state

    async def all_events(self, parent_job_id: str) -> list[Event]:
        """Read every event of a parent job, a page at a time, and show that their numbers have no gap."""
        events: list[Event] = []
        while page := (await self.store.events(parent_job_id, after=len(events), limit=7)).events:
            events.extend(page)
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        return events

    async def check(self, parent_job_id: str) -> None:
        """Show that the counts are what the children are, and the events what the children went through."""
        parent = await self.store.parent_job(parent_job_id)
        children = await self.children(parent)
        counted = Counter(child.state.value for child in children)
        assert {state.value: getattr(parent.counts, state.value) for state in ChildJobState} == {
            state.value: counted[state.value] for state in ChildJobState
        }
        events = await self.all_events(parent_job_id)
        assert parent.sequence == len(events)
        assert (parent.end_time is not None) == parent.state.final
        _check_versions(events)
        for child in children:
            assert (child.state is ChildJobState.PENDING) or child.wait_reason is None

    def ready_hints(self) -> dict[str, int]:
        """Return how many heads of each target listeners were told of, and forget it."""
        told: Counter[str] = Counter()
        for hint in self.hints:
            told.update(hint.ready)
        self.hints.clear()
        return dict(told)


def _check_versions(events: Sequence[Event]) -> None:
    """Show that each child's events follow from one another."""
    last: dict[str, ChildJobChange] = {}
    for event in events:
        if isinstance(event.change, ChildJobChange):
            before = last.get(event.change.child_job_id)
            if before is not None:
                assert event.change.version > before.version
                assert event.change.attempts >= before.attempts
            last[event.change.child_job_id] = event.change
