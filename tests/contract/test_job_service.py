import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from overhaul.v1 import job_pb2, job_service_pb2
from tests.contract.manager_harness import (
    NOBODY,
    RunningManager,
    eventually,
    failed,
    refusal,
    result,
    running,
    served,
    settings_on,
    span,
)

Create = job_service_pb2.CreateParentJobRequest


def moment(**ahead: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(datetime.now(UTC) + timedelta(**ahead))
    return stamp


class TestCreateParentJob:
    async def test_it_makes_a_child_per_target_and_operation(self, manager: RunningManager) -> None:
        await manager.worker("a", "b")

        parent = await manager.create("a", "b", labels={"team": "x"})

        children = await manager.children(parent.id)
        assert parent.state == job_pb2.PARENT_JOB_STATE_RUNNING
        assert parent.type == "database_maintenance_parent"
        assert (parent.counts.total, parent.counts.pending) == (6, 6)
        assert parent.name == "vacuum, analyze, reindex on a and 1 more"
        assert parent.labels == {"team": "x"}
        assert parent.retry_policy.max_failures == 3
        assert parent.retry_policy.initial_backoff.ToSeconds() == 10
        assert [(child.target, child.operation, child.position) for child in children] == [
            ("a", "vacuum", 0),
            ("a", "analyze", 1),
            ("a", "reindex", 2),
            ("b", "vacuum", 3),
            ("b", "analyze", 4),
            ("b", "reindex", 5),
        ]
        assert {child.type for child in children} == {"database_maintenance_operation"}

    async def test_the_same_request_id_answers_the_same_job(self, manager: RunningManager) -> None:
        await manager.worker()

        first = await manager.create(request_id="r1")
        again = await manager.create(request_id="r1")

        assert again.id == first.id

    async def test_a_late_repeat_is_answered_though_its_deadline_has_passed(self, manager: RunningManager) -> None:
        await manager.worker()
        deadline = moment(milliseconds=200)

        first = await manager.create(request_id="r1", deadline=deadline)
        await asyncio.sleep(0.25)
        again = await manager.create(request_id="r1", deadline=deadline)

        assert again.id == first.id

    async def test_the_same_request_id_with_another_request_is_refused(self, manager: RunningManager) -> None:
        await manager.worker()
        first = await manager.create(request_id="r1")

        refused = await refusal(manager.create(request_id="r1", priority=5))

        assert refused.code is grpc.StatusCode.ALREADY_EXISTS
        assert refused.reason == "REQUEST_ID_REUSED"
        assert refused.metadata["parent_job_id"] == first.id

    async def test_an_unknown_target_is_refused_with_near_names(self, manager: RunningManager) -> None:
        await manager.worker("orders")

        refused = await refusal(manager.create("order"))

        assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "TARGET_NOT_FOUND")
        assert refused.metadata == {"target": "order", "near": "orders"}

    async def test_many_targets_are_read_in_pages(self, manager: RunningManager) -> None:
        names = [f"t{number}" for number in range(2_500)]
        await manager.worker(*names)

        parent = await manager.create(*names, operations=("reindex", "vacuum"))
        refused = await refusal(manager.create(*names, "x", operations=("vacuum",)))
        misspelt = await refusal(manager.create(*names, operations=("vacum",)))

        assert parent.counts.pending == 5_000
        assert [child.operation for child in await manager.children(parent.id, page_size=2)] == [
            "reindex",
            "vacuum",
        ]
        assert refused.metadata["target"] == "x"
        assert "did you mean vacuum" in misspelt.fields["operations[0].name"]

    async def test_an_unknown_target_waits_for_a_worker_when_that_is_allowed(
        self, manager: RunningManager
    ) -> None:
        parent = await manager.create("later", operations=("vacuum",), allow_unknown_targets=True)

        [child] = await manager.children(parent.id)

        assert child.wait_reason == job_pb2.WAIT_REASON_NO_WORKER

    async def test_labels_select_targets(self, manager: RunningManager) -> None:
        await manager.worker(targets=[served("a", labels={"env": "prod"}), served("b")])

        answer = await manager.jobs.CreateParentJob(
            Create(target_labels={"env": "prod"}, operations=[job_pb2.OperationSpec(name="vacuum")])
        )

        assert [child.target for child in await manager.children(answer.parent_job.id)] == ["a"]

    async def test_a_dry_run_stores_nothing(self, manager: RunningManager) -> None:
        await manager.worker()

        answer = await manager.jobs.CreateParentJob(Create(targets=["app"], dry_run=True))

        listed = await manager.jobs.ListParentJobs(job_service_pb2.ListParentJobsRequest())
        assert answer.parent_job.id == ""
        assert [(child.id, child.operation) for child in answer.child_jobs] == [
            ("", "vacuum"),
            ("", "analyze"),
            ("", "reindex"),
        ]
        assert not listed.parent_jobs

    async def test_what_was_learned_is_kept_at_the_end_and_told(self, tmp_path: Path) -> None:
        settings = settings_on(tmp_path)
        async with running(settings) as manager:
            worker = await manager.worker("a", "b")
            await manager.create("b", operations=("vacuum",))
            await worker.complete(*await worker.acquire())
        async with running(settings) as manager:
            worker = await manager.worker("a", "b")
            operations = [job_pb2.OperationSpec(name="vacuum")]

            preview = await manager.jobs.CreateParentJob(
                Create(targets=["a", "b"], operations=operations, dry_run=True)
            )
            parent = await manager.create("a", "b", operations=("vacuum",))

            shown = [(child.target, child.HasField("expected_duration")) for child in preview.child_jobs]
            assert shown == [("a", False), ("b", True)]
            [_, known] = await manager.children(parent.id)
            assert known.expected_duration == preview.child_jobs[1].expected_duration

    @pytest.mark.parametrize(
        ("request_", "field"),
        [
            (Create(), "targets"),
            (Create(targets=["app", "app"]), "targets[1]"),
            (Create(targets=["app"], target_labels={"a": "b"}), "target_labels"),
            (Create(target_labels={"no": "such"}), "target_labels"),
            (Create(targets=["app"], operations=[job_pb2.OperationSpec(name="vacum")]), "operations[0].name"),
            (
                Create(targets=["app"], operations=[job_pb2.OperationSpec(name="vacuum", options={"full": "1"})]),
                "operations[0].options[full]",
            ),
            (Create(targets=["app"], scope=job_pb2.SCOPE_TABLE), "scope"),
            (Create(targets=["app"], scope=99), "scope"),  # type: ignore[arg-type]  # what a newer client might send
            (Create(targets=["app"], failure_policy=job_pb2.FailurePolicy(mode=77)), "failure_policy.mode"),  # type: ignore[arg-type]  # likewise
            (Create(targets=["app"], priority=101), "priority"),
            (Create(targets=["app"], timeout=span(-1)), "timeout"),
            (Create(targets=["app"], deadline=moment(seconds=-5)), "deadline"),
            (Create(targets=["app"], request_id=""), "request_id"),
            (
                Create(targets=["app"], retry_policy=job_pb2.RetryPolicy(max_failures=0)),
                "retry_policy.max_failures",
            ),
        ],
    )
    async def test_wrong_fields_are_refused_and_named(
        self, manager: RunningManager, request_: Create, field: str
    ) -> None:
        await manager.worker()

        refused = await refusal(manager.jobs.CreateParentJob(request_))

        assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
        assert list(refused.fields) == [field]

    async def test_a_refusal_of_very_much_still_reaches_the_client(self, manager: RunningManager) -> None:
        refused = await refusal(manager.create(*["\n" * 100 + str(number) for number in range(2_000)]))

        assert refused.reason == "INVALID_REQUEST"
        assert "more" in refused.fields["request"]

    async def test_fifty_thousand_targets_fit(self, manager: RunningManager) -> None:
        names = [f"{number:0128}" for number in range(50_000)]

        answer = await manager.jobs.CreateParentJob(
            Create(
                targets=names,
                operations=[job_pb2.OperationSpec(name="vacuum")],
                allow_unknown_targets=True,
            ),
            timeout=60,
        )

        assert answer.parent_job.counts.total == 50_000


