"""The machine that thinks up calls: every verb in any order, replayed, delayed and forged, over outages."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from manager_service.domain.leases import LogBatch
from manager_service.domain.model import SECOND, LogEntry
from manager_service.domain.ports import ChildJobFilter
from manager_service.domain.states import FailureMode, FailurePolicy, Outcome
from tests.property import stage
from tests.property.life import Life, call, calls, pick

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
outcomes = st.sampled_from([*Outcome, Outcome.COMPLETED, Outcome.FAILED, Outcome.CANCELLED])
spans = st.sampled_from([None, None, 0, 30 * SECOND])
limits = st.sampled_from([1, 2, 100])
targets = st.lists(st.sampled_from(stage.TARGETS), max_size=3, unique=True)
operations = st.sampled_from([stage.OPERATIONS, stage.OPERATIONS[:1], stage.OPERATIONS[1:]])


class StoreMachine(Life):
    """Every verb of the store as a step; ``step`` is the one rule."""

    @initialize()
    def begin(self) -> None:
        self.rig.mark_alive()
        for name in WORKERS:
            self.rig.register(stage.registration(name, self.new_id(), 0, 2))
        self.rig.register(stage.registration("carl", self.new_id(), 2, 1))
        self.rig.deregister(list(self.rig.oracle.sessions)[-1])
        for deadline in (None, self.rig.oracle.now + 30 * SECOND):
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

    @rule(step=st.deferred(lambda: steps))
    def step(self, step: tuple[str, dict[str, Any]]) -> None:
        name, arguments = step
        self.whole = False
        getattr(self, name)(**arguments)
        self.whole = True

    # Clients.

    @call(
        8,
        names=targets,
        offered=operations,
        priority=st.sampled_from([0, 0, 5]),
        limit=st.sampled_from([0, 0, 1, 2]),
        policy=policies,
        deadline=st.sampled_from([None, 20 * SECOND, 20 * SECOND, 5 * MINUTE]),
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

    @call(6, number=picks, verb=st.sampled_from(["cancel", "pause", "resume", "retry", "delete", "delete"]))
    def steer(self, number: int, verb: str) -> None:
        self.rig.parent_verb(verb, self.parent_id(number))

    @call(2, number=picks)
    def cancel_a_busy_one(self, number: int) -> None:
        busy = [parent.id for parent in self.rig.oracle.parents.values() if parent.live]
        if busy:
            self.rig.parent_verb("cancel", pick(number, busy))

    @call(2, number=picks)
    def retry_a_finished_one(self, number: int) -> None:
        finished = [parent.id for parent in self.rig.oracle.parents.values() if parent.state.final]
        if finished:
            self.rig.parent_verb("retry", pick(number, finished))

    @call(2, number=picks)
    def read(self, number: int) -> None:
        store, oracle, parent_id = self.rig.store, self.rig.oracle, self.parent_id(number)
        child_id = pick(number, [*list(oracle.children)[:3], "no child job"])
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
        name, instance = pick(number, WORKERS), self.new_id()
        if again and sessions:
            known = pick(number, sessions)
            name, instance = known.worker_name, known.instance_id
        identity = "another database" if other and number % 4 == 0 else ""
        self.rig.register(stage.registration(name, instance, offer, slots, identity))

    @call(3, number=picks)
    def deregister(self, number: int) -> None:
        self.rig.deregister(self.session_id(number))

    @call(12, number=picks, most=st.integers(1, 3))
    def acquire(self, number: int, most: int) -> None:
        session_id = self.session_id(number)
        self.rig.acquire(session_id, self.new_poll(session_id, most))

    @call(5, number=picks, back=st.integers(0, 3), forward=st.integers(0, 1))
    def acquire_again(self, number: int, back: int, forward: int) -> None:
        """Repeat a poll, or let one arrive that a later one overtook."""
        if self.rig.polls:
            session_id, poll = pick(-1 - number % 4, self.rig.polls)
            self.rig.acquire(session_id, replace(poll, sequence=max(1, poll.sequence - back + forward)))

    @call(8, number=picks, draining=st.sampled_from([False, False, False, True]))
    def heartbeat(self, number: int, draining: bool) -> None:
        self.new_beat(self.session_id(number), draining=draining)

    @call(6, number=picks, left_out=picks, times=st.integers(1, 2))
    def heartbeat_with_a_part(self, number: int, left_out: int, times: int) -> None:
        """Leave leases out of the inventory, and name one that was lost or is another's."""
        session_id = self.session_id(number)
        held = self.live_leases(session_id)
        partial = [lease for place, lease in enumerate(held) if not left_out >> place & 1]
        if self.rig.granted and number % 3 == 0:
            partial.append(pick(left_out, self.rig.granted)[1])
        for _ in range(times):
            self.new_beat(session_id, partial)

    @call(2, number=picks)
    def a_worker_forgets_a_lease(self, number: int) -> None:
        live = [granted for granted in self.rig.granted if self.is_live(granted[1])]
        if live:
            session_id, forgotten = pick(number, live)
            self.new_beat(session_id)
            for _ in range(2):
                self.new_beat(session_id, [held for held in self.live_leases(session_id) if held != forgotten])

    @call(1, number=picks)
    def heartbeat_again(self, number: int) -> None:
        """Let an older heartbeat arrive, or an equal one."""
        if self.rig.beats:
            self.rig.heartbeat(pick(number, self.rig.beats))

    @call(11, number=picks, outcome=outcomes, retryable=flags, wait=spans, following=flags)
    def report(self, number: int, outcome: Outcome, retryable: bool, wait: int | None, following: bool) -> None:
        live = [granted for granted in self.rig.granted if self.is_live(granted[1])]
        if live:
            session_id, lease = pick(number, live)
            report = self.new_report(lease, outcome, retryable=retryable, wait=wait)
            self.rig.report(session_id, [report], self.new_poll(session_id, 2) if following else None)

    @call(3, number=picks, outcome=outcomes, following=flags)
    def report_all(self, number: int, outcome: Outcome, following: bool) -> None:
        session_id = self.session_id(number)
        reports = [self.new_report(lease, outcome) for lease in self.live_leases(session_id)]
        poll = self.new_poll(session_id, 2) if following else None
        self.rig.report(session_id, [*reports, *reports[:1]], poll)

    @call(4, number=picks, outcome=outcomes)
    def report_late(self, number: int, outcome: Outcome) -> None:
        """Report a lease that may be gone, whatever became of its child."""
        if self.rig.granted:
            session_id, lease = pick(number, self.rig.granted)
            self.rig.report(session_id, [self.new_report(lease, outcome)])

    @call(3, number=picks, poll_again=flags)
    def report_again(self, number: int, poll_again: bool) -> None:
        if self.rig.reports:
            session_id, report = pick(number, self.rig.reports)
            polls = [poll for asked, poll in self.rig.polls if asked == session_id]
            self.rig.report(session_id, [report], polls[-1] if polls and poll_again else None)

    @call(5, number=picks, forgery=st.sampled_from(["session", "lease", "attempt", "child", "outcome"]))
    def report_forged(self, number: int, forgery: str) -> None:
        """Report a lease as nobody may who was not granted it."""
        if not self.rig.granted:
            return
        live = [granted for granted in self.rig.granted if self.is_live(granted[1])]
        session_id, lease = pick(number, live or self.rig.granted)
        report = self.new_report(lease, Outcome.COMPLETED)
        match forgery:
            case "session":
                session_id = self.session_id(number)
            case "lease":
                report = replace(report, lease_id=pick(number // 7, self.rig.granted)[1].lease_id)
            case "attempt":
                report = replace(report, attempt=lease.attempt + 1)
            case "child":
                report = replace(report, child_job_id=pick(number // 7, self.rig.granted)[1].child_job_id)
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
        self.rig.fail_overdue()

    @call(4, number=picks)
    def a_worker_falls_silent(self, number: int) -> None:
        """Let the leases of all but one worker run out."""
        beats = number % 2 == 0
        for _ in range(5):
            self.rig.live_on(self.rig.timing.heartbeat_interval)
            if beats:
                self.new_beat(self.session_id(number))
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


def _with_arguments(name: str) -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    return st.tuples(st.just(name), st.fixed_dictionaries(calls[name][1]))


steps: st.SearchStrategy[tuple[str, dict[str, Any]]] = st.sampled_from(
    [name for name, (weight, _) in calls.items() for _ in range(weight)]
).flatmap(_with_arguments)


def _id(parent: object) -> str | None:
    return getattr(parent, "id", None)


def _same(got: object, expected: object) -> None:
    assert got == expected
