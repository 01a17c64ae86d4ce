"""Managers as processes of their own over one PostgreSQL store: any of them answers, and all outlive an outage."""

import asyncio
import json
import re
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from manager_service.api.server import SERVICES
from overhaul.v1 import job_pb2 as job
from overhaul.v1 import job_service_pb2 as jobs
from overhaul.v1 import job_service_pb2_grpc as jobs_grpc
from tests.contract.manager_harness import refusal
from tests.postgres import PostgresServer
from tests.services import Service, address_of, start_manager, start_worker
from tests.stores import PostgresStores

QUICK = ("--heartbeat-interval", "500ms", "--lease-duration", "3s", "--accept-within", "3s")
LEASES = SERVICES[1]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """Lend a server that the tests of this module stop."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
def url(server: PostgresServer) -> str:
    return PostgresStores(server).new_url()


@pytest.fixture
def options() -> tuple[str, ...]:
    """Return what managers are started with beside their spans."""
    return ()


@pytest.fixture
def managers(url: str, options: tuple[str, ...]) -> Iterator[list[Service]]:
    with ExitStack() as stack:
        yield [stack.enter_context(start_manager(url, *QUICK, *options)) for _ in range(2)]


@pytest.fixture
def worker(managers: list[Service], tmp_path: Path) -> Iterator[Service]:
    """Run a worker that knows the second manager only."""
    with start_worker(address_of(managers[1]), f"bed=nap://{tmp_path}/audit", slots=1) as worker:
        yield worker


@pytest.fixture
async def first(managers: list[Service]) -> AsyncIterator[jobs_grpc.JobServiceStub]:
    async with grpc.aio.insecure_channel(address_of(managers[0])) as channel:
        yield jobs_grpc.JobServiceStub(channel)


async def until(check: Callable[[], Awaitable[bool]], *, seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not await check():  # noqa: ASYNC110 - what is waited for rings nothing
            await asyncio.sleep(0.02)


async def create(stub: jobs_grpc.JobServiceStub, operation: str, milliseconds: int) -> str:
    """Create a job once the worker is known."""
    wanted = job.OperationSpec(name=operation, options={"milliseconds": str(milliseconds)})
    request = jobs.CreateParentJobRequest(targets=["bed"], operations=[wanted])
    async with asyncio.timeout(20):
        while True:
            try:
                return (await stub.CreateParentJob(request)).parent_job.id
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND:
                    raise
            await asyncio.sleep(0.05)


async def state(stub: jobs_grpc.JobServiceStub, parent_id: str) -> str:
    answer = await stub.GetParentJob(jobs.GetParentJobRequest(parent_job_id=parent_id))
    return job.ParentJobState.Name(answer.parent_job.state)


class TestAnyManagerAnswers:
    async def test_a_job_made_at_one_is_run_by_the_worker_of_another_and_watched_at_both(
        self, managers: list[Service], worker: Service, first: jobs_grpc.JobServiceStub
    ) -> None:
        parent_id = await create(first, "nap", 100)

        async def story(address: str) -> list[int]:
            async with grpc.aio.insecure_channel(address) as channel:
                call = jobs_grpc.JobServiceStub(channel).WatchParentJob(
                    jobs.WatchParentJobRequest(parent_job_id=parent_id, after_sequence=0)
                )
                return [answer.event.sequence async for answer in call if answer.HasField("event")]

        stories = await asyncio.gather(*(story(address_of(manager)) for manager in managers))

        assert stories[0] == stories[1] == list(range(1, len(stories[0]) + 1))
        assert await state(first, parent_id) == "PARENT_JOB_STATE_COMPLETED"

    async def test_a_cancel_at_one_reaches_an_operation_that_beats_at_another(
        self, worker: Service, first: jobs_grpc.JobServiceStub
    ) -> None:
        parent_id = await create(first, "nap", 60_000)
        await until(lambda: running(first, parent_id))

        begun = time.monotonic()
        await first.CancelParentJob(jobs.CancelParentJobRequest(parent_job_id=parent_id, reason="enough"))
        await until(lambda: ended(first, parent_id))

        assert await state(first, parent_id) == "PARENT_JOB_STATE_CANCELLED"
        assert time.monotonic() - begun < 10


class TestLog:
    async def test_the_end_of_a_job_is_logged_by_one_manager(
        self, managers: list[Service], first: jobs_grpc.JobServiceStub, tmp_path: Path
    ) -> None:
        with start_worker(",".join(map(address_of, managers)), f"bed=nap://{tmp_path}/audit", slots=2):
            parents = [await create(first, "noop", 0) for _ in range(20)]
            for parent_id in parents:
                await until(partial(ended, first, parent_id))
        for manager in managers:
            assert manager.terminate() == 0

        told = [line["parent_job_id"] for manager in managers for line in said(manager, "parent job ended")]
        assert sorted(told) == sorted(parents)

    async def test_a_lost_worker_is_logged_by_one_manager(
        self, managers: list[Service], first: jobs_grpc.JobServiceStub, tmp_path: Path
    ) -> None:
        addresses = ",".join(map(address_of, managers))
        with start_worker(addresses, f"bed=nap://{tmp_path}/audit", name="anna") as anna:
            await create(first, "nap", 60_000)
            anna.process.send_signal(signal.SIGSTOP)
            await until(partial(said_by_any, managers, "worker lost"))
            await asyncio.sleep(2)  # four times as long as a manager takes to look again
            anna.process.send_signal(signal.SIGCONT)
            await until(partial(said_by_any, managers, "worker is back"))
        for manager in managers:
            assert manager.terminate() == 0

        for event in ("worker lost", "worker is back"):
            assert [line["worker_name"] for manager in managers for line in said(manager, event)] == ["anna"]


@pytest.mark.parametrize("options", [(), ("--store-pooled",)], ids=["listening", "pooled"])
class TestProgress:
    async def test_what_a_worker_tells_one_manager_is_shown_by_another(
        self, managers: list[Service], worker: Service, first: jobs_grpc.JobServiceStub
    ) -> None:
        parent_id = await create(first, "nap", 60_000)
        told: list[jobs.ProgressUpdate] = []
        call: Any = first.WatchParentJob(jobs.WatchParentJobRequest(parent_job_id=parent_id), timeout=20)
        async for message in call:
            if message.HasField("progress"):
                told.append(message.progress)
            if len(told) == 3:
                break
        [child] = await self.children(first, parent_id)
        read = await first.GetChildJob(jobs.GetChildJobRequest(child_job_id=child.id))
        await first.CancelParentJob(jobs.CancelParentJobRequest(parent_job_id=parent_id))
        rest = [message.WhichOneof("update") async for message in call]

        assert {(news.child_job_id, news.operation, news.progress.phase) for news in told} == {
            (child.id, "nap", "nap")
        }
        assert 0 <= told[0].progress.done < told[1].progress.done < told[2].progress.done
        assert child.progress.done >= told[2].progress.done
        assert read.child_job.progress.done >= child.progress.done
        assert rest[-1] == "event"
        [ended] = await self.children(first, parent_id)
        assert not ended.HasField("progress")

    async def children(self, stub: jobs_grpc.JobServiceStub, parent_id: str) -> list[job.ChildJob]:
        answer = await stub.ListChildJobs(jobs.ListChildJobsRequest(parent_job_id=parent_id))
        return list(answer.child_jobs)


def said(manager: Service, event: str) -> list[dict[str, Any]]:
    """Return what a manager logged of something."""
    return [line for line in map(json.loads, list(manager.lines)) if line["event"] == event]


async def said_by_any(managers: list[Service], event: str) -> bool:
    return any(said(manager, event) for manager in managers)


async def running(stub: jobs_grpc.JobServiceStub, parent_id: str) -> bool:
    answer = await stub.GetParentJob(jobs.GetParentJobRequest(parent_job_id=parent_id))
    return bool(answer.parent_job.counts.running)


async def ended(stub: jobs_grpc.JobServiceStub, parent_id: str) -> bool:
    answer = await stub.GetParentJob(jobs.GetParentJobRequest(parent_job_id=parent_id))
    return answer.parent_job.HasField("end_time")


class TestAnOutage:
    async def test_managers_stay_up_and_say_so_and_nothing_expires(
        self,
        server: PostgresServer,
        managers: list[Service],
        worker: Service,
        first: jobs_grpc.JobServiceStub,
        tmp_path: Path,
    ) -> None:
        parent_id = await create(first, "nap", 8_000)
        await until(lambda: running(first, parent_id))
        server.stop()
        try:
            await until(lambda: self.leases_are(managers[0], serving=False))
            refused = await refusal(
                first.GetParentJob(jobs.GetParentJobRequest(parent_job_id=parent_id), timeout=10)
            )
            await asyncio.sleep(4)  # longer than the lease lasts
        finally:
            server.start()
        await until(lambda: self.leases_are(managers[0], serving=True))
        await until(lambda: ended(first, parent_id))

        assert refused.code is grpc.StatusCode.UNAVAILABLE
        assert refused.retry
        assert await state(first, parent_id) == "PARENT_JOB_STATE_COMPLETED"
        assert (tmp_path / "audit").read_text().count("start ") == 1
        for manager in managers:
            assert manager.process.poll() is None
            assert not [line for line in manager.lines if re.search("Traceback|psycopg", line)]

    async def leases_are(self, manager: Service, *, serving: bool) -> bool:
        async with grpc.aio.insecure_channel(address_of(manager)) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=LEASES))
        return bool((answer.status == health_pb2.HealthCheckResponse.SERVING) is serving)
