import asyncio
import uuid
from typing import Any

import grpc
import pytest

from overhaul.v1 import fleet_service_pb2, job_pb2, job_service_pb2, lease_service_pb2
from tests.contract.manager_harness import (
    NOBODY,
    TIMING,
    RunningManager,
    eventually,
    failed,
    refusal,
    result,
    served,
    span,
)

CONTINUE = lease_service_pb2.LEASE_DIRECTIVE_CONTINUE
CANCEL = lease_service_pb2.LEASE_DIRECTIVE_CANCEL
LOST = lease_service_pb2.LEASE_DIRECTIVE_LOST
SOON = 0.9
"""Seconds: many times what news take on a busy machine, and less than a call waits that nothing woke."""


def now() -> float:
    return asyncio.get_running_loop().time()


class TestRegisterWorker:
    async def test_it_opens_a_session_and_tells_the_timing(self, manager: RunningManager) -> None:
        worker = await manager.worker()

        answer = await worker.register()

        assert answer.session_id == worker.session_id
        assert answer.heartbeat_interval.ToMicroseconds() == TIMING.heartbeat_interval
        assert answer.lease_duration.ToMicroseconds() == TIMING.lease_duration
        assert answer.poll_window.ToMicroseconds() == TIMING.poll_window

    async def test_another_protocol_is_refused(self, manager: RunningManager) -> None:
        worker = await manager.worker()

        refused = await refusal(manager.leases.RegisterWorker(worker.registration(protocol_version=2)))

        assert refused.code is grpc.StatusCode.FAILED_PRECONDITION
        assert refused.reason == "PROTOCOL_VERSION_UNSUPPORTED"
        assert refused.metadata == {"given": "2", "supported": "1", "oldest_supported": "1"}

    async def test_a_poll_that_hangs_is_granted_what_a_target_that_was_added_waits_for(
        self, manager: RunningManager
    ) -> None:
        worker = await manager.worker("app")
        await manager.create("late", operations=("vacuum",), allow_unknown_targets=True)
        hanging = asyncio.create_task(worker.acquire(wait=2.5))
        await asyncio.sleep(0.1)

        begin = now()
        worker.targets = ("app", "late")
        await worker.register()

        [lease] = await hanging
        assert lease.target == "late"
        assert now() - begin < SOON

    async def test_a_target_that_was_removed_is_granted_no_more_and_its_lease_goes_on(
        self, manager: RunningManager
    ) -> None:
        worker = await manager.worker("app", "old")
        parent = await manager.create("old", operations=("vacuum", "analyze"))
        [lease] = await worker.acquire()
        worker.targets = ("app",)
        await worker.register()

        assert (await worker.beat(lease)).leases[0].directive == CONTINUE
        await worker.complete(lease)
        assert await worker.acquire() == []
        counts = (await manager.get(parent.id)).counts
        assert (counts.completed, counts.pending) == (1, 1)

    async def test_a_name_with_another_identity_is_refused(self, manager: RunningManager) -> None:
        await manager.worker()

        refused = await refusal(manager.worker(name="w2", targets=[served("app", identity="id:other")]))

        assert (refused.code, refused.reason) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "TARGET_IDENTITY_MISMATCH",
        )
        assert refused.metadata == {"target": "app", "known": "id:app", "given": "id:other"}

    async def test_a_newer_instance_takes_over(self, manager: RunningManager) -> None:
        older = await manager.worker()
        await manager.worker()

        polled = await refusal(older.poll())
        registered = await refusal(older.register())

        assert {polled.reason, registered.reason} == {"SESSION_SUPERSEDED"}
        assert (await older.beat()).directive == lease_service_pb2.WORKER_DIRECTIVE_TERMINATE

    async def test_a_poll_that_hangs_learns_of_a_newer_instance(self, manager: RunningManager) -> None:
        older = await manager.worker()
        hanging = asyncio.create_task(refusal(older.poll(wait=5)))
        await asyncio.sleep(0.05)

        begin = now()
        await manager.worker()

        assert (await hanging).reason == "SESSION_SUPERSEDED"
        assert now() - begin < SOON

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"worker_name": ""}, "worker_name"),
            ({"instance_id": "me"}, "instance_id"),
            ({"slots": 0}, "slots"),
            ({"targets": [served("a"), served("a")]}, "targets[1].name"),
            ({"targets": [served("a", max_parallel=-1)]}, "targets[0].max_parallel"),
            (
                {
                    "targets": [
                        served(
                            "a",
                            operations=[
                                lease_service_pb2.OfferedOperation(
                                    name="vacuum", options=[lease_service_pb2.OptionSpec(name="x")]
                                )
                            ],
                        )
                    ]
                },
                "targets[0].operations[0].options[0].type",
            ),
        ],
    )
    async def test_wrong_fields_are_named(
        self, manager: RunningManager, changes: dict[str, Any], field: str
    ) -> None:
        worker = await manager.worker()

        refused = await refusal(manager.leases.RegisterWorker(worker.registration(**changes)))

        assert refused.reason == "INVALID_REQUEST"
        assert list(refused.fields) == [field]

    async def test_a_parallelism_that_is_unset_is_one(self, manager: RunningManager) -> None:
        await manager.worker(targets=[served("app", max_parallel=0)])

        answer = await manager.fleet.ListTargets(fleet_service_pb2.ListTargetsRequest())

        assert answer.targets[0].max_parallel == 1


