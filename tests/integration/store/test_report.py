from dataclasses import replace

import pytest

from manager_service.domain.errors import SessionUnknownError
from manager_service.domain.leases import Poll, ReleaseReason, ReportStatus
from manager_service.domain.model import SECOND
from manager_service.domain.ports import JobStore
from manager_service.domain.states import (
    ChildJobState,
    FailureMode,
    FailurePolicy,
    Outcome,
    ParentJobState,
    Verdict,
    WaitReason,
)
from tests.factories import World, failure, report_of

RECORDED, ALREADY, STALE = ReportStatus.RECORDED, ReportStatus.ALREADY_RECORDED, ReportStatus.STALE


class TestReport:
    async def test_a_completed_child_tells_what_was_done(self, world: World) -> None:
        worker, lease = await world.running_child_job()
        world.clock.pass_time(5)

        status = await worker.end(
            lease, verdict=Verdict.NO_EFFECT, reason="tight already", before={"pages": 3.5}, after={"pages": 3}
        )

        child, [attempt] = await world.store.child_job(lease.child_job_id)
        parent = await world.store.parent_job(lease.parent_job_id)
        assert status is RECORDED
        assert (child.state, child.verdict, child.reason) == (
            ChildJobState.COMPLETED,
            Verdict.NO_EFFECT,
            "tight already",
        )
        assert (child.before, child.after) == ({"pages": 3.5}, {"pages": 3})
        assert (child.end_time, child.worker_name, child.available_time) == (world.clock.wall(), "", None)
        assert (attempt.outcome, attempt.end_time) == (Outcome.COMPLETED, world.clock.wall())
        assert (parent.state, parent.end_time) == (ParentJobState.COMPLETED, world.clock.wall())
        await world.check(parent.id)

    async def test_a_report_accepts_too(self, world: World) -> None:
        worker, lease = await world.leased_child_job()

        assert await worker.end(lease) is RECORDED
        _, [attempt] = await world.store.child_job(lease.child_job_id)
        assert attempt.start_time == world.clock.wall()

    async def test_a_retryable_failure_waits_and_is_tried_again(self, world: World) -> None:
        worker, lease = await world.running_child_job()
        await worker.end(lease, Outcome.FAILED, retry_after=30 * SECOND)

        child = (await world.store.child_job(lease.child_job_id))[0]
        assert (child.state, child.failures, child.failure) == (ChildJobState.PENDING, 1, failure())
        assert child.available_time == world.clock.wall() + 30 * SECOND
        assert (child.wait_reason, child.wait_detail) == (WaitReason.AVAILABLE_TIME, "locked")
        assert await worker.acquire() == ()

        await world.live_on(30 * SECOND)
        assert await world.store.release_due() == 1
        [again] = await worker.acquire()
        assert (again.attempt, again.lease_id != lease.lease_id) == (2, True)
        await world.check(lease.parent_job_id)

    async def test_the_failures_budget_ends(self, world: World) -> None:
        worker, lease = await world.leased_child_job()
        for _ in range(2):
            await worker.end(lease, Outcome.FAILED, retry_after=0)
            [lease] = await worker.acquire()
        await worker.end(lease, Outcome.FAILED)

        child, attempts = await world.store.child_job(lease.child_job_id)
        assert (child.state, child.failures, child.attempts) == (ChildJobState.FAILED, 3, 3)
        assert [a.outcome for a in attempts] == [Outcome.FAILED] * 3
        assert await world.state(lease.parent_job_id) is ParentJobState.FAILED

    async def test_a_release_costs_nothing(self, world: World) -> None:
        worker, lease = await world.running_child_job()
        await worker.end(lease, Outcome.RELEASED, released=ReleaseReason.TARGET_BUSY)

        child = (await world.store.child_job(lease.child_job_id))[0]
        assert (child.state, child.failures, child.losses, child.attempts) == (ChildJobState.PENDING, 0, 0, 1)
        assert child.available_time == world.clock.wall() + 2 * SECOND

    async def test_a_drained_child_can_be_leased_at_once(self, world: World) -> None:
        worker, lease = await world.running_child_job()
        other = await world.worker("orders", worker_name="bert")

        await worker.end(lease, Outcome.RELEASED)

        assert len(await other.acquire()) == 1

    async def test_the_next_leases_come_with_the_answer(self, world: World) -> None:
        worker, lease = await world.leased_child_job(operations=("vacuum", "analyze"))

        answer = await world.store.report(worker.session_id, [report_of(lease)], worker.poll())
        again = await world.store.report(
            worker.session_id, [report_of(lease)], Poll(sequence=worker.polls, max_leases=9)
        )

        assert [lease.operation for lease in answer.leases] == ["analyze"]
        assert again.leases == answer.leases

    async def test_a_report_that_ends_nothing_frees_no_slot(self, world: World) -> None:
        worker = await world.worker("a", "b", slots=1)
        other = await world.worker("c", worker_name="other")
        await world.parent_job("a", "b", "c", operations=("vacuum", "analyze"))
        [first] = await worker.acquire()
        [foreign] = await other.acquire()
        await worker.end(first)
        assert len(await worker.acquire()) == 1

        reports = [report_of(first), report_of(first), report_of(foreign)]
        answer = await world.store.report(worker.session_id, reports, worker.poll())

        assert ReportStatus.RECORDED not in answer.statuses
        assert answer.leases == ()

    async def test_an_unknown_session_is_refused(self, store: JobStore) -> None:
        with pytest.raises(SessionUnknownError):
            await store.report("none", [], None)

    async def test_the_results_of_a_call_are_independent(self, world: World) -> None:
        worker = await world.worker("a", "b")
        await world.parent_job("a", "b")
        first, second = await worker.acquire()
        good = report_of(first)

        answer = await world.store.report(
            worker.session_id,
            [good, replace(report_of(second), lease_id="other"), good, report_of(second)],
            None,
        )

        assert answer.statuses == (RECORDED, STALE, ALREADY, RECORDED)


