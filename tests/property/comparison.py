"""Compare a store with the oracle: what it shows, and what its events tell."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from manager_service.domain.events import BulkChange, BulkChangeKind, ChildJobChange, Event, ParentJobChange
from manager_service.domain.model import ChildJob, ParentJob
from manager_service.domain.ports import ChildJobFilter, JobStore, ParentJobFilter
from manager_service.domain.states import ChildJobState, Counts, ParentJobState
from tests.property.ledger import Child, Parent
from tests.property.oracle import Oracle

ALL = 1_000
# Every so often what no step should have touched is looked at too.
_THOROUGH = 10


@dataclass(slots=True)
class Story:
    """What the events of one parent job have told so far."""

    sequence: int = 0
    counts: Counter[ChildJobState] = field(default_factory=Counter)
    told: tuple[ParentJobState, bool, bool] = (ParentJobState.RUNNING, False, False)
    children: dict[str, ChildJobChange] = field(default_factory=dict)

    def hear(self, event: Event) -> None:
        """Take in the next event; show that it follows from what was told before."""
        assert event.sequence == self.sequence + 1, "a gap"
        self.sequence = event.sequence
        match event.change:
            case ChildJobChange() as change:
                self._hear_child(change)
            case ParentJobChange() as change:
                assert counted(change.counts) == +self.counts
                told = (change.state, change.paused, change.cancel_requested)
                assert told != self.told, "nothing new was told"
                self.told = told
            case BulkChange() as change:
                moved = counted(change.counts)
                moved.subtract(self.counts)
                self._check_bulk(change, {state: number for state, number in moved.items() if number})
                self.counts = counted(change.counts)

    def _hear_child(self, change: ChildJobChange) -> None:
        self.counts[change.previous_state] -= 1
        self.counts[change.state] += 1
        before = self.children.get(change.child_job_id)
        if before is not None:
            assert change.version > before.version
            assert change.attempts == before.attempts + (change.state is ChildJobState.LEASED)
        self.children[change.child_job_id] = change

    def _check_bulk(self, change: BulkChange, moved: Mapping[ChildJobState, int]) -> None:
        number = change.affected
        match change.kind:
            case BulkChangeKind.CREATED:
                assert moved == ({ChildJobState.PENDING: number} if number else {})
            case BulkChangeKind.RETRIED:
                assert moved == {ChildJobState.FAILED: -number, ChildJobState.PENDING: number}
            case BulkChangeKind.ENDED:
                ended = ChildJobState.CANCELLED if ChildJobState.CANCELLED in moved else ChildJobState.FAILED
                assert moved == {ChildJobState.PENDING: -number, ended: number}


class Comparison:
    """Compares after each step what the step may have touched, and sometimes everything."""

    def __init__(self, oracle: Oracle) -> None:
        self.oracle = oracle
        self.stories: dict[str, Story] = {}
        self._checks = 0

    async def check(self, store: JobStore, *, everything: bool = False) -> None:
        touched, self.oracle.touched = self.oracle.touched, set()
        children, self.oracle.touched_children = self.oracle.touched_children, set()
        changes, self.oracle.changes = self.oracle.changes, Counter()
        bulk, self.oracle.bulk = self.oracle.bulk, Counter()
        self._checks += 1
        everything = everything or self._checks % _THOROUGH == 0
        if everything:
            listed = await store.parent_jobs(ParentJobFilter(), limit=ALL)
            assert {parent.id for parent in listed} == self.oracle.parents.keys()
        parents = {parent_id: await store.parent_job(parent_id) for parent_id in self.oracle.parents}
        events: list[tuple[str, Event]] = []
        for parent_id, parent in parents.items():
            expected, story = self.oracle.parents[parent_id], self.stories.setdefault(parent_id, Story())
            _check_parent(parent, expected)
            if everything or parent_id in touched or parent.sequence != story.sequence:
                new = (await store.events(parent_id, after=story.sequence, limit=ALL)).events
                events += [(parent_id, event) for event in new]
                self._check_story(story, new, parent)
                read = await store.child_jobs(parent_id, ChildJobFilter(), limit=ALL)
                self._check_children(read, expected)
        for child_id in self.oracle.children if everything else children & self.oracle.children.keys():
            await _check_attempts(store, self.oracle.children[child_id])
        _check_events(events, changes, bulk)
        await self._check_workers(store)
        if everything:
            await self._check_targets(store)
        assert set(await store.ending_parent_jobs()) == self.oracle.ending()
        due = await store.next_available()
        assert due in self.oracle.next_available(), f"something falls due in {due}"

    def _check_story(self, story: Story, events: Sequence[Event], parent: ParentJob) -> None:
        for event in events:
            story.hear(event)
        assert story.sequence == parent.sequence
        assert +story.counts == counted(parent.counts)
        assert story.told == (parent.state, parent.paused, parent.cancel_requested)

    def _check_children(self, children: Sequence[ChildJob], expected: Parent) -> None:
        assert [child.id for child in children] == [child.id for child in expected.children]
        for read, child in zip(children, expected.children, strict=True):
            self._check_child(read, child)

    def _check_child(self, read: ChildJob, child: Child) -> None:
        assert read.state == child.state, f"expected {child.state}: {read}"
        assert read.attempts == child.attempts, f"expected {child.attempts} attempts: {read}"
        assert (read.failures, read.losses, read.verdict) == (child.failures, child.losses, child.verdict), read
        assert (read.failure.reason if read.failure else None) == child.failure, read
        assert read.worker_name == (child.lease.worker_name if child.lease else ""), read
        assert (read.end_time is not None) == read.state.final, read
        if read.state is not ChildJobState.PENDING:
            assert (read.wait_reason, read.available_time) == (None, None), read
        elif child.parent.state is ParentJobState.RUNNING:
            expected = (self.oracle.wait_reason(child), child.available)
            assert (read.wait_reason, read.available_time) == expected, f"expected {expected}: {read}"

    async def _check_workers(self, store: JobStore) -> None:
        oracle = self.oracle
        names = sorted({session.worker_name for session in oracle.sessions.values()})
        workers = await store.workers(include_gone=True, limit=ALL)
        assert [worker.worker_name for worker in workers] == names
        for worker, session in zip(workers, map(oracle.worker, names), strict=True):
            used = len(oracle.leases_of(session))
            assert (worker.session_id, worker.state) == (session.id, oracle.session_state(session)), worker
            assert (worker.slots, worker.slots_used) == (session.slots, used), worker
            assert worker.targets == tuple(sorted(session.targets)), worker
            oracle.seen[f"session: {worker.state}"] += 1

    async def _check_targets(self, store: JobStore) -> None:
        oracle = self.oracle
        targets = await store.targets(labels={}, limit=ALL)
        assert [target.name for target in targets] == sorted(oracle.targets)
        for target in targets:
            states = Counter(child.state for child in oracle.children.values() if child.target == target.name)
            live = states[ChildJobState.LEASED] + states[ChildJobState.RUNNING]
            assert (target.pending, target.live) == (states[ChildJobState.PENDING], live), target
            assert target.workers == tuple(oracle.serving(target.name)), target
            assert target.paused == (target.name in oracle.paused_targets), target


def counted(counts: Counts) -> Counter[ChildJobState]:
    return +Counter({state: getattr(counts, state.value) for state in ChildJobState})


def _check_parent(read: ParentJob, parent: Parent) -> None:
    assert counted(read.counts) == parent.counts, read
    assert (read.state, read.round) == (parent.state, parent.round), read
    assert (read.paused, read.cancel_requested) == (parent.paused, parent.cancel), read
    assert (read.start_time, read.end_time) == (parent.start_time, parent.end_time), read


async def _check_attempts(store: JobStore, child: Child) -> None:
    _, attempts = await store.child_job(child.id)
    page = await store.logs(child.id, attempt=child.attempts, offset=0, limit=ALL)
    assert len(page.entries) == child.logs[child.attempts]
    live = {child.lease.attempt: child.lease.lease_id} if child.lease else {}
    ended = {number: lease_id for number, (lease_id, _, _) in child.ended.items()}
    assert {attempt.attempt: attempt.lease_id for attempt in attempts} == ended | live
    for attempt in attempts:
        _, _, outcome = child.ended.get(attempt.attempt, ("", None, None))
        assert attempt.outcome == outcome, attempt
        stale = {report.report_id for report in attempt.stale_reports}
        assert stale == set(child.stale.get(attempt.attempt, ())), attempt


def _check_events(
    events: Sequence[tuple[str, Event]],
    changes: Counter[tuple[str, ChildJobState, ChildJobState]],
    bulk: Counter[tuple[str, str]],
) -> None:
    """Show that the new events tell what happened, nothing less and nothing more."""
    told: Counter[tuple[str, ChildJobState, ChildJobState]] = Counter()
    told_bulk: Counter[tuple[str, str]] = Counter()
    for parent_id, event in events:
        match event.change:
            case ChildJobChange() as change:
                told[(change.child_job_id, change.previous_state, change.state)] += 1
            case BulkChange() as change:
                told_bulk[(parent_id, change.kind.value)] += change.affected
            case _:
                pass
    assert (told, +told_bulk) == (changes, +bulk)
