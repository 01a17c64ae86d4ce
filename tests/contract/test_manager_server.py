import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from structlog.testing import capture_logs

from manager_service.api import server
from manager_service.api.server import SERVICES, AddressInUseError, Server, Services
from manager_service.app import manager as app_manager
from manager_service.domain.model import SECOND
from manager_service.domain.ports import IdSource
from overhaul.v1 import job_pb2, job_service_pb2, lease_service_pb2
from tests.contract.manager_harness import BRISK, NOBODY, RunningManager, eventually, refusal, running, settings_on

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def now() -> float:
    return asyncio.get_running_loop().time()


def health_stub(manager: RunningManager) -> Any:
    """Make a stub; its published types know only the threaded client."""
    channel: Any = manager.channel
    return health_pb2_grpc.HealthStub(channel)


class TestHealth:
    @pytest.mark.parametrize("service", ["", *SERVICES])
    async def test_each_service_is_serving(self, manager: RunningManager, service: str) -> None:
        stub = health_stub(manager)

        assert (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status == SERVING

    async def test_an_unknown_service_is_not_found(self, manager: RunningManager) -> None:
        stub = health_stub(manager)

        refused = await refusal(stub.Check(health_pb2.HealthCheckRequest(service="x")))

        assert refused.code is grpc.StatusCode.NOT_FOUND

    async def test_a_shutdown_turns_it_to_not_serving(self, tmp_path: Path) -> None:
        async with running(settings_on(tmp_path)) as manager:
            stub = health_stub(manager)
            watch = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICES[0]))
            before = (await watch.read()).status

            stopping = asyncio.create_task(manager.stop())
            after = (await watch.read()).status
            await stopping

        assert (before, after) == (SERVING, NOT_SERVING)


class TestLog:
    async def test_a_look_up_that_finds_nothing_is_no_refusal(self, manager: RunningManager) -> None:
        with capture_logs() as lines:
            await refusal(manager.get(NOBODY))
            await refusal(manager.child(NOBODY))
            await refusal(manager.cancel(NOBODY))

        told = [(line["method"], line["log_level"]) for line in lines if line["event"] == "call refused"]
        assert told == [("GetParentJob", "debug"), ("GetChildJob", "debug"), ("CancelParentJob", "info")]

    async def test_a_cancel_is_told_with_its_reason(self, manager: RunningManager) -> None:
        job = await manager.create(allow_unknown_targets=True)
        with capture_logs() as lines:
            await manager.cancel(job.id, "the disk is full")
            await refusal(manager.cancel(NOBODY, "x" * 1_000_000))
            await refusal(manager.cancel(NOBODY, "\x1b[31m"))

        [told] = [line for line in lines if line["event"] == "call answered"]
        refused = [line["reason"] for line in lines if line["event"] == "call refused"]
        assert (told["method"], told["parent_job_id"]) == ("CancelParentJob", job.id)
        assert told["reason"] == "the disk is full"
        assert refused == ["x" * 500, r"'\x1b[31m'"]

    async def test_the_end_of_a_parent_job_is_told_once(self, manager: RunningManager) -> None:
        worker = await manager.worker(slots=1)
        job = await manager.create(name="nightly")

        with capture_logs() as lines:
            while leases := await worker.acquire(wait=0.1):
                await worker.complete(*leases)
            await manager.stop()

        [ended] = [line for line in lines if line["event"] == "parent job ended"]
        assert (ended["parent_job_id"], ended["name"], ended["state"]) == (job.id, "nightly", "completed")
        assert (ended["children"], ended["completed"]) == (3, 3)

    async def test_a_worker_that_is_silent_for_too_long_is_told_by_its_name(self, brisk: RunningManager) -> None:
        async def told() -> list[Any]:
            return [line for line in lines if line["event"] == "worker lost"]

        with capture_logs() as lines:
            await brisk.worker(name="silent")
            [lost] = await eventually(told)

        assert (lost["worker_name"], lost["log_level"]) == ("silent", "warning")
        assert lost["silent_seconds"] >= BRISK.lease_duration / SECOND


async def test_reflection_lists_the_services(manager: RunningManager) -> None:
    channel: Any = manager.channel
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    call = stub.ServerReflectionInfo()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))

    answer = await call.read()
    await call.done_writing()

    assert {service.name for service in answer.list_services_response.service} >= {
        "overhaul.v1.JobService",
        "overhaul.v1.LeaseService",
        "overhaul.v1.FleetService",
        "grpc.health.v1.Health",
    }