class TestTerminalOutcomesAreWrittenOnce:
    async def test_an_exact_replay_is_already_recorded(self, world: World) -> None:
        worker, lease = await world.running_child_job()
        report = report_of(lease)
        await world.store.report(worker.session_id, [report], None)
        before = await world.store.parent_job(lease.parent_job_id)

        answer = await world.store.report(worker.session_id, [report], None)

        assert answer.statuses == (ALREADY,)
        assert await world.store.parent_job(lease.parent_job_id) == before

    async def test_a_replay_is_recognised_while_the_next_attempt_runs(self, world: World) -> None:
        worker, lease = await world.running_child_job()
        report = report_of(lease, Outcome.RELEASED)
        await world.store.report(worker.session_id, [report], worker.poll())

        assert (await world.store.report(worker.session_id, [report], None)).statuses == (ALREADY,)

    @pytest.mark.parametrize(
        "other",
        [
            {"report_id": "another"},
            {"outcome": Outcome.SKIPPED},
            {"lease_id": "another"},
            {"attempt": 2},
            {"child_job_id": "another"},
        ],
    )
    async def test_anything_else_is_stale_and_changes_nothing(
        self, world: World, other: dict[str, object]
    ) -> None:
        worker, lease = await world.running_child_job()
        report = report_of(lease)
        await world.store.report(worker.session_id, [report], None)
        before = await world.store.parent_job(lease.parent_job_id)
        child = (await world.store.child_job(lease.child_job_id))[0]

        late = replace(report, **other)  # type: ignore[arg-type]  # one field of any type
        answer = await world.store.report(worker.session_id, [late], None)

        assert answer.statuses == (STALE,)
        assert await world.store.parent_job(lease.parent_job_id) == before
        assert (await world.store.child_job(lease.child_job_id))[0] == child

    async def test_a_stale_report_is_kept_on_its_attempt_once(self, world: World) -> None:
        worker, lease = await world.lost_lease()
        late = report_of(lease, Outcome.FAILED)
        for _ in range(2):
            assert (await world.store.report(worker.session_id, [late], None)).statuses == (STALE,)

        _, [attempt] = await world.store.child_job(lease.child_job_id)
        [stale] = attempt.stale_reports
        assert (stale.report_id, stale.outcome, stale.reason) == (late.report_id, Outcome.FAILED, "locked")

    async def test_stale_reports_are_bounded(self, world: World) -> None:
        worker, lease = await world.lost_lease()
        for _ in range(12):
            await worker.end(lease)

        _, [attempt] = await world.store.child_job(lease.child_job_id)
        assert len(attempt.stale_reports) == 8

    async def test_a_stale_report_of_a_live_attempt_is_kept_too(self, world: World) -> None:
        worker, lease = await world.running_child_job()
        await world.store.report(worker.session_id, [replace(report_of(lease), lease_id="forged")], None)

        child, [attempt] = await world.store.child_job(lease.child_job_id)
        assert child.state is ChildJobState.RUNNING
        assert len(attempt.stale_reports) == 1


