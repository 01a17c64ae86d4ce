"""Processes are stopped as a suspended machine stops them, and watchers die at every event."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from overhaul.v1 import job_pb2 as job
from overhaul.v1 import job_service_pb2 as jobs
from overhaul.v1 import job_service_pb2_grpc as jobs_grpc
from tests.battery.deployment import (
    PATIENCE,
    Deployment,
    children_of,
    client_of,
    create,
    events_of,
    freeze,
    thaw,
    until,
)
from tests.battery.verdicts import assert_recorded_once, assert_told_once, taken_back
from tests.services import Service, address_of

LEASE_SECONDS = 2.5
# A lease ends with a loss or a report; past this a stopped worker's has run out, were it not for an outage.
LONGER = LEASE_SECONDS + 1.5
FAINT_MS = 1_500


class Scene:
    """One parent job with one child that faints: it hears nothing until it is over."""

    def __init__(self, client: jobs_grpc.JobServiceStub, manager: Service, parent: str) -> None:
        self.client = client
        self.manager = manager
        self.parent = parent

    async def child(self) -> jobs.GetChildJobResponse:
        [child] = await children_of(self.client, self.parent)
        return child

    async def until(self, is_so: Callable[[job.ChildJob], bool]) -> None:
        """Wait until the child is as it has to be."""
        deadline = time.monotonic() + PATIENCE
        while not is_so((await self.child()).child_job):
            assert time.monotonic() < deadline, "never so"
            await asyncio.sleep(0.02)

    async def over(self) -> tuple[jobs.GetChildJobResponse, list[jobs.JobEvent]]:
        """Wait for the end; return the child and every event."""
        async with asyncio.timeout(PATIENCE):
            events = await events_of(address_of(self.manager), self.parent)
        return await self.child(), events


@asynccontextmanager
async def scene(deployment: Deployment, operation: str, milliseconds: int) -> AsyncIterator[Scene]:
    manager = deployment.manager()
    deployment.worker(address_of(manager), name="first")
    async with client_of(address_of(manager)) as client:
        stage = Scene(client, manager, await create(client, ["bed"], (operation, milliseconds)))
        await until(lambda: len(deployment.naps()) == 1, "the operation began")
        await stage.until(lambda child: child.state == job.CHILD_JOB_STATE_RUNNING)
        yield stage


def first_worker(deployment: Deployment) -> Service:
    """Return the worker that runs the first attempt."""
    [pid] = {nap.pid for nap in deployment.naps() if nap.attempt == 1}
    return deployment.services[pid]


def said(service: Service, *texts: str) -> bool:
    return any(text in line for line in tuple(service.lines) for text in texts)


class TestAStoppedWorker:
    async def test_its_late_report_changes_nothing_once_another_took_over(self, deployment: Deployment) -> None:
        async with scene(deployment, "faint", FAINT_MS) as stage:
            first = first_worker(deployment)
            freeze(first)
            deployment.worker(address_of(stage.manager), name="second")
            await until(lambda: len(deployment.naps()) == 2, "another worker took over")
            thaw(first)
            # It reports, unless it heard before that its lease is lost.
            await until(lambda: said(first, "report came too late", '"stop": "lost"'), "the first heard of it")
            child, events = await stage.over()

        assert_told_once(events, [child])
        assert_recorded_once(child)
        late, recorded = child.attempts[0], child.attempts[-1]
        assert taken_back(late)
        assert (late.worker_name, recorded.worker_name) == ("first", "second")
        assert len(late.stale_reports) == said(first, "report came too late")
        assert child.child_job.losses == 1

    async def test_its_late_report_counts_when_nobody_took_the_lease_back(self, deployment: Deployment) -> None:
        async with scene(deployment, "faint", FAINT_MS) as stage:
            first = first_worker(deployment)
            freeze(first)
            freeze(stage.manager)
            await asyncio.sleep(LONGER)
            thaw(first)
            await until(lambda: deployment.naps()[0].end is not None, "the operation ended")
            thaw(stage.manager)
            child, events = await stage.over()

        assert_told_once(events, [child])
        assert_recorded_once(child)
        assert (child.child_job.attempts, child.child_job.losses) == (1, 0)

    async def test_alone_it_begins_again_what_it_lost(self, deployment: Deployment) -> None:
        async with scene(deployment, "nap", FAINT_MS) as stage:
            first = first_worker(deployment)
            freeze(first)
            await stage.until(lambda child: child.losses == 1)
            thaw(first)
            child, events = await stage.over()

        assert_told_once(events, [child])
        assert_recorded_once(child)
        assert taken_back(child.attempts[0])
        # What its hanging poll was granted while it stood still may have gone back too, at no cost.
        assert child.child_job.attempts >= 2
        assert child.child_job.losses == 1


class TestAStoppedManager:
    async def test_nothing_expires_because_of_it(self, deployment: Deployment) -> None:
        manager = deployment.manager()
        beds = [f"bed{number}" for number in range(6)]
        workers = [
            deployment.worker(address_of(manager), *map(deployment.bed, beds), name=name, slots=2)
            for name in ("first", "second")
        ]
        async with client_of(address_of(manager)) as client:
            parent = await create(client, beds, ("nap", 3_000), ("doze", 10))
            await until(lambda: sum(len(deployment.naps(bed)) for bed in beds) == 4, "every slot is full")
            freeze(manager)
            await asyncio.sleep(LONGER)
            thaw(manager)
            events = await events_of(address_of(manager), parent)
            children = await children_of(client, parent)

        assert_told_once(events, children)
        for child in children:
            assert_recorded_once(child)
        assert {(child.child_job.attempts, child.child_job.losses) for child in children} == {(1, 0)}
        assert all(worker.process.poll() is None for worker in workers)

    async def test_again_and_again_it_expires_nothing_that_lives(self, deployment: Deployment) -> None:
        async with scene(deployment, "nap", 4_000) as stage:
            for _ in range(3):
                freeze(stage.manager)
                await asyncio.sleep(LEASE_SECONDS / 2)
                thaw(stage.manager)
                await stage.child()
            child, events = await stage.over()

        assert_told_once(events, [child])
        assert (child.child_job.attempts, child.child_job.losses) == (1, 0)


class TestAWatcherKilledAtEveryEvent:
    async def test_sees_each_sequence_once(self, deployment: Deployment) -> None:
        manager = deployment.manager()
        beds = [f"bed{number}" for number in range(5)]
        deployment.worker(address_of(manager), *map(deployment.bed, beds))
        async with client_of(address_of(manager)) as client:
            parent = await create(client, beds, ("nap", 30), ("doze", 10), ("noop", None))
            throughout = asyncio.create_task(events_of(address_of(manager), parent))
            seen: list[jobs.JobEvent] = []
            while event := await self._one_event(address_of(manager), parent, seen[-1].sequence if seen else 0):
                seen.append(event)
            children = await children_of(client, parent)

        assert seen == await throughout
        assert_told_once(seen, children)

    async def _one_event(self, address: str, parent: str, after: int) -> jobs.JobEvent | None:
        """Watch on a connection of its own, which breaks at the first event; ``None`` after the last."""
        async with client_of(address) as client:
            request = jobs.WatchParentJobRequest(parent_job_id=parent, after_sequence=after)
            async for update in client.WatchParentJob(request, timeout=PATIENCE):
                if update.HasField("event"):
                    return update.event
        return None
