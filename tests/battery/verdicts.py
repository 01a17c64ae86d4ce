"""What has to be true of jobs, events and targets after whatever happened to the processes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from google.protobuf.timestamp_pb2 import Timestamp

from overhaul.v1 import job_pb2 as job
from overhaul.v1 import job_service_pb2 as jobs
from tests.battery.deployment import Nap

FINAL = frozenset(
    {
        job.CHILD_JOB_STATE_COMPLETED,
        job.CHILD_JOB_STATE_FAILED,
        job.CHILD_JOB_STATE_CANCELLED,
        job.CHILD_JOB_STATE_SKIPPED,
    }
)
Attempts = Mapping[tuple[str, int], job.Attempt]


def assert_told_once(events: Sequence[jobs.JobEvent], children: Iterable[jobs.GetChildJobResponse]) -> None:
    """Assert that the events have no gap, and tell of each child a story that fits together and ends once."""
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    stories: dict[str, list[jobs.ChildJobChange]] = {}
    for event in events:
        if event.HasField("child_job"):
            stories.setdefault(event.child_job.child_job_id, []).append(event.child_job)
    for child in children:
        _assert_story(stories[child.child_job.id], child.child_job)


def _assert_story(story: Sequence[jobs.ChildJobChange], child: job.ChildJob) -> None:
    assert story[0].previous_state == job.CHILD_JOB_STATE_PENDING
    for before, after in pairwise(story):
        assert before.state == after.previous_state
        assert before.version < after.version
        # A new attempt is a new lease: what ends belongs to the newest one.
        assert after.attempts == before.attempts + (after.state == job.CHILD_JOB_STATE_LEASED)
    assert [change.state in FINAL for change in story] == [False] * (len(story) - 1) + [True]
    last = story[-1]
    assert (last.state, last.attempts, last.version) == (child.state, child.attempts, child.version)


def assert_recorded_once(child: jobs.GetChildJobResponse) -> None:
    """Assert that a completed child has one outcome, of its last attempt, and that every other was taken back."""
    assert child.child_job.state == job.CHILD_JOB_STATE_COMPLETED, child.child_job
    attempts = list(child.attempts)
    assert [attempt.attempt for attempt in attempts] == list(range(1, child.child_job.attempts + 1))
    assert [attempt.outcome == job.OUTCOME_COMPLETED for attempt in attempts] == [False] * (len(attempts) - 1) + [
        True
    ]
    assert len({attempt.lease_id for attempt in attempts}) == len(attempts)
    for attempt in attempts:
        assert attempt.HasField("end_time")
        assert not attempt.stale_reports or taken_back(attempt), attempt


def taken_back(attempt: job.Attempt) -> bool:
    """Tell whether the manager took the lease back without a report."""
    return attempt.outcome == job.OUTCOME_UNSPECIFIED and attempt.HasField("end_time")


def assert_granted_apart(attempts: Iterable[job.Attempt]) -> None:
    """Assert that no two leases on one target were live at the same time."""
    spans = sorted((_nanos(attempt.create_time), _nanos(attempt.end_time)) for attempt in attempts)
    for (_, end), (begin, _) in pairwise(spans):
        assert end <= begin


def overlaps(naps: Sequence[Nap], died: Mapping[int, int], end: int) -> Iterator[tuple[Nap, Nap]]:
    """Find the naps on one target that began before another was over: by its end or by the death of its worker."""
    for index, earlier in enumerate(naps):
        over = min(earlier.end or end, died.get(earlier.pid, end))
        for later in naps[index + 1 :]:
            if later.begin < over:
                yield earlier, later


def assert_done_apart(naps: Sequence[Nap], attempts: Attempts, died: Mapping[int, int], end: int) -> int:
    """Assert that naps overlap only where a lease was taken back from a worker that lived; return how many do.

    A worker that was kept from beating for as long as a lease lasts may still be at it when another begins:
    that is what the lock in a target is for, and a nap has none.
    """
    found = list(overlaps(naps, died, end))
    for earlier, later in found:
        assert taken_back(attempts[earlier.child_job_id, earlier.attempt]), (earlier, later)
    return len(found)


def assert_recorded_was_done(
    children: Iterable[jobs.GetChildJobResponse], naps: Iterable[Nap], names: Mapping[int, str]
) -> None:
    """Assert that the attempt that is recorded as completed really ended, in a process of the worker it names."""
    done = {(nap.child_job_id, nap.attempt): nap for nap in naps}
    for child in children:
        last = child.attempts[-1]
        nap = done[child.child_job.id, last.attempt]
        assert nap.end is not None
        assert names[nap.pid] == last.worker_name


def _nanos(time: Timestamp) -> int:
    return time.ToNanoseconds()
