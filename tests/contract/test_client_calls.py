"""The typed client against a real server: retries, errors, pages, and what is sent."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import grpc
import pytest

from manager_service.client import ClientError, JobRequest, ManagerClient, Operation
from manager_service.client.errors import FieldViolation, ManagerUnreachableError
from overhaul.v1 import fleet_service_pb2, job_pb2, job_service_pb2
from tests.client_doubles import wire
from tests.client_doubles.fake_manager import FakeManager, Refusal, Unary

CREATED = job_service_pb2.CreateParentJobResponse(parent_job=wire.parent_job())
READ = job_service_pb2.GetParentJobResponse(parent_job=wire.parent_job())


class TestCreate:
    async def test_a_request_id_is_always_sent(self) -> None:
        with FakeManager().answers("CreateParentJob", CREATED) as manager:
            async with ManagerClient(manager.address) as client:
                created = await client.create_parent_job(JobRequest(targets=["app"]))

        [request] = manager.requests("CreateParentJob")
        assert created.id == wire.PARENT_ID
        assert UUID(request.request_id).version == 7
        assert list(request.targets) == ["app"]
        assert not request.HasField("retry_policy")
        assert not request.HasField("failure_policy")
        assert not request.HasField("deadline")

    async def test_everything_asked_for_is_on_the_wire(self) -> None:
        asked = JobRequest(
            target_labels={"stage": "test"},
            operations=["vacuum", Operation(name="analyze", options={"limit": "400"})],
            name="nightly",
            priority=7,
            max_parallel=2,
            timeout=timedelta(seconds=1.5),
            deadline=datetime(2030, 1, 31, 4, tzinfo=UTC),
            labels={"team": "data"},
            max_failed=2,
            max_losses=5,
            allow_unknown_targets=True,
        )
        with FakeManager().answers("CreateParentJob", CREATED) as manager:
            async with ManagerClient(manager.address) as client:
                await client.create_parent_job(asked, request_id="mine")

        [request] = manager.requests("CreateParentJob")
        assert request.request_id == "mine"
        assert dict(request.target_labels) == {"stage": "test"}
        assert [(one.name, dict(one.options)) for one in request.operations] == [
            ("vacuum", {}),
            ("analyze", {"limit": "400"}),
        ]
        assert (request.name, request.priority, request.max_parallel) == ("nightly", 7, 2)
        assert request.timeout.ToTimedelta() == timedelta(seconds=1.5)
        assert request.deadline.ToDatetime(tzinfo=UTC) == datetime(2030, 1, 31, 4, tzinfo=UTC)
        assert dict(request.labels) == {"team": "data"}
        assert request.failure_policy.mode == job_pb2.FAILURE_MODE_MAX_FAILED
        assert request.failure_policy.max_failed_children == 2
        assert request.retry_policy.max_losses == 5
        assert not request.retry_policy.HasField("max_failures")
        assert request.allow_unknown_targets

    async def test_a_plan_is_a_dry_run(self) -> None:
        planned = job_service_pb2.CreateParentJobResponse(child_jobs=[wire.child_job(id="")])
        with FakeManager().answers("CreateParentJob", planned) as manager:
            async with ManagerClient(manager.address) as client:
                plan = await client.plan_parent_job(JobRequest(targets=["app"], fail_fast=True))

        [request] = manager.requests("CreateParentJob")
        assert request.dry_run
        assert request.failure_policy.mode == job_pb2.FAILURE_MODE_FAIL_FAST
        assert [child.target for child in plan.child_jobs] == ["app"]


class TestRetry:
    @pytest.mark.parametrize(
        "code",
        [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED],
    )
    async def test_a_call_that_may_be_tried_again_is(self, code: grpc.StatusCode) -> None:
        with FakeManager().answers("GetParentJob", Refusal(code=code), Refusal(code=code), READ) as manager:
            async with ManagerClient(manager.address) as client:
                parent = await client.get_parent_job(wire.PARENT_ID)

        assert parent.id == wire.PARENT_ID
        assert len(manager.requests("GetParentJob")) == 3

    async def test_a_retried_create_sends_the_same_request_id(self) -> None:
        cancelled = Refusal(code=grpc.StatusCode.CANCELLED)
        with FakeManager().answers("CreateParentJob", cancelled, CREATED) as manager:
            async with ManagerClient(manager.address) as client:
                await client.create_parent_job(JobRequest(targets=["app"]))

        first, second = manager.requests("CreateParentJob")
        assert first.request_id == second.request_id

    async def test_cancelled_is_not_retried_for_ever(self) -> None:
        cancelled = Refusal(code=grpc.StatusCode.CANCELLED)
        with FakeManager().answers("GetParentJob", cancelled) as manager:
            async with ManagerClient(manager.address) as client:
                with pytest.raises(ClientError) as caught:
                    await client.get_parent_job(wire.PARENT_ID)

        assert caught.value.code is grpc.StatusCode.CANCELLED
        assert len(manager.requests("GetParentJob")) == 5

    async def test_a_refusal_is_not_retried(self) -> None:
        refusal = Refusal(code=grpc.StatusCode.NOT_FOUND, reason="PARENT_JOB_NOT_FOUND")
        with FakeManager().answers("GetParentJob", refusal) as manager:
            async with ManagerClient(manager.address) as client:
                with pytest.raises(ClientError):
                    await client.get_parent_job(wire.PARENT_ID)

        assert len(manager.requests("GetParentJob")) == 1


class TestErrors:
    async def test_the_details_of_a_refusal_are_on_the_error(self) -> None:
        refusal = Refusal(
            code=grpc.StatusCode.INVALID_ARGUMENT,
            message="two fields are wrong",
            reason="INVALID_REQUEST",
            metadata={"limit": "64"},
            fields={"priority": "from -100 to 100", "name": "too long"},
        )
        with FakeManager().answers("CreateParentJob", refusal) as manager:
            async with ManagerClient(manager.address) as client:
                with pytest.raises(ClientError, match="two fields are wrong") as caught:
                    await client.create_parent_job(JobRequest(targets=["app"]))

        error = caught.value
        assert error.code is grpc.StatusCode.INVALID_ARGUMENT
        assert (error.reason, error.metadata) == ("INVALID_REQUEST", {"limit": "64"})
        assert error.field_violations == (
            FieldViolation(field="priority", description="from -100 to 100"),
            FieldViolation(field="name", description="too long"),
        )

    async def test_details_that_cannot_be_read_count_as_absent(self) -> None:
        refusal = Refusal(code=grpc.StatusCode.INTERNAL, message="defect", broken_details=True)
        with FakeManager().answers("GetParentJob", refusal) as manager:
            async with ManagerClient(manager.address) as client:
                with pytest.raises(ClientError, match="defect") as caught:
                    await client.get_parent_job(wire.PARENT_ID)

        assert caught.value.reason == ""

    async def test_a_manager_whose_store_is_away_is_reachable(self) -> None:
        refusal = Refusal(code=grpc.StatusCode.UNAVAILABLE, message="disk full", reason="STORE_UNAVAILABLE")
        with FakeManager().answers("GetParentJob", refusal) as manager:
            async with ManagerClient(manager.address) as client:
                with pytest.raises(ClientError, match="disk full") as caught:
                    await client.get_parent_job(wire.PARENT_ID)

        assert not isinstance(caught.value, ManagerUnreachableError)

    async def test_no_manager_at_the_address_is_unreachable(self) -> None:
        with FakeManager() as manager:
            address = manager.address
        async with ManagerClient(address) as client:
            with pytest.raises(ManagerUnreachableError, match=f"no manager answers at {address}"):
                await client.get_parent_job(wire.PARENT_ID)


class TestLists:
    async def test_pages_are_read_to_the_last(self) -> None:
        pages = [
            job_service_pb2.ListParentJobsResponse(parent_jobs=[wire.parent_job(id="a")], next_page_token="t1"),
            job_service_pb2.ListParentJobsResponse(next_page_token="t2"),
            job_service_pb2.ListParentJobsResponse(parent_jobs=[wire.parent_job(id="b")]),
        ]
        with FakeManager().answers("ListParentJobs", *pages) as manager:
            async with ManagerClient(manager.address) as client:
                found = [
                    parent.id
                    async for parent in client.list_parent_jobs(
                        states=[job_pb2.PARENT_JOB_STATE_FAILED], labels={"k": "v"}, oldest_first=True
                    )
                ]

        requests = manager.requests("ListParentJobs")
        assert found == ["a", "b"]
        assert [request.page_token for request in requests] == ["", "t1", "t2"]
        assert {tuple(request.states) for request in requests} == {(job_pb2.PARENT_JOB_STATE_FAILED,)}
        assert requests[0].order == job_service_pb2.PARENT_JOB_ORDER_OLDEST_FIRST

    async def test_children_are_filtered(self) -> None:
        page = job_service_pb2.ListChildJobsResponse(child_jobs=[wire.child_job()])
        with FakeManager().answers("ListChildJobs", page) as manager:
            async with ManagerClient(manager.address) as client:
                found = [child async for child in client.list_child_jobs(wire.PARENT_ID, operation="vacuum")]

        [request] = manager.requests("ListChildJobs")
        assert len(found) == 1
        assert (request.parent_job_id, request.operation, request.target) == (wire.PARENT_ID, "vacuum", "")

    async def test_workers_and_targets_are_listed(self) -> None:
        manager = FakeManager()
        manager.answers(
            "ListWorkers",
            fleet_service_pb2.ListWorkersResponse(workers=[fleet_service_pb2.Worker(worker_name="w")]),
        )
        manager.answers(
            "ListTargets", fleet_service_pb2.ListTargetsResponse(targets=[fleet_service_pb2.Target(name="app")])
        )
        with manager:
            async with ManagerClient(manager.address) as client:
                workers = [worker.worker_name async for worker in client.list_workers(include_gone=True)]
                targets = [target.name async for target in client.list_targets(labels={"k": "v"})]

        assert (workers, targets) == (["w"], ["app"])
        assert manager.requests("ListWorkers")[0].include_gone


TARGET = fleet_service_pb2.Target(name="app", paused=True)
STEERED = {
    "CancelParentJob": job_service_pb2.CancelParentJobResponse(parent_job=wire.parent_job()),
    "PauseParentJob": job_service_pb2.PauseParentJobResponse(parent_job=wire.parent_job()),
    "ResumeParentJob": job_service_pb2.ResumeParentJobResponse(parent_job=wire.parent_job()),
    "RetryParentJob": job_service_pb2.RetryParentJobResponse(parent_job=wire.parent_job()),
    "DeleteParentJob": job_service_pb2.DeleteParentJobResponse(),
    "GetChildJob": job_service_pb2.GetChildJobResponse(child_job=wire.child_job()),
}
HELD = {
    "DrainWorker": fleet_service_pb2.DrainWorkerResponse(worker=fleet_service_pb2.Worker(worker_name="w")),
    "PauseTarget": fleet_service_pb2.PauseTargetResponse(target=TARGET),
    "ResumeTarget": fleet_service_pb2.ResumeTargetResponse(target=TARGET),
    "ForgetTarget": fleet_service_pb2.ForgetTargetResponse(),
}


def scripted(answers: dict[str, Unary]) -> FakeManager:
    manager = FakeManager()
    for method, answer in answers.items():
        manager.answers(method, answer)
    return manager


class TestSteer:
    async def test_a_parent_job_is_steered(self) -> None:
        with scripted(dict(STEERED)) as manager:
            async with ManagerClient(manager.address) as client:
                assert (await client.cancel_parent_job("p", reason="late")).id == wire.PARENT_ID
                assert (await client.pause_parent_job("p")).id == wire.PARENT_ID
                assert (await client.resume_parent_job("p")).id == wire.PARENT_ID
                assert (await client.retry_parent_job("p")).id == wire.PARENT_ID
                await client.delete_parent_job("p")
                assert (await client.get_child_job("c")).child_job.id == wire.CHILD_ID

        assert [name for name, _ in manager.calls] == list(STEERED)
        assert manager.requests("CancelParentJob")[0].reason == "late"
        assert {request.parent_job_id for name, request in manager.calls if "Parent" in name} == {"p"}

    async def test_the_fleet_is_steered(self) -> None:
        with scripted(dict(HELD)) as manager:
            async with ManagerClient(manager.address) as client:
                assert (await client.drain_worker("w", terminate=True)).worker_name == "w"
                assert (await client.pause_target("app")).paused
                assert (await client.resume_target("app")).name == "app"
                await client.forget_target("app")

        assert [name for name, _ in manager.calls] == list(HELD)
        assert manager.requests("DrainWorker")[0].terminate