class TestCompareAndSet:
    async def test_a_report_by_another_worker_is_stale(self, world: World) -> None:
        _, lease = await world.running_child_job()
        other = await world.worker("users", worker_name="bert")

        assert await other.end(lease) is STALE
        assert (await world.store.child_job(lease.child_job_id))[0].state is ChildJobState.RUNNING

    async def test_a_report_of_an_earlier_attempt_is_stale(self, world: World) -> None:
        worker, lease = await world.lost_lease()
        await world.live_on(60 * SECOND)
        await world.store.release_due()
        [newer] = await worker.acquire()

        assert await worker.end(lease) is STALE
        assert await worker.end(newer) is RECORDED
        await world.check(lease.parent_job_id)

    async def test_a_report_of_a_lease_that_ran_out_is_accepted(self, world: World) -> None:
        worker, lease = await world.expired_lease()

        assert await worker.end(lease) is RECORDED

    async def test_a_superseded_session_may_report_but_is_granted_nothing(self, world: World) -> None:
        worker, lease = await world.running_child_job(operations=("vacuum", "analyze"))
        await world.worker("orders")

        answer = await world.store.report(worker.session_id, [report_of(lease)], worker.poll())

        assert (answer.statuses, answer.leases) == ((RECORDED,), ())


class TestFailurePolicy:
    async def test_running_children_finish_when_it_trips(self, world: World) -> None:
        worker = await world.worker("a", "b", "c", slots=2)
        policy = FailurePolicy(mode=FailureMode.FAIL_FAST)
        parent = await world.parent_job("a", "b", "c", failure_policy=policy)
        first, second = await worker.acquire()
        await worker.end(first, Outcome.FAILED, failure=failure(retryable=False))
        assert await world.state(parent.id) is ParentJobState.CANCELLING
        assert await world.store.ending_parent_jobs() == (parent.id,)

        assert await world.store.sweep(parent.id, limit=10) is False
        await worker.end(second)

        ended = await world.store.parent_job(parent.id)
        assert (ended.state, ended.counts.cancelled, ended.counts.completed) == (ParentJobState.FAILED, 1, 1)
        child = (await world.children(parent))[2]
        assert child.reason == "the failure policy ended the job"
        await world.check(parent.id)

    async def test_a_child_that_would_be_tried_again_is_swept(self, world: World) -> None:
        worker = await world.worker("a", "b")
        policy = FailurePolicy(mode=FailureMode.FAIL_FAST)
        parent = await world.parent_job("a", "b", failure_policy=policy)
        first, second = await worker.acquire()
        await worker.end(first, Outcome.FAILED, failure=failure(retryable=False))
        world.hints.clear()

        await worker.end(second, Outcome.RELEASED)

        assert world.hints[-1].ending == {parent.id}
        await world.store.sweep(parent.id, limit=10)
        assert await world.state(parent.id) is ParentJobState.FAILED
        await world.check(parent.id)


class TestTheFence:
    async def test_the_right_lease_with_a_wrong_attempt_is_stale(self, world: World) -> None:
        worker, lease = await world.leased_child_job()
        forged = replace(report_of(lease), attempt=lease.attempt + 1)

        answer = await world.store.report(worker.session_id, [forged], None)

        child, _ = await world.store.child_job(lease.child_job_id)
        assert answer.statuses == (ReportStatus.STALE,)
        assert child.state is ChildJobState.LEASED
