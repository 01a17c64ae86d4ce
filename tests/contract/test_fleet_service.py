from typing import Any

import grpc
import pytest

from overhaul.v1 import fleet_service_pb2, job_pb2, job_service_pb2, lease_service_pb2
from tests.contract.manager_harness import RunningManager, refusal, served


def workers(manager: RunningManager, **fields: Any) -> Any:
    return manager.fleet.ListWorkers(fleet_service_pb2.ListWorkersRequest(**fields))


def targets(manager: RunningManager, **fields: Any) -> Any:
    return manager.fleet.ListTargets(fleet_service_pb2.ListTargetsRequest(**fields))


class TestListWorkers:
    async def test_it_tells_who_is_there(self, manager: RunningManager) -> None:
        worker = await manager.worker("a", "b")
        await manager.create("a", operations=("vacuum",))
        await worker.acquire()

        [listed] = (await workers(manager)).workers

        assert (listed.worker_name, listed.instance_id) == ("w1", worker.instance_id)
        assert listed.state == fleet_service_pb2.SESSION_STATE_READY
        assert (listed.host, listed.pid, listed.build) == ("here", 7, "0.1")
        assert (listed.slots, listed.slots_used) == (4, 1)
        assert list(listed.targets) == ["a", "b"]
        assert listed.labels == {"zone": "a"}
        assert listed.HasField("poll_time")

    async def test_who_never_polled_here_has_no_poll_time(self, manager: RunningManager) -> None:
        await manager.worker()

        [listed] = (await workers(manager)).workers

        assert not listed.HasField("poll_time")

    async def test_who_is_gone_is_listed_when_asked(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        request = lease_service_pb2.DeregisterWorkerRequest(session_id=worker.session_id)
        await manager.leases.DeregisterWorker(request)

        assert not (await workers(manager)).workers
        [listed] = (await workers(manager, include_gone=True)).workers
        assert listed.state == fleet_service_pb2.SESSION_STATE_CLOSED

    async def test_pages_follow_one_another(self, manager: RunningManager) -> None:
        for number in range(3):
            await manager.worker(name=f"w{number}")

        first = await workers(manager, page_size=2)
        second = await workers(manager, page_size=2, page_token=first.next_page_token)

        assert [item.worker_name for item in (*first.workers, *second.workers)] == ["w0", "w1", "w2"]
        assert not second.next_page_token

    async def test_a_wrong_page_is_refused(self, manager: RunningManager) -> None:
        assert list((await refusal(workers(manager, page_size=-1))).fields) == ["page_size"]
        assert list((await refusal(workers(manager, page_token="x"))).fields) == ["page_token"]


class TestListTargets:
    async def test_it_tells_what_is_served(self, manager: RunningManager) -> None:
        worker = await manager.worker("app", "other")
        await manager.create("app")
        await worker.acquire()

        listed = (await targets(manager)).targets

        assert [item.name for item in listed] == ["app", "other"]
        app = listed[0]
        assert (app.engine, app.engine_version, app.identity) == ("sqlite", "3.51", "id:app")
        assert (app.pending, app.live, list(app.workers)) == (2, 1, ["w1"])
        assert app.operations[0].options[0].type == lease_service_pb2.OPTION_TYPE_BOOLEAN
        assert app.operations[0].locks[0].exclusive

    async def test_the_limits_of_an_option_are_told_and_kept(self, manager: RunningManager) -> None:
        integer, string = lease_service_pb2.OPTION_TYPE_INTEGER, lease_service_pb2.OPTION_TYPE_STRING
        options = [
            lease_service_pb2.OptionSpec(name="pages", type=integer, minimum=0, maximum=9),
            lease_service_pb2.OptionSpec(name="mode", type=string, values=["full", "passive"]),
            lease_service_pb2.OptionSpec(name="free", type=integer),
        ]
        offer = lease_service_pb2.OfferedOperation(name="vacuum", options=options)
        await manager.worker(targets=[served("app", operations=[offer])])

        refused = await refusal(
            manager.jobs.CreateParentJob(
                job_service_pb2.CreateParentJobRequest(
                    targets=["app"], operations=[job_pb2.OperationSpec(name="vacuum", options={"pages": "10"})]
                )
            )
        )

        assert list((await targets(manager)).targets[0].operations[0].options) == options
        assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
        assert "from 0 to 9" in refused.fields["operations[0].options[pages]"]

    async def test_labels_choose(self, manager: RunningManager) -> None:
        await manager.worker(targets=[served("a", labels={"env": "prod"}), served("b")])

        answer = await targets(manager, labels={"env": "prod"})

        assert [item.name for item in answer.targets] == ["a"]

    async def test_too_many_labels_are_refused(self, manager: RunningManager) -> None:
        refused = await refusal(targets(manager, labels={str(number): "" for number in range(65)}))

        assert list(refused.fields) == ["labels"]

    async def test_a_token_of_another_list_is_refused(self, manager: RunningManager) -> None:
        await manager.worker("a", "b")
        token = (await targets(manager, page_size=1)).next_page_token

        assert list((await refusal(workers(manager, page_token=token))).fields) == ["page_token"]


class TestDrainWorker:
    async def test_it_takes_no_more(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        await manager.create()

        answer = await manager.fleet.DrainWorker(
            fleet_service_pb2.DrainWorkerRequest(worker_name="w1", terminate=True)
        )

        assert answer.worker.state == fleet_service_pb2.SESSION_STATE_DRAINING
        assert (await worker.beat()).directive == lease_service_pb2.WORKER_DIRECTIVE_TERMINATE
        assert await worker.acquire() == []

    async def test_an_unknown_worker_is_not_found(self, manager: RunningManager) -> None:
        refused = await refusal(manager.fleet.DrainWorker(fleet_service_pb2.DrainWorkerRequest(worker_name="x")))

        assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "WORKER_NOT_FOUND")


class TestSteerTarget:
    async def test_a_paused_target_starts_nothing(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        parent = await manager.create(operations=("vacuum",))

        paused = await manager.fleet.PauseTarget(fleet_service_pb2.PauseTargetRequest(target="app"))
        [child] = await manager.children(parent.id)
        assert paused.target.paused
        assert child.wait_reason == job_pb2.WAIT_REASON_TARGET_PAUSED
        assert await worker.acquire() == []

        resumed = await manager.fleet.ResumeTarget(fleet_service_pb2.ResumeTargetRequest(target="app"))
        assert not resumed.target.paused
        assert len(await worker.acquire()) == 1

    async def test_a_target_that_nobody_serves_can_be_forgotten(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        request = fleet_service_pb2.ForgetTargetRequest(target="app")
        used = await refusal(manager.fleet.ForgetTarget(request))
        await manager.leases.DeregisterWorker(
            lease_service_pb2.DeregisterWorkerRequest(session_id=worker.session_id)
        )

        await manager.fleet.ForgetTarget(request)

        assert (used.code, used.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "TARGET_IN_USE")
        assert not (await targets(manager)).targets

    @pytest.mark.parametrize("verb", ["Pause", "Resume", "Forget"])
    async def test_an_unknown_target_is_not_found(self, manager: RunningManager, verb: str) -> None:
        request = getattr(fleet_service_pb2, f"{verb}TargetRequest")(target="x")

        refused = await refusal(getattr(manager.fleet, f"{verb}Target")(request))

        assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "TARGET_UNKNOWN")
