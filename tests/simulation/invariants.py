"""What has to hold of every state of the store: DESIGN, section 3."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from manager_service.domain.states import ChildJobState, Counts, ParentJobState, parent_job_state
from manager_service.store.rows import counts_of, spec_of
from manager_service.store.tables import HELD
from tests.simulation.facts import Facts

_STATES = tuple(state.value for state in ChildJobState)
_OPEN_FINAL = frozenset(state.value for state in ChildJobState if state.final)


class ViolationError(AssertionError):
    """An invariant does not hold."""


def demand(condition: object, invariant: str, *about: object) -> None:
    """Raise ``ViolationError`` unless the condition holds."""
    if not condition:
        raise ViolationError(f"{invariant}: {', '.join(map(str, about))}")


Locks = Mapping[str, tuple[tuple[str, bool], ...]]


def check_state(facts: Facts, locks: Locks, max_parallel: Mapping[str, int]) -> None:
    """Check what needs no memory.

    Args:
        facts: the state.
        locks: the keys of each target's operations, each exclusive or not.
        max_parallel: of each target.
    """
    _check_leases(facts, locks, max_parallel)
    _check_parents(facts)
    _check_queue(facts)


def _check_leases(facts: Facts, locks: Locks, max_parallel: Mapping[str, int]) -> None:
    holders: dict[str, list[bool]] = {}
    expected: set[tuple[str, str, bool]] = set()
    for lease in facts.leases.values():
        child = facts.children[lease.child_id]
        demand(child.state == "pending", "the child of a live lease has not ended", child, lease)
        demand(lease.attempt == child.attempts + 1, "a lease is the child's next attempt", child, lease)
        demand(lease.session_id in facts.sessions, "a live lease has a session", lease)
        for key, exclusive in locks[lease.target]:
            holders.setdefault(key, []).append(exclusive)
            expected.add((key, lease.child_id, exclusive))
    for key, modes in holders.items():
        demand(len(modes) == 1 or not any(modes), "no two conflicting lock keys are live", key)
    kept = {(row.key, row.child_id, bool(row.exclusive)) for row in facts.locks}
    demand(kept == expected, "the locks are those of the live leases", kept ^ expected)
    for target, live in Counter(lease.target for lease in facts.leases.values()).items():
        demand(live <= max_parallel[target], "max_parallel of a target", target, live)
    for session, live in Counter(lease.session_id for lease in facts.leases.values()).items():
        demand(live <= facts.sessions[session].slots, "live leases never exceed slots", session, live)


def _check_parents(facts: Facts) -> None:
    counted: dict[str, Counter[str]] = {parent_id: Counter() for parent_id in facts.parents}
    for child in facts.children.values():
        lease = facts.leases.get(child.id)
        counted[child.parent_id][lease.state if lease else child.state] += 1
    for parent in facts.parents.values():
        kept = {state: getattr(parent, state) for state in _STATES}
        real = {state: counted[parent.id][state] for state in _STATES}
        demand(kept == real, "the counts are what the children are", parent.id, kept, real)
        spec, counts = spec_of(parent.spec), Counts(**kept)
        state = parent_job_state(counts, spec.failure_policy, cancel_requested=bool(parent.cancel_requested))
        demand(parent.state == state, "the parent's state follows from its children", parent, state)
        ended = parent.end_time is not None
        demand(ended == ParentJobState(parent.state).final, "an ended parent has an end time", parent)
        demand(not spec.max_parallel or counts.live <= spec.max_parallel, "max_parallel of a parent", parent)
        total = facts.totals.get(parent.id)
        last = total.last if total else 0
        demand(last == parent.sequence, "the counts row names the last event", parent, last)
        demand(total is None or total.number == last, "events are numbered without gaps", parent, total)


def _check_queue(facts: Facts) -> None:
    """Check that each pending child queues or has an open child before it: that it has a reason to wait."""
    heads: dict[tuple[str, int], Any] = {}
    for child in facts.children.values():
        parent = facts.parents[child.parent_id]
        queued = facts.queue.get(child.id)
        ahead = heads.get((child.parent_id, child.lane))
        if child.state in _OPEN_FINAL:
            demand(queued is None, "who has ended does not queue", child)
            continue
        heads.setdefault((child.parent_id, child.lane), child)
        if child.id in facts.leases:
            demand(ahead is None, "a predecessor ends before its successor begins", child, ahead)
            demand(queued is None, "who is leased does not queue", child)
        elif queued is None:
            waits = ahead is not None or parent.state == "cancelling"
            demand(waits, "a pending child queues or has a predecessor", child, parent)
        else:
            demand(ahead is None, "only the head of a lane queues", child, ahead)
            demand(bool(parent.paused) == (queued.hold == HELD), "paused heads are held", queued, parent)


class Memory:
    """What was seen before, to check how one state follows another.

    Args:
        now: the true time, in microseconds.
        outages: how long managers were out since a moment, each outage counted that has to be made up for.
        store_time: the store's time.
        lease_duration: how long a lease lives unless it is renewed.
    """

    def __init__(
        self,
        *,
        now: Callable[[], int],
        outages: Callable[[int], int],
        store_time: Callable[[], int | None],
        lease_duration: int,
    ) -> None:
        self._now = now
        self._outages = outages
        self._store_time = store_time
        self._lease_duration = lease_duration
        self._last: Facts | None = None
        self._attempts: dict[tuple[str, int], Any] = {}
        self._granted: dict[tuple[str, int], str] = {}
        self._reports: dict[str, tuple[str, int]] = {}
        self._renewed: dict[str, tuple[int, int]] = {}
        self._told: dict[str, Told] = {}
        self.ended = 0
        self.lost = 0

    def check(self, facts: Facts) -> None:
        """Check a state against what was seen before, and remember it."""
        self._check_attempts(facts)
        if self._last is not None:
            self._check_children(self._last, facts)
        self._check_leases(facts)
        self._check_events(facts)
        self._last = facts

    def told(self, child_id: str, attempt: int, lease_id: str, report_id: str) -> None:
        """Check that a report whose worker was told that it is recorded is the recorded one."""
        row = self._attempts.get((child_id, attempt))
        recorded = row is not None and (row.lease_id, row.report_id) == (lease_id, report_id)
        demand(recorded, "a worker told RECORDED is the recorded one", child_id, attempt, report_id, row)

    def _check_attempts(self, facts: Facts) -> None:
        demand(len(facts.attempts) >= len(self._attempts), "attempts are never taken away", len(self._attempts))
        for row in facts.attempts:
            key = (row.child_id, row.attempt)
            known = self._attempts.get(key)
            if known is not None:
                demand(row == known, "an ended attempt is never changed", known, row)
                continue
            self._attempts[key] = row
            self.ended += 1
            demand(self._granted.get(key) == row.lease_id, "an attempt ends under the lease it was granted", row)
            if row.report_id is not None:
                first = self._reports.setdefault(row.report_id, key)
                demand(first == key, "a report is recorded once", first, row)

    def _check_children(self, before: Facts, facts: Facts) -> None:
        for child_id, was in before.children.items():
            child = facts.children[child_id]
            if child == was:
                continue
            demand(child.version > was.version, "a child's version grows with each change", was, child)
            demand(child.attempts >= was.attempts, "the attempt only grows", was, child)
            if was.state in _OPEN_FINAL:
                rounds = before.parents[child.parent_id].round, facts.parents[child.parent_id].round
                demand(rounds[0] < rounds[1], "a terminal state is written once per child and round", was, child)
                demand(was.state == "failed", "a new round opens failed children only", was, child)
            spec = spec_of(facts.parents[child.parent_id].spec)
            demand(child.losses <= spec.retry_policy.max_losses, "the budget of losses", child)
            demand(child.failures <= spec.retry_policy.max_failures, "the budget of failures", child)
            if child.losses > was.losses:
                self._check_expiry(before.leases[child_id])

    def _check_expiry(self, lease: Any) -> None:
        self.lost += 1
        renewed, _ = self._renewed[lease.lease_id]
        counted = self._now() - renewed - self._outages(renewed)
        demand(counted > self._lease_duration, "no lease expires by an outage", lease, counted)

    def _check_leases(self, facts: Facts) -> None:
        store_time = self._store_time()
        for lease in facts.leases.values():
            known = self._granted.setdefault((lease.child_id, lease.attempt), lease.lease_id)
            demand(known == lease.lease_id, "an attempt number is never handed out again", known, lease)
            seen = self._renewed.get(lease.lease_id)
            renewed = store_time is not None and lease.expire_time == store_time + self._lease_duration
            if seen is None or (renewed and seen[1] != lease.expire_time):
                self._renewed[lease.lease_id] = self._now(), lease.expire_time

    def _check_events(self, facts: Facts) -> None:
        """Check that the events, folded, give the states and counts that there are."""
        for event in facts.events:
            self._told.setdefault(event.parent_id, Told()).take(event)
        for parent_id, told in self._told.items():
            parent = facts.parents[parent_id]
            kept = {state: getattr(parent, state) for state in _STATES if getattr(parent, state)}
            demand(told.counted() == kept, "the events tell every change", parent, told.counted())
            for child_id, state in told.states.items():
                lease, child = facts.leases.get(child_id), facts.children[child_id]
                real = lease.state if lease else child.state
                demand(state == real, "the events tell what became of a child", state, child, lease)


class Told:
    """What a watcher knows of a parent job: the fold of its events."""

    def __init__(self) -> None:
        self.states: dict[str, str] = {}
        self._counts: Counter[str] = Counter()
        self._last = 0

    def take(self, event: Any) -> None:
        """Apply the next event."""
        demand(event.sequence == self._last + 1, "every event comes once and in order", self._last, event)
        self._last = event.sequence
        if event.kind == "child":
            was = self.states.get(event.child_id, event.previous_state)
            demand(was == event.previous_state, "an event begins where the last one ended", was, event)
            self.states[event.child_id] = event.state
            self._counts[event.previous_state] -= 1
            self._counts[event.state] += 1
            return
        kept = counts_of(event.counts)
        counts = Counter({state: number for state in _STATES if (number := getattr(kept, state))})
        if event.kind == "parent":
            demand(self.counted() == counts, "an event of the parent has the counts so far", self._counts, event)
            return
        # Bulk events name no children: what they may have changed is not known until the next event.
        self._counts = counts
        self.states = {child: state for child, state in self.states.items() if state not in ("pending", "failed")}

    def counted(self) -> dict[str, int]:
        """Return how many children are in each state that has any."""
        return {state: number for state, number in self._counts.items() if number}
