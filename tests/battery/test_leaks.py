"""Polls, watchers and parent jobs that come and go by the thousand leave the manager as it was."""

import asyncio
import json
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import grpc
import pytest

from overhaul.v1 import fleet_service_pb2 as fleet
from overhaul.v1 import job_service_pb2 as jobs
from overhaul.v1 import lease_service_pb2 as leases
from tests.battery.deployment import ROUNDS, seeded, tell
from tests.battery.remote import Footprint, Latency, footprint, remote
from tests.contract.manager_harness import RunningManager, Worker, eventually, running, served, settings_on
from tests.services import Service

MEGABYTE = 1024 * 1024
POLLS = 2_000
WATCHERS = 500
PARENTS = 1_000
WAVES_OF_PARENTS = 10
AT_ONCE = 50
# For machines that are busy with others: nothing here waits for it.
PATIENCE = 120.0
STARVED = 10.0
LONGEST = 480 * ROUNDS
MORE_TASKS = 5
SAME_COUNTS = 5
Wave = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What a manager holds, seen from outside and from inside."""

    outside: Footprint
    tasks: int
    objects: int

    def __str__(self) -> str:
        outside = self.outside
        return (
            f"{outside.memory / MEGABYTE:.0f} MB, {outside.threads} threads, {outside.files} files, "
            f"{self.tasks} tasks, {self.objects} objects"
        )


async def in_turns(calls: Iterable[Awaitable[Any]]) -> None:
    """Make calls, some at a time."""
    waiting = iter(calls)

    async def one_after_another() -> None:
        for call in waiting:
            await call

    await asyncio.gather(*(one_after_another() for _ in range(AT_ONCE)))


async def all_workers(caller: RunningManager) -> AsyncIterator[fleet.Worker]:
    """List the workers, page by page."""
    token = ""
    while True:
        page = await caller.fleet.ListWorkers(fleet.ListWorkersRequest(page_size=1_000, page_token=token))
        for worker in page.workers:
            yield worker
        token = page.next_page_token
        if not token:
            return


async def holding(manager: Service, *, before: Holding | None = None) -> Holding:
    """Measure a manager once what it was doing has come to rest.

    That is when it has as few tasks as before; without a measure from before, when their number stays the same for
    a while. A manager that never comes to rest is measured all the same, and then found to hold too much.
    """
    deadline = time.monotonic() + PATIENCE
    counts = [await counted(manager)]
    while time.monotonic() < deadline and not _rests([inside["tasks"] for inside in counts], before):
        await asyncio.sleep(0.2)
        counts.append(await counted(manager))
    return Holding(outside=footprint(manager), tasks=counts[-1]["tasks"], objects=counts[-1]["objects"])


def _rests(tasks: list[int], before: Holding | None) -> bool:
    if before is not None:
        return tasks[-1] <= before.tasks + MORE_TASKS
    return len(tasks) >= SAME_COUNTS and len(set(tasks[-SAME_COUNTS:])) == 1


async def counted(manager: Service) -> dict[str, int]:
    manager.lines.clear()
    manager.process.send_signal(signal.SIGUSR1)
    deadline = time.monotonic() + PATIENCE
    while not (found := [line for line in tuple(manager.lines) if line.startswith("inside ")]):
        assert time.monotonic() < deadline, "the manager does not count"
        await asyncio.sleep(0.02)
    inside: dict[str, int] = json.loads(found[-1].removeprefix("inside "))
    return inside


def assert_flat(before: Holding, after: Holding) -> None:
    """Assert that nothing grew; what is allowed is far less than one more wave would take."""
    assert after.tasks <= before.tasks + MORE_TASKS
    assert after.outside.files <= before.outside.files + 10
    assert after.outside.threads <= before.outside.threads + 5
    assert after.objects <= before.objects * 1.02 + 500
    assert after.outside.memory <= before.outside.memory * 1.25 + 16 * MEGABYTE


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[Service]:
    arguments = ["serve", "--listen", "127.0.0.1:0", "--store", f"sqlite:///{tmp_path}/jobs.db"]
    # Sessions that say nothing but polls are not to be lost on a busy machine.
    arguments += ["--lease-duration", "20m", "--retention", "1s", "--synchronous", "normal"]
    arguments += ["--log-level", "warning", "--log-format", "json"]
    with await asyncio.to_thread(Service, "tests.battery.watched_manager", arguments) as service:
        yield service


async def survey(name: str, manager: Service, wave: Wave, *, warm_up: int, waves: int) -> None:
    """Let waves pass, and compare what the manager holds after the first few with what it holds after the last."""
    for _ in range(warm_up):
        await wave()
    before, idle = await holding(manager), await Latency(manager).of(50)
    took: list[float] = []
    async with Latency(manager).meanwhile(took):
        for _ in range(waves):
            await wave()
    after = await holding(manager, before=before)
    tell(f"{name}: before {before}\n{name}: after {after}")
    tell(f"{name}: a call took {idle * 1e3:.1f} ms at rest, {median(took) * 1e3:.1f} ms meanwhile")
    assert_flat(before, after)
    # The callers of the wave share the processors with the manager, so this says only that nobody starves.
    assert median(took) < STARVED


class Parked:
    """Workers whose polls hang, are dropped, are sent again, and at last are closed."""

    def __init__(self, managers: list[RunningManager], chance: random.Random) -> None:
        self._managers = managers
        self._chance = chance

    async def wave(self) -> None:
        workers = [
            Worker(self._managers[number % len(self._managers)], name=f"w{number}", targets=("idle",), slots=1)
            for number in range(POLLS)
        ]
        await in_turns(worker.register() for worker in workers)
        polls = {worker.name: worker.poll(wait=20, timeout=PATIENCE) for worker in workers}
        await self._parked(workers)
        for worker in self._chance.sample(workers, POLLS // 2):
            if self._chance.random() < 0.5:
                polls[worker.name].cancel()
            polls[worker.name + "'"] = worker.poll(wait=20, timeout=PATIENCE)
        await in_turns(self._close(worker) for worker in workers)
        for poll in polls.values():
            await self._ended(poll)

    async def _parked(self, workers: list[Worker]) -> None:
        """Wait until the manager has seen every worker poll."""
        deadline = time.monotonic() + PATIENCE
        seen: set[str] = set()
        while len(seen) < len(workers):
            assert time.monotonic() < deadline, "polls never came"
            await asyncio.sleep(0.3)
            listed = all_workers(self._managers[0])
            seen = {worker.worker_name async for worker in listed if worker.HasField("poll_time")}

    async def _close(self, worker: Worker) -> None:
        request = leases.DeregisterWorkerRequest(session_id=worker.session_id)
        await worker.manager.leases.DeregisterWorker(request)

    async def _ended(self, poll: Any) -> None:
        """A poll ends empty, or, when it came after its session was closed, is refused; some were dropped."""
        try:
            assert not (await poll).leases
        except asyncio.CancelledError:
            return
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                raise


class TestAWorkerThatEnds:
    async def test_is_forgotten_with_its_hanging_heartbeat(self, tmp_path: Path) -> None:
        async with running(settings_on(tmp_path)) as manager:
            worker = await manager.worker("app")
            beat = worker.beat(wait=2)
            heartbeats = manager.manager._desk.heartbeats
            await eventually(self._holds(heartbeats._hanging))
            await manager.leases.DeregisterWorker(leases.DeregisterWorkerRequest(session_id=worker.session_id))
            await beat

            assert heartbeats._hanging == {}
            assert heartbeats._heard == {}

    def _holds(self, hanging: Mapping[str, object]) -> Callable[[], Awaitable[bool]]:
        async def holds() -> bool:
            return bool(hanging)

        return holds


class TestLeaks:
    @pytest.mark.timeout(LONGEST)
    async def test_parked_polls_leave_nothing(self, manager: Service) -> None:
        async with remote(manager) as one, remote(manager) as two, remote(manager) as three:
            parked = Parked([one, two, three], seeded(0))
            await survey("polls", manager, parked.wave, warm_up=1, waves=2 * ROUNDS)

    @pytest.mark.timeout(LONGEST)
    async def test_watchers_leave_nothing(self, manager: Service) -> None:
        async with remote(manager) as caller:
            parent = (await caller.create("nobody", operations=("vacuum",), allow_unknown_targets=True)).id

            async def wave() -> None:
                watches = [caller.watch(parent, timeout=PATIENCE) for _ in range(WATCHERS)]
                for watch in watches:
                    assert (await watch.read()).HasField("snapshot")
                for watch in watches:
                    watch.cancel()

            await survey("watchers", manager, wave, warm_up=2, waves=6 * ROUNDS)

    @pytest.mark.timeout(LONGEST)
    async def test_parent_jobs_created_finished_and_pruned_leave_nothing(self, manager: Service) -> None:
        async with remote(manager) as caller:
            worker = await caller.worker("any", slots=1_000, targets=[self._target()])
            request = jobs.CreateParentJobRequest(targets=["any"])
            request.operations.add(name="vacuum")

            async def wave() -> None:
                await in_turns(caller.jobs.CreateParentJob(request) for _ in range(PARENTS))
                done = 0
                while done < PARENTS:
                    granted = await worker.acquire(most=1_000)
                    await worker.complete(*granted)
                    done += len(granted)
                await self._pruned(caller)

            await survey("parents", manager, wave, warm_up=2, waves=WAVES_OF_PARENTS * ROUNDS)

    def _target(self) -> leases.ServedTarget:
        """Return a target on which a thousand operations may run at once."""
        return served("any", max_parallel=1_000, operations=[leases.OfferedOperation(name="vacuum")])

    async def _pruned(self, caller: RunningManager) -> None:
        deadline = time.monotonic() + PATIENCE
        while (await caller.jobs.ListParentJobs(jobs.ListParentJobsRequest(page_size=1))).parent_jobs:
            assert time.monotonic() < deadline, "finished parent jobs are not pruned"
            await asyncio.sleep(0.1)