class TestDefects:
    async def test_what_nobody_expected_tells_an_incident_and_no_more(self, manager: RunningManager) -> None:
        async def broken(*_: Any, **__: Any) -> Any:
            raise ValueError("the secret")

        manager.store.parent_job = broken  # type: ignore[method-assign]  # a defect

        for call in (manager.get(NOBODY), manager.watch(NOBODY)):
            refused = await refusal(call)
            assert (refused.code, refused.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
            assert refused.metadata["incident"] in refused.message
            assert "secret" not in refused.message

    async def test_a_call_that_is_not_there_is_unimplemented(self, manager: RunningManager) -> None:
        call: Any = manager.channel.unary_unary("/overhaul.v1.JobService/Explode")

        assert (await refusal(call(b""))).code is grpc.StatusCode.UNIMPLEMENTED


class TestPort:
    async def test_a_port_that_is_taken_is_refused(self, manager: RunningManager, tmp_path: Path) -> None:
        (tmp_path / "other").mkdir()
        settings = settings_on(tmp_path / "other", listen=f"127.0.0.1:{manager.port}")

        with pytest.raises(AddressInUseError, match="taken"):
            async with running(settings):
                pass


class TestManyCalls:
    async def test_thousands_at_once_are_all_answered(self, manager: RunningManager) -> None:
        worker = await manager.worker()

        answers = await asyncio.gather(*(worker.beat(sequence=1) for _ in range(2_000)))

        assert len(answers) == 2_000


def one_of_several(services: Services, ids: IdSource, **_: bool) -> Server:
    return Server(services, ids, one_of_several=True)


class TestConnections:
    async def test_those_of_one_of_several_managers_are_renewed_and_no_call_is_lost(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(server, "CONNECTION_AGE_MS", 200)
        monkeypatch.setattr(app_manager, "Server", one_of_several)
        async with running(settings_on(tmp_path)) as manager:
            worker = await manager.worker()
            polling = asyncio.create_task(worker.acquire(wait=2))
            for _ in range(3):
                leaving = asyncio.create_task(
                    manager.channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
                )
                while not leaving.done():
                    await worker.beat()

            assert not polling.done()
            assert await polling == []


class TestShutdown:
    async def test_what_hangs_is_answered_at_once(self, tmp_path: Path) -> None:
        async with running(settings_on(tmp_path)) as manager:
            worker = await manager.worker()
            polling = asyncio.create_task(worker.acquire(wait=5))
            beating = asyncio.ensure_future(worker.beat(wait=2))
            await asyncio.sleep(0.1)

            begin = now()
            await manager.stop()

            assert await polling == []
            assert await beating
            assert now() - begin < 0.4

    async def test_a_call_under_way_is_waited_for(self, tmp_path: Path) -> None:
        async with running(settings_on(tmp_path)) as manager:
            ended = asyncio.Event()
            read = manager.store.parent_jobs

            async def slow(*arguments: Any, **named: Any) -> Any:
                await asyncio.sleep(0.2)
                answer = await read(*arguments, **named)
                ended.set()
                return answer

            manager.store.parent_jobs = slow  # type: ignore[method-assign]  # takes its time
            calling = asyncio.ensure_future(manager.jobs.ListParentJobs(job_service_pb2.ListParentJobsRequest()))
            await asyncio.sleep(0.05)

            await manager.stop()

            assert ended.is_set()
            assert await calling is not None

    @pytest.mark.parametrize("hurried", [False, True])
    async def test_a_call_that_does_not_end_is_cut_off(self, tmp_path: Path, *, hurried: bool) -> None:
        grace = 10_000_000 if hurried else 200_000
        async with running(settings_on(tmp_path, shutdown_grace=grace)) as manager:
            cleaned = asyncio.Event()

            async def stuck(*_: Any, **__: Any) -> Any:
                try:
                    await asyncio.sleep(30)
                finally:
                    await asyncio.sleep(0.05)
                    cleaned.set()

            manager.store.parent_jobs = stuck  # type: ignore[method-assign]  # never ends
            calling = asyncio.ensure_future(
                refusal(manager.jobs.ListParentJobs(job_service_pb2.ListParentJobsRequest(), timeout=20))
            )
            await asyncio.sleep(0.1)

            begin = now()
            stopping = asyncio.create_task(manager.stop())
            await asyncio.sleep(0.1)
            if hurried:
                manager.manager.hurry()
            await stopping

            assert cleaned.is_set()
            assert now() - begin < 2
            assert (await calling).code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


class TestRestart:
    async def test_a_session_goes_on_over_a_restart(self, tmp_path: Path) -> None:
        async with running(settings_on(tmp_path)) as manager:
            worker = await manager.worker()
            parent = await manager.create(operations=("vacuum", "analyze"))
            [lease] = await worker.acquire()
            await worker.beat(lease)

        async with running(settings_on(tmp_path)) as manager:
            worker.manager = manager
            assert (await worker.beat(lease)).leases[0].directive == lease_service_pb2.LEASE_DIRECTIVE_CONTINUE
            hanging = asyncio.create_task(worker.acquire(wait=2.5))
            await asyncio.sleep(0.05)
            begin = now()
            await worker.complete(lease)

            [following] = await hanging
            assert following.operation == "analyze"
            assert now() - begin < 0.5
            assert (await manager.get(parent.id)).counts.completed == 1

    async def test_a_sweep_goes_on_over_a_restart(self, tmp_path: Path) -> None:
        async with running(settings_on(tmp_path)) as manager:
            names = [f"t{number}" for number in range(3)]
            parent = await manager.create(*names, operations=("vacuum",), allow_unknown_targets=True)

            async def nothing(*_: Any, **__: Any) -> bool:
                return False

            manager.store.sweep = nothing  # type: ignore[method-assign]  # the manager dies before it sweeps
            await manager.store.cancel_parent_job(parent.id, "enough")

        async with running(settings_on(tmp_path)) as manager:

            async def cancelled() -> bool:
                return (await manager.get(parent.id)).state == job_pb2.PARENT_JOB_STATE_CANCELLED

            await eventually(cancelled)