class TestAcquireLeases:
    async def test_a_lease_tells_all_that_is_needed(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        operations = [job_pb2.OperationSpec(name="vacuum", options={"full": "true"})]
        request = job_service_pb2.CreateParentJobRequest(targets=["app"], operations=operations, timeout=span(60))
        parent = (await manager.jobs.CreateParentJob(request)).parent_job

        [lease] = await worker.acquire()

        assert lease.parent_job_id == parent.id
        assert (lease.operation, lease.target, lease.attempt) == ("vacuum", "app", 1)
        assert lease.options == {"full": "true"}
        assert not lease.HasField("object")
        assert lease.lease_duration.ToMicroseconds() == TIMING.lease_duration
        assert lease.accept_within.ToMicroseconds() == TIMING.accept_within
        assert lease.timeout.ToSeconds() == 60

    async def test_a_poll_that_hangs_is_woken_within_milliseconds(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        hanging = asyncio.create_task(worker.acquire(wait=5))
        await asyncio.sleep(0.05)

        begin = now()
        await manager.create(operations=("vacuum",))
        leases = await hanging

        assert len(leases) == 1
        assert now() - begin < SOON

    async def test_nothing_to_do_is_an_empty_answer(self, manager: RunningManager) -> None:
        worker = await manager.worker()

        begin = now()

        assert await worker.acquire(wait=0.3) == []
        assert 0.25 < now() - begin < 1.8

    async def test_it_is_answered_before_the_callers_deadline(self, manager: RunningManager) -> None:
        worker = await manager.worker()

        assert await worker.acquire(wait=30, timeout=1) == []

    async def test_it_hangs_no_longer_than_the_poll_window(self, brisk: RunningManager) -> None:
        worker = await brisk.worker()

        begin = now()

        assert await worker.acquire(wait=60, timeout=60) == []
        assert 0.4 < now() - begin < 10

    async def test_the_same_sequence_again_answers_the_same_leases(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        await manager.create()
        leases = await worker.acquire()

        assert await worker.acquire(sequence=worker.polls) == leases

    async def test_a_lower_sequence_is_answered_empty(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        await manager.create()
        await worker.acquire(sequence=5)

        assert await worker.acquire(sequence=4) == []

    async def test_a_newer_poll_ends_the_older(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        older = asyncio.create_task(worker.acquire(wait=3))
        await asyncio.sleep(0.05)

        newer = asyncio.create_task(worker.acquire(wait=0.3))

        assert await older == []
        assert not newer.done()
        assert await newer == []

    async def test_a_next_poll_in_a_report_ends_the_older(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        older = asyncio.create_task(worker.acquire(wait=3))
        await asyncio.sleep(0.05)

        await worker.report(want=1)

        assert await older == []

    async def test_only_one_of_many_that_hang_gets_the_child(self, manager: RunningManager) -> None:
        workers = [await manager.worker(name=f"w{number}") for number in range(10)]
        hanging = [asyncio.create_task(worker.acquire(wait=0.5)) for worker in workers]
        await asyncio.sleep(0.1)

        await manager.create(operations=("vacuum",))

        assert sorted([len(await task) for task in hanging]) == [0] * 9 + [1]

    async def test_a_caller_that_vanished_gets_its_leases_by_asking_again(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        acquire = manager.store.acquire

        async def slow(session_id: str, poll: Any) -> Any:
            leases = await acquire(session_id, poll)
            if leases and not granted.done():
                granted.set_result(None)
                await asyncio.sleep(10)
            return leases

        manager.store.acquire = slow  # type: ignore[method-assign]  # the call is cut off right after the grant
        call = worker.poll(wait=5)
        await manager.create(operations=("vacuum",))
        await granted
        call.cancel()

        [lease] = await worker.acquire(sequence=worker.polls)
        assert lease.attempt == 1
        assert (await worker.beat(lease)).leases[0].directive == CONTINUE

    async def test_a_caller_that_vanished_for_good_loses_them_at_no_cost(self, brisk: RunningManager) -> None:
        worker = await brisk.worker()
        parent = await brisk.create(operations=("vacuum",))
        await worker.acquire()

        async def pending() -> bool:
            [child] = await brisk.children(parent.id)
            return bool(child.state == job_pb2.CHILD_JOB_STATE_PENDING)

        await eventually(pending, seconds=8)
        [child] = await brisk.children(parent.id)
        assert (child.failures, child.losses, child.attempts) == (0, 0, 1)

    async def test_a_worker_that_hangs_up_costs_the_others_nothing(self, manager: RunningManager) -> None:
        gone, there = await manager.worker(name="gone"), await manager.worker(name="there")
        call = gone.poll(wait=5)
        await asyncio.sleep(0.05)
        hanging = asyncio.create_task(there.acquire(wait=3))
        await asyncio.sleep(0.05)
        call.cancel()
        await asyncio.sleep(0.05)

        await manager.create(operations=("vacuum",))

        assert len(await hanging) == 1

    @pytest.mark.parametrize(
        ("options", "field"),
        [
            ({"sequence": 0}, "poll_sequence"),
            ({"most": 0}, "max_leases"),
            ({"most": 1_001}, "max_leases"),
            ({"wait": -1}, "wait"),
        ],
    )
    async def test_wrong_fields_are_named(
        self, manager: RunningManager, options: dict[str, Any], field: str
    ) -> None:
        worker = await manager.worker()

        refused = await refusal(worker.poll(**options))

        assert refused.reason == "INVALID_REQUEST"
        assert list(refused.fields) == [field]

    async def test_an_unknown_session_is_refused(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        worker.session_id = NOBODY

        for call in (worker.poll(), worker.beat(), worker.report()):
            refused = await refusal(call)
            assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SESSION_UNKNOWN")


class TestHeartbeat:
    async def test_it_accepts_and_renews(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        await manager.create(operations=("vacuum",))
        [lease] = await worker.acquire()

        answer = await worker.beat(lease)

        assert [(item.lease_id, item.directive) for item in answer.leases] == [(lease.lease_id, CONTINUE)]
        assert answer.directive == lease_service_pb2.WORKER_DIRECTIVE_NONE
        assert answer.lease_duration.ToMicroseconds() == TIMING.lease_duration
        child = (await manager.child(lease.child_job_id)).child_job
        assert child.state == job_pb2.CHILD_JOB_STATE_RUNNING

    async def test_one_that_hangs_learns_of_a_cancel_within_milliseconds(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        parent = await manager.create(operations=("vacuum",))
        [lease] = await worker.acquire()
        hanging = asyncio.ensure_future(worker.beat(lease, wait=2))
        await asyncio.sleep(0.1)
        assert not hanging.done()

        begin = now()
        await manager.cancel(parent.id)
        answer = await hanging

        assert answer.leases[0].directive == CANCEL
        assert now() - begin < SOON

    async def test_one_that_hangs_learns_of_a_drain(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        hanging = asyncio.ensure_future(worker.beat(wait=2))
        await asyncio.sleep(0.05)

        await manager.fleet.DrainWorker(fleet_service_pb2.DrainWorkerRequest(worker_name="w1"))

        assert (await hanging).directive == lease_service_pb2.WORKER_DIRECTIVE_DRAIN

    async def test_without_news_it_hangs_as_long_as_it_asks(self, manager: RunningManager) -> None:
        worker = await manager.worker()

        begin = now()
        await worker.beat(wait=0.3)

        assert 0.25 < now() - begin < 1.8

    async def test_a_newer_one_ends_the_older(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        older = asyncio.ensure_future(worker.beat(wait=2))
        await asyncio.sleep(0.05)

        begin = now()
        await worker.beat()
        await older

        assert now() - begin < SOON

    async def test_a_lease_that_is_unknown_is_lost(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        nothing = lease_service_pb2.Lease(lease_id=NOBODY, attempt=1)

        assert (await worker.beat(nothing)).leases[0].directive == LOST

    async def test_wrong_fields_are_named(self, manager: RunningManager) -> None:
        worker = await manager.worker()

        assert list((await refusal(worker.beat(sequence=0))).fields) == ["sequence"]
        assert list((await refusal(worker.beat(wait=-1))).fields) == ["wait"]


class TestReportResults:
    async def test_it_records_and_grants_the_next_in_one_call(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        await manager.create(operations=("vacuum", "analyze"))
        [lease] = await worker.acquire()

        answer = await worker.report(result(lease), want=1)

        assert answer.verdicts[0].status == lease_service_pb2.REPORT_STATUS_RECORDED
        assert [item.operation for item in answer.leases] == ["analyze"]

    async def test_what_it_measured_is_in_the_parent_jobs_totals(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        parent = await manager.create(operations=("vacuum",))
        [lease] = await worker.acquire()
        waiter = job_pb2.LockWaiter(application="billing", user="app", object="t", seconds=2.5, sessions=1)
        after = {"size_bytes": 5.0, "blocking_seconds": 2.5}

        await worker.report(result(lease, before={"size_bytes": 10.0}, after=after, lock_waiters=[waiter]))

        totals = (await manager.get(parent.id)).totals
        assert (totals.attempts, totals.sized_attempts, totals.bytes_reclaimed) == (1, 1, 5.0)
        assert (totals.blocking_attempts, totals.blocking_seconds) == (1, 2.5)
        assert not totals.HasField("lock_wait_seconds")
        assert list(totals.lock_waiters) == [waiter]

    async def test_the_exact_repeat_is_already_recorded(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        await manager.create(operations=("vacuum",))
        [lease] = await worker.acquire()
        report = result(lease)
        await worker.report(report)

        again = await worker.report(report)
        other = await worker.report(result(lease))

        assert again.verdicts[0].status == lease_service_pb2.REPORT_STATUS_ALREADY_RECORDED
        assert other.verdicts[0].status == lease_service_pb2.REPORT_STATUS_STALE
        assert other.verdicts[0].report_id != again.verdicts[0].report_id

    async def test_a_stale_report_is_kept_on_the_attempt(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        await manager.create(operations=("vacuum",))
        [lease] = await worker.acquire()
        await worker.report(result(lease))
        await worker.report(failed(lease))

        [attempt] = (await manager.child(lease.child_job_id)).attempts

        assert [stale.outcome for stale in attempt.stale_reports] == [job_pb2.OUTCOME_FAILED]

    async def test_a_release_costs_nothing(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        parent = await manager.create(operations=("vacuum",))
        [lease] = await worker.acquire()

        await worker.report(
            result(
                lease,
                outcome=job_pb2.OUTCOME_RELEASED,
                verdict=None,
                released=lease_service_pb2.RELEASE_REASON_DRAIN,
            )
        )

        [child] = await manager.children(parent.id)
        assert child.state == job_pb2.CHILD_JOB_STATE_PENDING
        assert (child.failures, child.losses) == (0, 0)

    async def test_a_failure_that_is_not_classified_counts_as_a_defect(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        parent = await manager.create(operations=("vacuum",))
        [lease] = await worker.acquire()

        await worker.report(failed(lease, failure=job_pb2.Failure(reason="X", message="x")))

        [child] = await manager.children(parent.id)
        assert child.failure.category == job_pb2.FAILURE_CATEGORY_INTERNAL

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"outcome": job_pb2.OUTCOME_UNSPECIFIED}, "results[0].outcome"),
            ({"outcome": 99}, "results[0].outcome"),
            ({"verdict": None}, "results[0].verdict"),
            ({"report_id": "again"}, "results[0].report_id"),
            ({"before": {"a": float("nan")}}, "results[0].before[a]"),
        ],
    )
    async def test_wrong_fields_are_named(
        self, manager: RunningManager, changes: dict[str, Any], field: str
    ) -> None:
        worker = await manager.worker()
        await manager.create(operations=("vacuum",))
        [lease] = await worker.acquire()

        refused = await refusal(worker.report(result(lease, **changes)))

        assert refused.reason == "INVALID_REQUEST"
        assert list(refused.fields) == [field]

    async def test_a_next_poll_for_nothing_is_none(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        await manager.create()
        request = lease_service_pb2.ReportResultsRequest(
            session_id=worker.session_id, want_next=lease_service_pb2.NextPoll(poll_sequence=1)
        )

        assert not (await manager.leases.ReportResults(request)).leases


class TestAppendLogs:
    def entries(self, worker: Any, lease: Any, offset: int = 0, **changes: Any) -> Any:
        fields: dict[str, Any] = {
            "session_id": worker.session_id,
            "child_job_id": lease.child_job_id,
            "lease_id": lease.lease_id,
            "attempt": lease.attempt,
            "offset": offset,
            "entries": [job_pb2.LogEntry(level="info", message="a")],
        }
        return worker.manager.leases.AppendLogs(lease_service_pb2.AppendLogsRequest(**(fields | changes)))

    async def test_entries_are_stored_once(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        await manager.create(operations=("vacuum",))
        [lease] = await worker.acquire()

        first = await self.entries(worker, lease)
        again = await self.entries(worker, lease)

        assert (first.next_offset, again.next_offset) == (1, 1)
        assert not first.lost

    async def test_a_gap_is_refused(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        await manager.create(operations=("vacuum",))
        [lease] = await worker.acquire()

        refused = await refusal(self.entries(worker, lease, 5))

        assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "LOG_GAP")
        assert refused.metadata == {"next_offset": "0"}

    async def test_lines_of_a_lease_that_is_gone_are_dropped(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        await manager.create(operations=("vacuum",))
        [lease] = await worker.acquire()

        assert (await self.entries(worker, lease, lease_id=str(uuid.uuid4()))).lost

    async def test_wrong_fields_are_named(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        lease = lease_service_pb2.Lease(lease_id="l", child_job_id=NOBODY, attempt=1)

        assert list((await refusal(self.entries(worker, lease, -1))).fields) == ["offset"]


class TestDeregisterWorker:
    async def test_it_ends_what_hangs_and_gives_leases_back(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        parent = await manager.create(operations=("vacuum",))
        await worker.acquire()
        polling = asyncio.create_task(worker.acquire(wait=3))
        beating = asyncio.ensure_future(worker.beat(wait=2))
        await asyncio.sleep(0.05)
        request = lease_service_pb2.DeregisterWorkerRequest(session_id=worker.session_id)

        begin = now()
        await manager.leases.DeregisterWorker(request)
        await polling
        await beating

        assert now() - begin < SOON
        [child] = await manager.children(parent.id)
        assert child.state == job_pb2.CHILD_JOB_STATE_PENDING
        assert (child.failures, child.losses) == (0, 0)

    async def test_an_unknown_session_is_fine(self, manager: RunningManager) -> None:
        await manager.leases.DeregisterWorker(lease_service_pb2.DeregisterWorkerRequest(session_id=NOBODY))
