"""A client and several managers: its calls spread, and none is lost when a manager drains, dies or comes back."""

import asyncio
import signal
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import grpc
import pytest
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from manager_service.client import ManagerClient
from manager_service.client.errors import ManagerUnreachableError
from overhaul.v1 import job_service_pb2
from overhaul.v1 import lease_service_pb2 as leases
from overhaul.v1.lease_service_pb2_grpc import LeaseServiceStub
from tests.client_doubles import wire
from tests.client_doubles.fake_manager import FakeManager, Refusal
from tests.client_doubles.name_server import name_server
from tests.services import Service, address_of, start_manager

CALLERS = 6
PATIENCE = 20.0


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110 - processes decide
            await asyncio.sleep(0.01)


async def mark(manager: Service, name: str) -> None:
    """Let a manager be told from others by the worker that it knows."""
    request = leases.RegisterWorkerRequest(
        worker_name=name, instance_id=str(uuid.uuid4()), protocol_version=1, slots=1
    )
    async with grpc.aio.insecure_channel(address_of(manager)) as channel:
        await LeaseServiceStub(channel).RegisterWorker(request)


class Managers:
    """Three processes with a store each; they share nothing, but no call of these tests needs them to."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._running: dict[str, Service] = {}

    @property
    def addresses(self) -> str:
        return ",".join(map(address_of, self._running.values()))

    async def start(self, name: str) -> None:
        before = self._running.get(name)
        listen = address_of(before) if before else "127.0.0.1:0"
        manager = await asyncio.to_thread(start_manager, self._folder / f"{name}.db", listen=listen)
        self._running[name] = self._stack.enter_context(manager)
        await mark(manager, name)

    async def end(self, name: str, number: signal.Signals) -> None:
        self._running[name].process.send_signal(number)
        await asyncio.to_thread(self._running[name].wait)


@pytest.fixture
async def managers(tmp_path: Path) -> AsyncIterator[Managers]:
    with ExitStack() as stack:
        three = Managers(tmp_path, stack)
        for name in ("a", "b", "c"):
            await three.start(name)
        yield three


@asynccontextmanager
async def calling(client: ManagerClient) -> AsyncIterator[Counter[str]]:
    """Call all the time; yield who answered how often. A call that fails fails the test."""
    answered: Counter[str] = Counter()

    async def call() -> None:
        while True:
            async for worker in client.list_workers():
                answered[worker.worker_name] += 1

    async with asyncio.TaskGroup() as group:
        callers = [group.create_task(call()) for _ in range(CALLERS)]
        yield answered
        for caller in callers:
            caller.cancel()


async def reached(client: ManagerClient, *managers: FakeManager) -> None:
    """Call until each of the managers was asked."""
    for manager in managers:
        manager.answers("GetParentJob", job_service_pb2.GetParentJobResponse())
    async with asyncio.timeout(PATIENCE):
        while not all(manager.calls for manager in managers):
            await client.get_parent_job(wire.PARENT_ID)


class TestManagersOfAList:
    async def test_calls_spread_and_none_is_lost_whatever_becomes_of_a_manager(self, managers: Managers) -> None:
        async with ManagerClient(managers.addresses) as client, calling(client) as answered:
            await until(lambda: len(answered) == 3 and answered.total() > 300)
            answered.clear()
            await until(lambda: answered.total() >= 300)
            assert min(answered.values()) > 80

            for ended, number in (("a", signal.SIGTERM), ("b", signal.SIGKILL)):
                await managers.end(ended, number)
                answered.clear()
                await until(lambda: answered.total() >= 100)
                assert ended not in answered
            await managers.start("a")
            await managers.start("b")
            await until(lambda: min(answered["a"], answered["b"]) > 50)

    async def test_one_that_is_not_healthy_is_passed_over(self) -> None:
        with FakeManager() as ill, FakeManager() as well:
            async with ManagerClient(f"{ill.address},{well.address}") as client:
                await reached(client, ill, well)
                ill.health.set("overhaul.v1.JobService", health_pb2.HealthCheckResponse.NOT_SERVING)
                await asyncio.sleep(0.2)
                before = len(ill.calls)
                for _ in range(10):
                    await client.get_parent_job(wire.PARENT_ID)

        assert len(ill.calls) == before

    async def test_a_watch_that_breaks_off_is_resumed_at_another(self) -> None:
        def script(request: job_service_pb2.WatchParentJobRequest) -> Iterator[Message | Refusal]:
            if request.after_sequence == 4:
                yield wire.parent_event(5, wire.completed_parent_job())
            else:
                yield wire.snapshot(wire.parent_job(sequence=3))
                yield wire.child_event(4)
                yield Refusal(code=grpc.StatusCode.UNAVAILABLE, reason="SHUTTING_DOWN")

        with FakeManager() as one, FakeManager() as other:
            for manager in (one, other):
                manager.answers("WatchParentJob", script)
            async with ManagerClient(f"{one.address},{other.address}") as client:
                await reached(client, one, other)
                updates = [update async for update in client.watch_parent_job(wire.PARENT_ID)]

        assert [update.event.sequence for update in updates if update.HasField("event")] == [4, 5]
        assert len(one.requests("WatchParentJob")) == len(other.requests("WatchParentJob")) == 1


async def answered_by_any(client: ManagerClient) -> None:
    """Call until a manager is found."""
    while True:
        try:
            await client.get_parent_job(wire.PARENT_ID)
        except ManagerUnreachableError:
            continue
        return


class TestManagersOfAName:
    async def test_all_are_used_and_others_are_found_that_took_their_place(self) -> None:
        with ExitStack() as stack:
            first = stack.enter_context(FakeManager())
            old = [first, stack.enter_context(FakeManager(first.port, host="127.0.0.2"))]
            new = stack.enter_context(FakeManager(first.port, host="127.0.0.3"))
            new.answers("GetParentJob", job_service_pb2.GetParentJobResponse())
            async with name_server() as names:
                names.addresses = ["127.0.0.1", "127.0.0.2"]
                address = f"dns://127.0.0.1:{names.port}/managers.example:{first.port}"
                async with ManagerClient(address) as client:
                    await reached(client, *old)
                    names.addresses = ["127.0.0.3"]
                    for manager in old:
                        await asyncio.to_thread(manager.stop)
                    async with asyncio.timeout(10):
                        await answered_by_any(client)

        assert len(new.calls) == 1
