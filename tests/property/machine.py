"""The machine that thinks up calls: every verb in any order, replayed, delayed and forged, over outages."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from manager_service.domain.leases import Heartbeat, HeldLease, Lease, LogBatch, Poll, ReleaseReason, Report
from manager_service.domain.model import SECOND, Failure, LogEntry
from manager_service.domain.ports import ChildJobFilter
from manager_service.domain.states import FailureCategory, FailureMode, FailurePolicy, Outcome, Verdict
from tests.property import stage
from tests.property.ledger import OPEN_SESSION
from tests.property.rig import Rig

T = TypeVar("T")

MINUTE = 60 * SECOND
WORKERS = ("anna", "bert")
PARENTS = 7

picks = st.integers(0, 999)
flags = st.booleans()
policies = st.sampled_from(
    [
        FailurePolicy(),
        FailurePolicy(),
        FailurePolicy(mode=FailureMode.FAIL_FAST),
        FailurePolicy(mode=FailureMode.MAX_FAILED, max_failed_children=1),
    ]
)
outcomes = st.sampled_from([*Outcome, Outcome.COMPLETED, Outcome.FAILED])
spans = st.sampled_from([None, None, 0, 30 * SECOND])
limits = st.sampled_from([1, 2, 100])
targets = st.lists(st.sampled_from(stage.TARGETS), max_size=3, unique=True)
operations = st.sampled_from([stage.OPERATIONS, stage.OPERATIONS[:1], stage.OPERATIONS[1:]])


Method = TypeVar("Method", bound=Callable[..., None])
_calls: dict[str, tuple[int, dict[str, st.SearchStrategy[Any]]]] = {}


def call(weight: int, **arguments: st.SearchStrategy[Any]) -> Callable[[Method], Method]:
    """Make a method one of the machine's steps, as likely as its weight says.

    One rule chooses among them all: Hypothesis would switch off most of thirty rules in each example, and a life
    without polls or without reports shows nothing.
    """

    def note(method: Method) -> Method:
        _calls[method.__name__] = (weight, arguments)
        return method

    return note


class StoreMachine(RuleBasedStateMachine):
    """One life of a store; ``opened`` is called with its rig, so that a test knows what was seen."""

    def __init__(self, new_url: Callable[[], str], opened: Callable[[Rig], None]) -> None:
        super().__init__()
        self.rig = Rig(new_url())
        self.number = 0
        opened(self.rig)

    @initialize()
    def begin(self) -> None:
        self.rig.mark_alive()
        for name in WORKERS:
            self.rig.register(stage.registration(name, self._new_id(), 0, 2))
        for deadline in (None, self.rig.oracle.now + MINUTE):
            plan = stage.plan(
                stage.TARGETS,
                stage.OPERATIONS,
                request_id=None,
                priority=0,
                max_parallel=0,
                failure_policy=FailurePolicy(),
                deadline=deadline,
            )
            self.rig.create(plan)

    def teardown(self) -> None:
        try:
            self.rig.check(everything=True)
        finally:
            self.rig.close()

    @rule(step=st.deferred(lambda: steps))
    def step(self, step: tuple[str, dict[str, Any]]) -> None:
        name, arguments = step
        getattr(self, name)(**arguments)

    @invariant()
    def agree(self) -> None:
        """Whatever was called, the store shows what the oracle expects."""
        self.rig.check()

    # Clients.

    @call(
        8,
        names=targets,
        offered=operations,
        priority=st.sampled_from([0, 0, 5]),
        limit=st.sampled_from([0, 0, 1, 2]),
        policy=policies,
        deadline=st.sampled_from([None, None, 20 * SECOND, 5 * MINUTE]),
    )
    def create(
        self,
        *,
        names: list[str],
        offered: Sequence[str],
        priority: int,
        limit: int,
        policy: FailurePolicy,
        deadline: int | None,
    ) -> None:
        if len(self.rig.oracle.parents) >= PARENTS:
            return
        self.number += 1
        plan = stage.plan(
            names,
            offered,
            request_id=f"request {self.number}" if self.number % 2 else None,
            priority=priority,
            max_parallel=limit,
            failure_policy=policy,
            deadline=None if deadline is None else self.rig.oracle.now + deadline,
        )
        self.rig.create(plan)

    @call(1, number=picks, other=flags)
    def create_again(self, number: int, other: bool) -> None:
        oracle = self.rig.oracle
        if not oracle.requests:
            return
        request_id, (known_hash, parent_id) = pick(number, list(oracle.requests.items()))
        spec = oracle.parents[parent_id].spec
        request_hash = "another" if other else known_hash
        plan = stage.plan(
            ["plain"],
            ["vacuum"],
            request_id=request_id,
            priority=spec.priority,
            max_parallel=0,
            failure_policy=spec.failure_policy,
            deadline=None,
        )
        self.rig.create(replace(plan, request_hash=request_hash))
        self.rig.drive(
            "requested_parent_job",
            self.rig.store.requested_parent_job(request_id, request_hash),
            lambda got: _same(got.id if got else None, _id(oracle.requested(request_id, request_hash))),
            writes=False,
        )

    @call(
        6, number=picks, verb=st.sampled_from(["cancel", "pause", "resume", "resume", "retry", "retry", "delete"])
    )
    def steer(self, number: int, verb: str) -> None:
        self.rig.parent_verb(verb, self._parent_id(number))

    @call(2, number=picks)
    def retry_a_finished_one(self, number: int) -> None:
        finished = [parent.id for parent in self.rig.oracle.parents.values() if parent.state.final]
        if finished:
            self.rig.parent_verb("retry", pick(number, finished))

    @call(1, number=picks)
    def read(self, number: int) -> None:
        store, oracle, parent_id = self.rig.store, self.rig.oracle, self._parent_id(number)
        child_id = pick(number, [*oracle.children, "no child job"])
        drive, found = self.rig.drive, oracle.parent
        drive("parent_job", store.parent_job(parent_id), lambda _: found(parent_id), writes=False)
        children = store.child_jobs(parent_id, ChildJobFilter(), limit=9)
        drive("child_jobs", children, lambda _: found(parent_id), writes=False)
        events = store.events(parent_id, after=0, limit=9)
        drive("events", events, lambda _: found(parent_id), writes=False)
        drive("child_job", store.child_job(child_id), lambda _: oracle.child(child_id), writes=False)
        logs = store.logs(child_id, attempt=0, offset=0, limit=9)
        drive("logs", logs, lambda _: oracle.child(child_id), writes=False)

    # Workers.

    @call(4, number=picks, again=flags, offer=st.integers(0, 2), slots=st.integers(1, 3), other=flags)
    def register(self, number: int, again: bool, offer: int, slots: int, other: bool) -> None:
        sessions = list(self.rig.oracle.sessions.values())
        name, instance = pick(number, WORKERS), self._new_id()
        if again and sessions:
            known = pick(number, sessions)
            name, instance = known.worker_name, known.instance_id
        identity = "another database" if other and number % 4 == 0 else ""
        self.rig.register(stage.registration(name, instance, offer, slots, identity))

    @call(3, number=picks)
    def deregister(self, number: int) -> None:
        session_id = self._session_id(number)
        call = self.rig.store.deregister(session_id)
        self.rig.drive("deregister", call, lambda _: self.rig.oracle.deregister(session_id))

    @call(12, number=picks, most=st.integers(1, 3))
    def acquire(self, number: int, most: int) -> None:
        session_id = self._session_id(number)
        self.rig.acquire(session_id, self._poll(session_id, most))

    @call(3, number=picks, back=st.integers(0, 3), forward=st.integers(0, 1))
    def acquire_again(self, number: int, back: int, forward: int) -> None:
        """Repeat a poll, or let one arrive that a later one overtook."""
        if self.rig.polls:
            session_id, poll = pick(-1 - number % 4, self.rig.polls)
            self.rig.acquire(session_id, replace(poll, sequence=max(1, poll.sequence - back + forward)))

    @call(8, number=picks, draining=st.sampled_from([False, False, False, True]))
    def heartbeat(self, number: int, draining: bool) -> None:
        self._beat(self._session_id(number), draining=draining)

    @call(6, number=picks, left_out=picks)
    def heartbeat_with_a_part(self, number: int, left_out: int) -> None:
        """Leave leases out of the inventory, and name one that was lost or is another's."""
        session_id = self._session_id(number)
        held = self._live(session_id)
        partial = [lease for place, lease in enumerate(held) if not left_out >> place & 1]
        if self.rig.granted:
            partial.append(pick(number, self.rig.granted)[1])
        self._beat(session_id, partial)

    @call(1, number=picks)
    def heartbeat_again(self, number: int) -> None:
        """Let an older heartbeat arrive, or an equal one."""
        if self.rig.beats:
            self.rig.heartbeat(pick(number, self.rig.beats))

    @call(14, number=picks, outcome=outcomes, retryable=flags, wait=spans, following=flags)
    def report(self, number: int, outcome: Outcome, retryable: bool, wait: int | None, following: bool) -> None:
        live = [granted for granted in self.rig.granted if self._is_live(granted[1])]
        if live:
            session_id, lease = pick(number, live)
            report = self._report(lease, outcome, retryable=retryable, wait=wait)
            self.rig.report(session_id, [report], self._poll(session_id, 2) if following else None)

    @call(3, number=picks, outcome=outcomes, following=flags)
    def report_all(self, number: int, outcome: Outcome, following: bool) -> None:
        session_id = self._session_id(number)
        reports = [self._report(lease, outcome) for lease in self._live(session_id)]
        poll = self._poll(session_id, 2) if following else None
        self.rig.report(session_id, [*reports, *reports[:1]], poll)

    @call(4, number=picks, outcome=outcomes)
    def report_late(self, number: int, outcome: Outcome) -> None:
        """Report a lease that may be gone, whatever became of its child."""
        if self.rig.granted:
            session_id, lease = pick(number, self.rig.granted)
            self.rig.report(session_id, [self._report(lease, outcome)])

    @call(3, number=picks, poll_again=flags)
    def report_again(self, number: int, poll_again: bool) -> None:
        if self.rig.reports:
            session_id, report = pick(number, self.rig.reports)
            polls = [poll for asked, poll in self.rig.polls if asked == session_id]
            self.rig.report(session_id, [report], polls[-1] if polls and poll_again else None)

    @call(3, number=picks, forgery=st.sampled_from(["session", "lease", "attempt", "child", "outcome"]))
    def report_forged(self, number: int, forgery: str) -> None:
        """Report a lease as nobody may who was not granted it."""
        if not self.rig.granted:
            return
        session_id, lease = pick(-1 - number % 6, self.rig.granted)
        report = self._report(lease, Outcome.COMPLETED)
        match forgery:
            case "session":
                session_id = self._session_id(number)
            case "lease":
                report = replace(report, lease_id=pick(number, self.rig.granted)[1].lease_id)
            case "attempt":
                report = replace(report, attempt=lease.attempt + 1)
            case "child":
                report = replace(report, child_job_id=pick(number, self.rig.granted)[1].child_job_id)
            case _:
                same = [report for _, report in self.rig.reports if report.lease_id == lease.lease_id]
                report = replace(same[0], outcome=Outcome.SKIPPED, verdict=None) if same else report
        self.rig.report(session_id, [report])

    @call(2, number=picks, offset=st.integers(0, 3), lines=st.integers(0, 2))
    def append_logs(self, number: int, offset: int, lines: int) -> None:
        if not self.rig.granted:
            return
        session_id, lease = pick(-1 - number % 4, self.rig.granted)
        batch = LogBatch(
            session_id=session_id,
            child_job_id=lease.child_job_id,
            lease_id=lease.lease_id,
            attempt=lease.attempt,
            offset=offset,
            entries=(LogEntry(time=0, level="info", message="line"),) * lines,
        )
        self.rig.drive(
            "append_logs", self.rig.store.append_logs(batch), lambda got: self.rig.oracle.append_logs(batch, got)
        )

    # Operators.

    @call(2, number=picks, terminate=flags)
    def drain(self, number: int, terminate: bool) -> None:
        name = pick(number, [*WORKERS, "nobody"])
        call = self.rig.store.drain_worker(name, terminate=terminate)
        self.rig.drive("drain_worker", call, lambda _: self.rig.oracle.drain(name, terminate=terminate))

    @call(1, number=picks, paused=flags)
    def pause_target(self, number: int, paused: bool) -> None:
        name = pick(number, [*stage.TARGETS, "nothing"])
        call = self.rig.store.pause_target(name, paused=paused)
        self.rig.drive("pause_target", call, lambda _: self.rig.oracle.pause_target(name, paused=paused))

    @call(2, number=picks)
    def forget_target(self, number: int) -> None:
        name = pick(number, [*stage.TARGETS, "spare", "spare", "nothing"])
        call = self.rig.store.forget_target(name)
        self.rig.drive("forget_target", call, lambda _: self.rig.oracle.forget_target(name))

    # Upkeep and time.

    @call(6)
    def upkeep(self) -> None:
        self.rig.release_due()
        self.rig.expire(100)
        self.rig.fail_overdue()
        for parent_id in sorted(self.rig.oracle.ending()):
            self.rig.sweep(parent_id, 100)

    @call(2, limit=limits)
    def expire(self, limit: int) -> None:
        self.rig.expire(limit)

    @call(2, number=picks, limit=limits)
    def sweep(self, number: int, limit: int) -> None:
        oracle = self.rig.oracle
        parent_id = pick(number, sorted(oracle.ending()) or list(oracle.parents) or ["no parent job"])
        if parent_id in oracle.parents:
            self.rig.sweep(parent_id, limit)

    @call(1, age=st.sampled_from([0, MINUTE]))
    def prune(self, age: int) -> None:
        self.rig.prune(age)
        call = self.rig.store.prune_sessions(age=age)
        self.rig.drive("prune_sessions", call, lambda got: self.rig.oracle.prune_sessions(age, got))

    @call(1, keep=st.integers(1, 5))
    def trim_events(self, keep: int) -> None:
        self.rig.drive("trim_events", self.rig.store.trim_events(keep=keep, limit=1_000), lambda _: None)

    @call(6, span=st.sampled_from([1, SECOND, 10 * SECOND, 21 * SECOND]))
    def time_passes(self, span: int) -> None:
        self.rig.live_on(span)
        self.rig.release_due()

    @call(4, number=picks)
    def a_worker_falls_silent(self, number: int) -> None:
        """Let the leases of all but one worker run out."""
        beats = number % 2 == 0
        for _ in range(5):
            self.rig.live_on(self.rig.timing.heartbeat_interval)
            if beats:
                self._beat(self._session_id(number))
        if number % 3:
            self.rig.expire(pick(number, [1, 100]))

    @call(1, span=st.sampled_from([21 * SECOND, 10 * MINUTE]))
    def the_manager_is_stopped(self, span: int) -> None:
        """Let time pass without a mark of life; the next call makes up for it, whichever that is."""
        self.rig.pass_time(span)

    @call(1, span=st.sampled_from([0, SECOND, 10 * MINUTE, -10 * MINUTE]))
    def the_manager_restarts(self, span: int) -> None:
        self.rig.restart(span)

    @call(1, span=st.sampled_from([MINUTE, -MINUTE]))
    def the_wall_clock_steps(self, span: int) -> None:
        self.rig.clock.step(span)

    # What rules choose from.

    def _new_id(self) -> str:
        self.number += 1
        return str(UUID(int=self.number))

    def _parent_id(self, number: int) -> str:
        """Return often a parent job with live leases, sometimes any, sometimes one that is gone."""
        parents = self.rig.oracle.parents.values()
        busy = [parent.id for parent in parents if parent.live]
        return pick(number, [*busy * 2, *[parent.id for parent in parents], self.rig.gone[-1]])

    def _session_id(self, number: int) -> str:
        """Return mostly an open session, sometimes any, sometimes none."""
        sessions = self.rig.oracle.sessions.values()
        still_open = [session.id for session in sessions if session.state in OPEN_SESSION]
        return pick(number, [*still_open * 4, *[session.id for session in sessions], "no session"])

    def _poll(self, session_id: str, most: int) -> Poll:
        last = max((poll.sequence for asked, poll in self.rig.polls if asked == session_id), default=0)
        return Poll(sequence=last + 1, max_leases=most)

    def _is_live(self, lease: Lease) -> bool:
        child = self.rig.oracle.children.get(lease.child_job_id)
        return child is not None and child.lease is not None and child.lease.lease_id == lease.lease_id

    def _live(self, session_id: str) -> list[Lease]:
        return [lease for holder, lease in self.rig.granted if holder == session_id and self._is_live(lease)]

    def _beat(self, session_id: str, leases: Sequence[Lease] | None = None, *, draining: bool = False) -> None:
        last = max((beat.sequence for beat in self.rig.beats if beat.session_id == session_id), default=0)
        listed = self._live(session_id) if leases is None else leases
        held = tuple(HeldLease(lease_id=lease.lease_id, attempt=lease.attempt) for lease in listed)
        self.rig.heartbeat(Heartbeat(session_id=session_id, sequence=last + 1, draining=draining, leases=held))

    def _report(
        self, lease: Lease, outcome: Outcome, *, retryable: bool = True, wait: int | None = None
    ) -> Report:
        self.number += 1
        failure = Failure(
            reason="SQLITE_BUSY", message="locked", category=FailureCategory.LOCKED, retryable=retryable
        )
        return Report(
            child_job_id=lease.child_job_id,
            lease_id=lease.lease_id,
            attempt=lease.attempt,
            report_id=f"report {self.number}",
            outcome=outcome,
            verdict=Verdict.EFFECTIVE if outcome is Outcome.COMPLETED else None,
            failure=failure if outcome is Outcome.FAILED else None,
            released=pick(self.number, list(ReleaseReason)) if outcome is Outcome.RELEASED else None,
            retry_after=wait,
        )


def _with_arguments(name: str) -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    return st.tuples(st.just(name), st.fixed_dictionaries(_calls[name][1]))


steps: st.SearchStrategy[tuple[str, dict[str, Any]]] = st.sampled_from(
    [name for name, (weight, _) in _calls.items() for _ in range(weight)]
).flatmap(_with_arguments)


def pick(number: int, choices: Sequence[T]) -> T:
    return choices[number % len(choices)]


def _id(parent: object) -> str | None:
    return getattr(parent, "id", None)


def _same(got: object, expected: object) -> None:
    assert got == expected