class TestReadParentJobs:
    async def test_get_reads_it(self, manager: RunningManager) -> None:
        await manager.worker()
        parent = await manager.create()

        assert await manager.get(parent.id) == parent

    @pytest.mark.parametrize("wrong", [NOBODY, "", "x", "../etc", NOBODY.upper() + "A"])
    async def test_an_unknown_id_is_not_found(self, manager: RunningManager, wrong: str) -> None:
        refused = await refusal(manager.get(wrong))

        assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "PARENT_JOB_NOT_FOUND")

    async def test_pages_follow_one_another(self, manager: RunningManager) -> None:
        await manager.worker()
        made = [(await manager.create(operations=("vacuum",))).id for _ in range(5)]
        seen, token = [], ""
        while True:
            request = job_service_pb2.ListParentJobsRequest(page_size=2, page_token=token)
            answer = await manager.jobs.ListParentJobs(request)
            seen += [job.id for job in answer.parent_jobs]
            token = answer.next_page_token
            if not token:
                break

        assert seen == made[::-1]

    async def test_the_oldest_come_first_when_asked(self, manager: RunningManager) -> None:
        await manager.worker()
        made = [(await manager.create(operations=("vacuum",))).id for _ in range(3)]
        request = job_service_pb2.ListParentJobsRequest(order=job_service_pb2.PARENT_JOB_ORDER_OLDEST_FIRST)

        assert [job.id for job in (await manager.jobs.ListParentJobs(request)).parent_jobs] == made

    @pytest.mark.parametrize(
        ("filters", "found"),
        [
            ({"labels": {"a": "1"}}, 1),
            ({"labels": {"a": "2"}}, 0),
            ({"target": "app"}, 2),
            ({"target": "other"}, 0),
            ({"states": [job_pb2.PARENT_JOB_STATE_RUNNING]}, 2),
            ({"states": [job_pb2.PARENT_JOB_STATE_FAILED]}, 0),
        ],
    )
    async def test_filters_choose(self, manager: RunningManager, filters: dict[str, Any], found: int) -> None:
        await manager.worker()
        await manager.create(labels={"a": "1"})
        await manager.create()

        answer = await manager.jobs.ListParentJobs(job_service_pb2.ListParentJobsRequest(**filters))

        assert len(answer.parent_jobs) == found

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"page_size": -1}, "page_size"),
            ({"page_size": 1_001}, "page_size"),
            ({"page_token": "nonsense"}, "page_token"),
            ({"states": [0]}, "states"),
            ({"states": [99]}, "states"),
            ({"order": 9}, "order"),
        ],
    )
    async def test_wrong_fields_are_named(
        self, manager: RunningManager, fields: dict[str, Any], field: str
    ) -> None:
        refused = await refusal(manager.jobs.ListParentJobs(job_service_pb2.ListParentJobsRequest(**fields)))

        assert refused.reason == "INVALID_REQUEST"
        assert list(refused.fields) == [field]

    async def test_a_token_of_another_list_is_refused(self, manager: RunningManager) -> None:
        await manager.worker()
        for _ in range(2):
            await manager.create()
        answer = await manager.jobs.ListParentJobs(job_service_pb2.ListParentJobsRequest(page_size=1))

        other = job_service_pb2.ListParentJobsRequest(page_token=answer.next_page_token, target="app")

        assert list((await refusal(manager.jobs.ListParentJobs(other))).fields) == ["page_token"]


