"""The reader of events refuses what does not follow, and the plan of faults can be drawn again."""

import random
from collections.abc import Sequence

import pytest

from overhaul.v1 import job_pb2 as job
from overhaul.v1 import job_service_pb2 as jobs
from tests.battery.faults import Kind, plan
from tests.battery.stories import Story, assert_told_alike

PENDING, LEASED, RUNNING, COMPLETED, FAILED = (
    job.CHILD_JOB_STATE_PENDING,
    job.CHILD_JOB_STATE_LEASED,
    job.CHILD_JOB_STATE_RUNNING,
    job.CHILD_JOB_STATE_COMPLETED,
    job.CHILD_JOB_STATE_FAILED,
)
State = job.ChildJobState


class Told:
    """Writes events as a manager does, numbered from 1."""

    def __init__(self, children: int = 2) -> None:
        self.events: list[jobs.JobEvent] = []
        self._bulk(jobs.BULK_CHANGE_KIND_CREATED, children, job.ChildJobCounts(pending=children))

    def child(self, name: str, before: "State.ValueType", after: "State.ValueType", attempts: int = 1) -> "Told":
        change = jobs.ChildJobChange(
            child_job_id=name, previous_state=before, state=after, attempts=attempts, version=len(self.events)
        )
        self.events.append(jobs.JobEvent(sequence=len(self.events) + 1, child_job=change))
        return self

    def run(self, name: str, end: "State.ValueType", attempts: int = 1) -> "Told":
        return self.child(name, PENDING, LEASED, attempts).child(name, LEASED, end, attempts)

    def retried(self, number: int, counts: job.ChildJobCounts) -> "Told":
        self._bulk(jobs.BULK_CHANGE_KIND_RETRIED, number, counts)
        return self

    def cancelled(self, number: int, counts: job.ChildJobCounts) -> "Told":
        self._bulk(jobs.BULK_CHANGE_KIND_ENDED, number, counts)
        return self

    def _bulk(self, kind: jobs.BulkChangeKind.ValueType, affected: int, counts: job.ChildJobCounts) -> None:
        change = jobs.BulkChange(kind=kind, affected=affected, counts=counts)
        self.events.append(jobs.JobEvent(sequence=len(self.events) + 1, bulk=change))


def heard(told: Told, *, max_parallel: int = 0) -> Story:
    story = Story(max_parallel)
    for event in told.events:
        story.hear(event)
    return story


def kept(name: str, state: str, attempts: int) -> dict[str, object]:
    return {"id": name, "state": state, "attempts": attempts}


class TestStory:
    def test_of_two_rounds_and_a_cancel_fits_what_is_kept(self) -> None:
        told = Told(3).run("a", FAILED).run("b", COMPLETED)
        told.cancelled(1, job.ChildJobCounts(failed=1, completed=1, cancelled=1))
        told.retried(1, job.ChildJobCounts(pending=1, completed=1, cancelled=1)).run("a", COMPLETED, attempts=2)

        rounds = assert_told_alike(
            [told.events] * 3,
            [kept("a", "completed", 2), kept("b", "completed", 1), kept("c", "cancelled", 0)],
            max_parallel=0,
        )

        assert rounds == 2

    @pytest.mark.parametrize(
        "told",
        [
            pytest.param(
                Told().run("a", COMPLETED).child("a", COMPLETED, COMPLETED), id="an end in one round twice"
            ),
            pytest.param(Told().run("a", COMPLETED).run("a", COMPLETED, 2), id="a lease after the end"),
            pytest.param(Told().run("a", FAILED).run("a", FAILED, 2), id="a round that was not opened"),
            pytest.param(Told().child("a", PENDING, LEASED).child("a", PENDING, LEASED, 2), id="a doubled lease"),
            pytest.param(Told().run("a", COMPLETED, 2), id="an attempt left out"),
            pytest.param(Told().cancelled(2, job.ChildJobCounts(cancelled=1)), id="wrong counts"),
            pytest.param(Told(1).run("a", COMPLETED).run("b", COMPLETED), id="a child too many"),
        ],
    )
    def test_refuses(self, told: Told) -> None:
        with pytest.raises(AssertionError):
            heard(told)

    def test_refuses_a_gap_and_a_repeat(self) -> None:
        told = Told().run("a", COMPLETED)

        for events in (told.events[:1] + told.events[2:], told.events[:2] + told.events[1:]):
            told.events = events
            with pytest.raises(AssertionError, match="a gap"):
                heard(told)

    def test_refuses_more_live_children_than_may_be(self) -> None:
        told = Told().child("a", PENDING, LEASED).child("a", LEASED, RUNNING).child("b", PENDING, LEASED)

        heard(told, max_parallel=2)
        with pytest.raises(AssertionError, match="max_parallel"):
            heard(told, max_parallel=1)

    @pytest.mark.parametrize("state", ["failed", "pending", "cancelled"])
    def test_refuses_another_end_than_is_kept(self, state: str) -> None:
        story = heard(Told(1).run("a", COMPLETED))

        with pytest.raises(AssertionError):
            story.assert_ends_as([kept("a", state, 1)])

    def test_refuses_watchers_that_saw_different_things(self) -> None:
        told = Told(1).run("a", COMPLETED).events
        less: Sequence[jobs.JobEvent] = told[:-1]

        with pytest.raises(AssertionError):
            assert_told_alike([told, less], [kept("a", "completed", 1)], max_parallel=0)


class TestPlan:
    def test_of_a_seed_is_drawn_again_and_a_longer_one_goes_on(self) -> None:
        short, long = (list(plan(random.Random("7/0"), seconds)) for seconds in (60, 120))

        assert long[: len(short)] == short

    def test_has_every_kind_of_fault_within_a_minute(self) -> None:
        for seed in range(20):
            assert {fault.kind for fault in plan(random.Random(seed), 60)} == set(Kind)
