"""What the events of a parent job tell, read by someone who knows nothing else."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from overhaul.v1 import job_pb2 as job
from overhaul.v1 import job_service_pb2 as jobs
from tests.battery.verdicts import FINAL

_LIVE = frozenset({job.CHILD_JOB_STATE_LEASED, job.CHILD_JOB_STATE_RUNNING})
State: TypeAlias = "job.ChildJobState.ValueType"
_NAMES: Mapping[State, str] = {
    state: job.ChildJobState.Name(state).removeprefix("CHILD_JOB_STATE_").lower()
    for state in job.ChildJobState.values()
}


class Story:
    """Takes the events of one parent job in, one after the other, and refuses what does not follow."""

    def __init__(self, max_parallel: int) -> None:
        self._most = max_parallel
        self._sequence = 0
        self._counts: Counter[State] = Counter()
        self._children: dict[str, jobs.ChildJobChange] = {}
        # The round in which a child was told of last, and those in which it ended.
        self._told: dict[str, int] = {}
        self._ended: set[tuple[str, int]] = set()
        self.round = 1

    def hear(self, event: jobs.JobEvent) -> None:
        """Take the next event in."""
        self._sequence += 1
        assert event.sequence == self._sequence, "a gap"
        match event.WhichOneof("change"):
            case "child_job":
                self._hear_of_child(event.child_job)
            case "bulk":
                self._hear_of_many(event.bulk)
            case _:
                self._compare(event.parent_job.counts)

    def assert_ends_as(self, children: Iterable[Mapping[str, Any]]) -> None:
        """Assert that what was told last is what is kept."""
        for child in children:
            known = self._children.get(child["id"])
            state: State = job.CHILD_JOB_STATE_PENDING if known is None else self._state(child["id"], known)
            # The end of many children that wait is told in one event, which does not name them.
            silent = state == job.CHILD_JOB_STATE_PENDING and child["state"] == "cancelled"
            assert silent or _NAMES[state] == child["state"], child
            assert child["attempts"] == (known.attempts if known else 0)

    def _state(self, child_job_id: str, known: jobs.ChildJobChange) -> State:
        """Return the state that a child has by now: a new round opens all that failed."""
        reopened = known.state == job.CHILD_JOB_STATE_FAILED and self._told[child_job_id] < self.round
        return job.CHILD_JOB_STATE_PENDING if reopened else known.state

    def _hear_of_child(self, change: jobs.ChildJobChange) -> None:
        known = self._children.get(change.child_job_id)
        before: State = job.CHILD_JOB_STATE_PENDING
        attempts, version = 0, 0
        if known is not None:
            before, attempts, version = self._state(change.child_job_id, known), known.attempts, known.version
        assert change.previous_state == before, change
        assert change.version > version
        # A new attempt is a new lease: what ends belongs to the newest one.
        assert change.attempts == attempts + (change.state == job.CHILD_JOB_STATE_LEASED)
        if change.state in FINAL:
            assert (change.child_job_id, self.round) not in self._ended, "ended twice"
            self._ended.add((change.child_job_id, self.round))
        self._children[change.child_job_id] = change
        self._told[change.child_job_id] = self.round
        self._move(change.previous_state, change.state, 1)
        live = sum(self._counts[state] for state in _LIVE)
        assert not self._most or live <= self._most, "more than max_parallel"

    def _hear_of_many(self, change: jobs.BulkChange) -> None:
        match change.kind:
            case jobs.BULK_CHANGE_KIND_CREATED:
                self._counts[job.CHILD_JOB_STATE_PENDING] += change.affected
            case jobs.BULK_CHANGE_KIND_RETRIED:
                self.round += 1
                self._move(job.CHILD_JOB_STATE_FAILED, job.CHILD_JOB_STATE_PENDING, change.affected)
            case _:
                self._move(job.CHILD_JOB_STATE_PENDING, job.CHILD_JOB_STATE_CANCELLED, change.affected)
        self._compare(change.counts)

    def _move(self, before: State, after: State, number: int) -> None:
        self._counts[before] -= number
        self._counts[after] += number
        assert self._counts[before] >= 0

    def _compare(self, counts: job.ChildJobCounts) -> None:
        told = {_NAMES[state]: number for state, number in self._counts.items() if number}
        assert told == {name: number for name in _NAMES.values() if (number := getattr(counts, name, 0))}


def assert_told_alike(
    seen: Sequence[Sequence[jobs.JobEvent]], children: Sequence[Mapping[str, Any]], max_parallel: int
) -> int:
    """Assert that every watcher saw the same, that it has no gap and fits what is kept; return how many rounds."""
    first = seen[0]
    for other in seen[1:]:
        assert list(other) == list(first)
    story = Story(max_parallel)
    for event in first:
        story.hear(event)
    story.assert_ends_as(children)
    return story.round