class TestReadChildJobs:
    async def test_pages_follow_one_another(self, manager: RunningManager) -> None:
        await manager.worker()
        parent = await manager.create()
        first = await manager.jobs.ListChildJobs(
            job_service_pb2.ListChildJobsRequest(parent_job_id=parent.id, page_size=2)
        )
        second = await manager.jobs.ListChildJobs(
            job_service_pb2.ListChildJobsRequest(
                parent_job_id=parent.id, page_size=2, page_token=first.next_page_token
            )
        )

        assert [child.position for child in (*first.child_jobs, *second.child_jobs)] == [0, 1, 2]
        assert second.next_page_token == ""

    async def test_filters_choose(self, manager: RunningManager) -> None:
        await manager.worker("a", "b")
        parent = await manager.create("a", "b")

        found = await manager.children(
            parent.id, target="b", operation="analyze", states=[job_pb2.CHILD_JOB_STATE_PENDING]
        )

        assert [(child.target, child.operation) for child in found] == [("b", "analyze")]

    async def test_an_unspecified_state_is_refused(self, manager: RunningManager) -> None:
        assert list((await refusal(manager.children(NOBODY, states=[0]))).fields) == ["states"]

    async def test_of_an_unknown_parent_they_are_not_found(self, manager: RunningManager) -> None:
        assert (await refusal(manager.children(NOBODY))).reason == "PARENT_JOB_NOT_FOUND"
        assert (await refusal(manager.children("x"))).reason == "PARENT_JOB_NOT_FOUND"

    @pytest.mark.parametrize("wrong", [NOBODY, "x"])
    async def test_an_unknown_child_is_not_found(self, manager: RunningManager, wrong: str) -> None:
        assert (await refusal(manager.child(wrong))).reason == "CHILD_JOB_NOT_FOUND"

    async def test_a_finished_child_tells_what_was_done(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        await manager.create(operations=("vacuum",))
        [lease] = await worker.acquire()
        await worker.report(result(lease))

        answer = await manager.child(lease.child_job_id)

        assert answer.child_job.state == job_pb2.CHILD_JOB_STATE_COMPLETED
        assert answer.child_job.verdict == job_pb2.VERDICT_EFFECTIVE
        assert (dict(answer.child_job.before), dict(answer.child_job.after)) == ({"bytes": 10.0}, {"bytes": 5.0})
        [attempt] = answer.attempts
        assert (attempt.attempt, attempt.worker_name) == (1, "w1")
        assert attempt.outcome == job_pb2.OUTCOME_COMPLETED

    async def test_a_running_child_tells_its_progress(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        parent = await manager.create(operations=("vacuum",))
        [lease] = await worker.acquire()
        await worker.beat(lease, progress=job_pb2.Progress(phase="copy", done=1, total=4, unit="bytes"))

        [child] = await manager.children(parent.id)

        assert child.state == job_pb2.CHILD_JOB_STATE_RUNNING
        assert (child.progress.phase, child.progress.done, child.progress.total) == ("copy", 1, 4)


class TestSteerParentJob:
    async def test_cancel_ends_what_waits(self, manager: RunningManager) -> None:
        await manager.worker()
        parent = await manager.create()

        await manager.cancel(parent.id, "no longer needed")

        async def cancelled() -> bool:
            return (await manager.get(parent.id)).state == job_pb2.PARENT_JOB_STATE_CANCELLED

        await eventually(cancelled)
        children = await manager.children(parent.id)
        assert {child.state for child in children} == {job_pb2.CHILD_JOB_STATE_CANCELLED}
        assert "no longer needed" in children[0].reason
        assert (await manager.cancel(parent.id)).state == job_pb2.PARENT_JOB_STATE_CANCELLED

    async def test_many_children_are_cancelled_in_batches(self, manager: RunningManager) -> None:
        names = [f"t{number}" for number in range(3_000)]
        parent = await manager.create(*names, operations=("vacuum",), allow_unknown_targets=True)

        await manager.cancel(parent.id)

        async def cancelled() -> bool:
            return (await manager.get(parent.id)).counts.cancelled == 3_000

        await eventually(cancelled)

    async def test_cancel_takes_no_overlong_reason(self, manager: RunningManager) -> None:
        assert list((await refusal(manager.cancel(NOBODY, "x" * 257))).fields) == ["reason"]

    async def test_pause_and_resume(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        parent = await manager.create()
        request = job_service_pb2.PauseParentJobRequest(parent_job_id=parent.id)

        assert (await manager.jobs.PauseParentJob(request)).parent_job.paused
        assert await worker.acquire() == []
        resume = job_service_pb2.ResumeParentJobRequest(parent_job_id=parent.id)
        assert not (await manager.jobs.ResumeParentJob(resume)).parent_job.paused
        assert len(await worker.acquire()) == 1

    async def test_retry_opens_a_new_round_of_what_failed(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        parent = await manager.create(operations=("vacuum",))
        [lease] = await worker.acquire()
        await worker.report(failed(lease))
        assert (await manager.get(parent.id)).state == job_pb2.PARENT_JOB_STATE_FAILED

        request = job_service_pb2.RetryParentJobRequest(parent_job_id=parent.id)
        again = (await manager.jobs.RetryParentJob(request)).parent_job

        assert (again.id, again.round, again.counts.pending) == (parent.id, 2, 1)
        [lease] = await worker.acquire()
        assert lease.attempt == 2

    async def test_delete_takes_all_away(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        parent = await manager.create(operations=("vacuum",))
        await worker.complete(*await worker.acquire())
        request = job_service_pb2.DeleteParentJobRequest(parent_job_id=parent.id)

        await manager.jobs.DeleteParentJob(request)

        assert (await refusal(manager.get(parent.id))).reason == "PARENT_JOB_NOT_FOUND"
        assert (await refusal(manager.jobs.DeleteParentJob(request))).reason == "PARENT_JOB_NOT_FOUND"

    async def test_what_the_state_forbids_is_refused(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        running = await manager.create(operations=("vacuum",))
        request = job_service_pb2.DeleteParentJobRequest(parent_job_id=running.id)
        deleted = await refusal(manager.jobs.DeleteParentJob(request))
        await worker.complete(*await worker.acquire())

        cancelled = await refusal(manager.cancel(running.id))

        for refused, state in ((deleted, "running"), (cancelled, "completed")):
            assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "WRONG_STATE")
            assert refused.metadata["state"] == state

    @pytest.mark.parametrize("verb", ["Cancel", "Pause", "Resume", "Retry", "Delete"])
    @pytest.mark.parametrize("wrong", [NOBODY, "x"])
    async def test_an_unknown_parent_is_not_found(self, manager: RunningManager, verb: str, wrong: str) -> None:
        request = getattr(job_service_pb2, f"{verb}ParentJobRequest")(parent_job_id=wrong)

        refused = await refusal(getattr(manager.jobs, f"{verb}ParentJob")(request))

        assert refused.reason == "PARENT_JOB_NOT_FOUND"

    async def test_a_deadline_ends_what_waits(self, manager: RunningManager) -> None:
        await manager.worker()
        parent = await manager.create(operations=("vacuum",), deadline=moment(milliseconds=300))

        async def failed_() -> bool:
            return (await manager.get(parent.id)).state == job_pb2.PARENT_JOB_STATE_FAILED

        await eventually(failed_)
        [child] = await manager.children(parent.id)
        assert child.failure.reason == "DEADLINE_EXCEEDED"

    async def test_a_delayed_child_is_granted_when_its_time_has_come(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        policy = job_pb2.RetryPolicy(initial_backoff=span(0.2))
        await manager.create(operations=("vacuum",), retry_policy=policy)
        [lease] = await worker.acquire()
        await worker.report(failed(lease, retryable=True))

        begin = asyncio.get_running_loop().time()
        [again] = await worker.acquire(wait=3)

        assert again.attempt == 2
        assert asyncio.get_running_loop().time() - begin < 0.9
