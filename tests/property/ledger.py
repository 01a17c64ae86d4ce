"""What the oracle remembers, and the rules that every verb shares: time, budgets, the state of a parent job."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from manager_service.domain.attempts import Loss, Stop
from manager_service.domain.errors import ParentJobNotFoundError, SessionUnknownError
from manager_service.domain.fleet import Registration, ServedTarget, SessionState, Timing, WorkerDirective
from manager_service.domain.leases import Report
from manager_service.domain.model import SECOND, Instant, JobSpec, Span
from manager_service.domain.states import ChildJobState, FailureMode, Outcome, ParentJobState, Verdict

LIVE = (ChildJobState.LEASED, ChildJobState.RUNNING)
OPEN = (ChildJobState.PENDING, *LIVE)
OPEN_SESSION = (SessionState.READY, SessionState.DRAINING)
RELEASE_WAIT: Mapping[str, Span] = {"drain": 0, "target_busy": 2 * SECOND, "unsuitable": 5 * SECOND}


@dataclass(slots=True, kw_only=True)
class Held:
    """A live lease."""

    lease_id: str
    attempt: int
    session_id: str
    worker_name: str
    poll_sequence: int
    accept_time: Instant
    expire_time: Instant
    locks: Mapping[str, bool]
    missed: int = 0
    graced: bool = False
    stop: Stop | None = None


@dataclass(slots=True, kw_only=True)
class Parent:
    id: str
    spec: JobSpec
    deadline: Instant | None
    children: list["Child"] = field(default_factory=list)
    state: ParentJobState = ParentJobState.RUNNING
    cancel: bool = False
    paused: bool = False
    round: int = 1
    start_time: Instant | None = None
    end_time: Instant | None = None

    @property
    def counts(self) -> Counter[ChildJobState]:
        return Counter(child.state for child in self.children)

    @property
    def live(self) -> int:
        return sum(child.lease is not None for child in self.children)


@dataclass(slots=True, kw_only=True, eq=False)
class Child:
    id: str
    parent: Parent
    position: int
    lane: str
    target: str
    operation: str
    state: ChildJobState = ChildJobState.PENDING
    attempts: int = 0
    failures: int = 0
    losses: int = 0
    verdict: Verdict | None = None
    failure: str | None = None
    available: Instant | None = None
    delayed: bool = False
    lease: Held | None = None
    # Of each ended attempt what identifies it: lease_id, report_id, outcome.
    ended: dict[int, tuple[str, str | None, Outcome | None]] = field(default_factory=dict)
    stale: dict[int, list[str]] = field(default_factory=dict)
    logs: Counter[int] = field(default_factory=Counter)

    @property
    def is_head(self) -> bool:
        """Whether no child before it in its lane is open."""
        return self.state is ChildJobState.PENDING and not any(
            other.state in OPEN and other.lane == self.lane and other.position < self.position
            for other in self.parent.children
        )


@dataclass(slots=True, kw_only=True, eq=False)
class Session:
    id: str
    worker_name: str
    instance_id: str
    slots: int
    create_time: Instant
    heartbeat_time: Instant
    targets: dict[str, ServedTarget]
    registration: Registration
    state: SessionState = SessionState.READY
    directive: WorkerDirective = WorkerDirective.NONE
    heartbeats: int = 0
    held_back: frozenset[str] = frozenset()
    # The sequence of the last poll that was granted something, and the highest that was seen.
    granted: int = 0
    seen: int = 0


class Ledger:
    """Everything there is, and how it changes; ``touched`` and ``changes`` collect what a step did."""

    def __init__(self, timing: Timing, now: Instant) -> None:
        self.timing = timing
        self.now = self.mark = now
        # Whether other managers may live while this one does not.
        self.shared = False
        self.parents: dict[str, Parent] = {}
        self.children: dict[str, Child] = {}
        self.sessions: dict[str, Session] = {}
        self.targets: dict[str, ServedTarget] = {}
        self.paused_targets: set[str] = set()
        self.requests: dict[str, tuple[str, str]] = {}
        self.lease_ids: set[str] = set()
        self.touched: set[str] = set()
        self.touched_children: set[str] = set()
        self.changes: Counter[tuple[str, ChildJobState, ChildJobState]] = Counter()
        self.bulk: Counter[tuple[str, str]] = Counter()
        self.seen: Counter[str] = Counter()

    # Time.

    def begin(self) -> None:
        """Begin a transaction: make up for an outage before anything else."""
        gap = self.now - self.mark
        if (abs(gap) if self.shared else gap) > 2 * self.timing.heartbeat_interval:
            self._make_up(gap)

    def reopen(self, now: Instant) -> None:
        """Let another manager open the store, at the time that its wall clock shows."""
        self.now = now
        if self.shared:
            self.begin()
            self.mark = now
        else:
            self._make_up(now - self.mark)
        for session in self.sessions.values():
            session.seen = session.granted

    def _make_up(self, gap: Span) -> None:
        """Move what is live by the gap, and by a grace that is given once per renewal."""
        self.seen["outage"] += 1
        for child in self.live_children():
            held = self.held(child)
            span = gap + (0 if held.graced else 2 * self.timing.heartbeat_interval)
            held.expire_time += span
            held.accept_time += span
            held.graced = True
        for session in self.sessions.values():
            if session.state in OPEN_SESSION:
                session.heartbeat_time += gap
        for child in self.children.values():
            # What waits must not wait that much longer because the clock went back.
            if gap < 0 and child.state is ChildJobState.PENDING and (child.available or 0) > self.now:
                child.available = (child.available or 0) + gap
        self.mark = self.now

    # Looking up.

    def parent(self, parent_id: str) -> Parent:
        if parent_id not in self.parents:
            raise ParentJobNotFoundError(parent_id)
        return self.parents[parent_id]

    def open_session(self, session_id: str) -> Session:
        session = self.sessions.get(session_id)
        if session is None or session.state is SessionState.CLOSED:
            raise SessionUnknownError(session_id)
        return session

    def held(self, child: Child) -> Held:
        assert child.lease is not None
        return child.lease

    def live_children(self) -> Iterator[Child]:
        return (child for child in self.children.values() if child.lease is not None)

    def leases_of(self, session: Session) -> list[Child]:
        return [child for child in self.live_children() if self.held(child).session_id == session.id]

    # Changes.

    def move(self, child: Child, state: ChildJobState) -> None:
        """Change a child's state by itself, with an event of its own."""
        self.changes[(child.id, child.state, state)] += 1
        self._set(child, state)

    def move_many(self, parent: Parent, children: list[Child], state: ChildJobState, kind: str) -> None:
        """Change many children's state, with one event."""
        if children:
            self.bulk[(parent.id, kind)] += len(children)
        for child in children:
            self._set(child, state)

    def _set(self, child: Child, state: ChildJobState) -> None:
        child.state = state
        self.touch(child)
        self.seen[f"child: {state}"] += 1

    def touch(self, child: Child) -> None:
        self.touched.add(child.parent.id)
        self.touched_children.add(child.id)

    def settle(self, parent: Parent) -> None:
        """Decide the parent job's state from its children."""
        self.touched.add(parent.id)
        parent.state = self._state(parent)
        self.seen[f"parent: {parent.state}"] += 1
        if parent.state.final and parent.end_time is None:
            parent.end_time = self.now

    def _state(self, parent: Parent) -> ParentJobState:
        counts, policy = parent.counts, parent.spec.failure_policy
        failed, cancelled = counts[ChildJobState.FAILED], counts[ChildJobState.CANCELLED]
        allowed = {FailureMode.FAIL_FAST: 0, FailureMode.MAX_FAILED: policy.max_failed_children}
        tripped = failed > allowed.get(policy.mode, failed)
        if any(counts[state] for state in OPEN):
            return ParentJobState.CANCELLING if parent.cancel or tripped else ParentJobState.RUNNING
        if parent.cancel and cancelled:
            return ParentJobState.CANCELLED
        if tripped:
            return ParentJobState.FAILED
        if not failed and not cancelled:
            return ParentJobState.COMPLETED
        if counts[ChildJobState.COMPLETED] or counts[ChildJobState.SKIPPED]:
            return ParentJobState.PARTIALLY_COMPLETED
        return ParentJobState.FAILED if failed else ParentJobState.CANCELLED

    # The end of an attempt.

    def end_by_report(self, child: Child, report: Report) -> None:
        """End the live attempt as its worker says."""
        held, outcome = self.held(child), report.outcome
        child.ended[held.attempt] = (held.lease_id, report.report_id, outcome)
        self.seen[f"outcome: {outcome}"] += 1
        if outcome in (Outcome.COMPLETED, Outcome.SKIPPED):
            self._end(child, ChildJobState(outcome.value), verdict=report.verdict)
        elif outcome is Outcome.FAILED or (outcome is Outcome.CANCELLED and not held.stop):
            self._fail(child, report)
        elif held.stop:
            self._stop(child)
        else:
            wait = RELEASE_WAIT[str(report.released)] if report.retry_after is None else report.retry_after
            self._end(child, ChildJobState.PENDING, available=self.now + wait)

    def _fail(self, child: Child, report: Report) -> None:
        policy = child.parent.spec.retry_policy
        failure, retryable = "CANCELLED_BY_WORKER", True
        if report.failure is not None:
            failure, retryable = report.failure.reason, report.failure.retryable
        again = retryable and child.failures + 1 < policy.max_failures
        if again and self.held(child).stop:
            self._stop(child)
            return
        child.failures += 1
        wait = self._backoff(child, child.failures) if report.retry_after is None else report.retry_after
        if again:
            self._end(child, ChildJobState.PENDING, failure=failure, available=self.now + wait)
        else:
            self._end(child, ChildJobState.FAILED, failure=failure)

    def end_by_loss(self, child: Child, loss: Loss) -> None:
        """Take the live lease back without a report; only its running out costs the losses budget."""
        held, policy = self.held(child), child.parent.spec.retry_policy
        child.ended[held.attempt] = (held.lease_id, None, None)
        self.seen[f"loss: {loss}"] += 1
        child.losses += loss is Loss.EXPIRED
        if held.stop:
            self._stop(child)
        elif loss is not Loss.EXPIRED:
            self._end(child, ChildJobState.PENDING, available=self.now)
        elif child.losses >= policy.max_losses:
            self._end(child, ChildJobState.FAILED, failure="WORKER_LOST")
        else:
            available = self.now + self._backoff(child, child.losses)
            self._end(child, ChildJobState.PENDING, available=available)

    def _stop(self, child: Child) -> None:
        stop = self.held(child).stop
        self.seen[f"stop: {stop}"] += 1
        if stop is Stop.DEADLINE:
            self._end(child, ChildJobState.FAILED, failure="DEADLINE_EXCEEDED")
        else:
            self._end(child, ChildJobState.CANCELLED)

    def _end(
        self,
        child: Child,
        state: ChildJobState,
        *,
        verdict: Verdict | None = None,
        failure: str | None = None,
        available: Instant | None = None,
    ) -> None:
        child.lease, child.verdict, child.failure, child.available = None, verdict, failure, available
        child.delayed = available is not None and available > self.now
        self.move(child, state)

    def _backoff(self, child: Child, tries: int) -> Span:
        """Return the wait without jitter: chance stands at one half."""
        policy = child.parent.spec.retry_policy
        return int(min(policy.initial_backoff * policy.backoff_multiplier ** (tries - 1), policy.max_backoff))
