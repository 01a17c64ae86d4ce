"""What happens when a process dies, through every seam: real processes, real gRPC, a real store."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from pathlib import Path

import grpc
import pytest

from overhaul.v1 import fleet_service_pb2 as fleet
from overhaul.v1 import fleet_service_pb2_grpc as fleet_grpc
from overhaul.v1 import job_pb2 as job
from overhaul.v1 import job_service_pb2 as jobs
from overhaul.v1 import job_service_pb2_grpc as jobs_grpc
from tests.services import Service, address_of, start_manager, start_worker

QUICK = ("--heartbeat-interval", "300ms", "--lease-duration", "2500ms", "--accept-within", "2500ms")
PATIENCE = 30.0


class Deployment:
    """A store, an audit file, and the services a test starts on them."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.store = folder / "jobs.db"
        self.audit = folder / "audit"
        self._stack = stack

    def enter(self, service: AbstractContextManager[Service]) -> Service:
        return self._stack.enter_context(service)

    def manager(self, *arguments: str, listen: str = "127.0.0.1:0") -> Service:
        return self.enter(start_manager(self.store, *QUICK, *arguments, listen=listen))

    def worker(self, manager: Service, name: str = "worker", **options: int | str) -> Service:
        grace = str(options.get("grace", "10"))
        target = f"bed=nap://{self.audit}"
        return self.enter(start_worker(address_of(manager), target, name=name, grace=grace))

    def marks(self, mark: str) -> int:
        if not self.audit.exists():
            return 0
        return sum(line.startswith(mark) for line in self.audit.read_text().splitlines())


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    with ExitStack() as stack:
        yield Deployment(tmp_path, stack)


@asynccontextmanager
async def stub(manager: Service) -> AsyncIterator[jobs_grpc.JobServiceStub]:
    async with grpc.aio.insecure_channel(address_of(manager)) as channel:
        yield jobs_grpc.JobServiceStub(channel)


async def create(client: jobs_grpc.JobServiceStub, *operations: tuple[str, int]) -> str:
    request = jobs.CreateParentJobRequest(
        targets=["bed"],
        operations=[job.OperationSpec(name=name, options={"milliseconds": str(ms)}) for name, ms in operations],
        retry_policy=job.RetryPolicy(max_losses=3),
    )
    request.retry_policy.initial_backoff.FromMilliseconds(50)
    return (await client.CreateParentJob(request)).parent_job.id


async def children(client: jobs_grpc.JobServiceStub, parent_job_id: str) -> list[job.ChildJob]:
    answer = await client.ListChildJobs(jobs.ListChildJobsRequest(parent_job_id=parent_job_id))
    return list(answer.child_jobs)


async def ended(client: jobs_grpc.JobServiceStub, parent_job_id: str) -> job.ParentJob:
    """Follow the job to its end by its watch stream."""
    watch = client.WatchParentJob(jobs.WatchParentJobRequest(parent_job_id=parent_job_id), timeout=PATIENCE)
    async for _ in watch:
        pass
    return (await client.GetParentJob(jobs.GetParentJobRequest(parent_job_id=parent_job_id))).parent_job


async def started(deployment: Deployment, times: int = 1) -> None:
    """Wait until an operation has really begun for the n-th time."""
    deadline = time.monotonic() + PATIENCE
    while deployment.marks("start") < times:
        assert time.monotonic() < deadline, "the operation never began"
        await asyncio.sleep(0.01)


async def accepted(client: jobs_grpc.JobServiceStub, parent_job_id: str) -> None:
    """Wait until a heartbeat has named the lease of the only child."""
    async with asyncio.timeout(PATIENCE):
        while (await children(client, parent_job_id))[0].state != job.CHILD_JOB_STATE_RUNNING:  # noqa: ASYNC110 - a service decides
            await asyncio.sleep(0.01)


async def follow(
    client: jobs_grpc.JobServiceStub, parent: str, seen: list[int], on_event: Callable[[], None] = lambda: None
) -> None:
    """Watch from the last sequence seen on, and note every further one."""
    request = jobs.WatchParentJobRequest(parent_job_id=parent, after_sequence=seen[-1] if seen else 0)
    async for update in client.WatchParentJob(request, timeout=PATIENCE):
        if update.HasField("event"):
            seen.append(update.event.sequence)
        on_event()


def kill_in_the_second_nap(deployment: Deployment, manager: Service) -> None:
    if deployment.marks("start") == 2:
        manager.kill()


class TestAKilledWorker:
    async def test_its_child_is_run_by_another_and_costs_one_loss(self, deployment: Deployment) -> None:
        manager = deployment.manager()
        first = deployment.worker(manager, "first")
        async with stub(manager) as client:
            parent = await create(client, ("nap", 2_000))
            await started(deployment)
            await accepted(client, parent)
            first.kill()
            deployment.worker(manager, "second")
            final = await ended(client, parent)
            [child] = await children(client, parent)

        assert final.state == job.PARENT_JOB_STATE_COMPLETED
        assert (child.attempts, child.losses, child.failures) == (2, 1, 0)
        assert deployment.marks("start") == 2
        assert deployment.marks("end") == 1

    async def test_restarted_under_its_name_it_goes_on(self, deployment: Deployment) -> None:
        manager = deployment.manager()
        deployment.worker(manager).kill()
        deployment.worker(manager)
        async with stub(manager) as client:
            final = await ended(client, await create(client, ("nap", 10), ("noop", 0)))

        assert final.state == job.PARENT_JOB_STATE_COMPLETED


class TestAKilledManager:
    async def test_nothing_is_lost_and_no_lease_expires(self, deployment: Deployment) -> None:
        manager = deployment.manager()
        deployment.worker(manager)
        async with stub(manager) as client:
            parent = await create(client, ("nap", 5_000), ("doze", 10))
            await started(deployment)
        manager.kill()
        await asyncio.sleep(3)
        again = deployment.manager(listen=address_of(manager))
        async with stub(again) as client:
            final = await ended(client, parent)
            found = await children(client, parent)

        assert final.state == job.PARENT_JOB_STATE_COMPLETED
        assert [(child.attempts, child.losses) for child in found] == [(1, 0), (1, 0)]
        assert deployment.marks("start") == 2

    async def test_a_watch_resumes_without_a_gap(self, deployment: Deployment) -> None:
        manager = deployment.manager()
        deployment.worker(manager)
        seen: list[int] = []
        async with stub(manager) as client:
            parent = await create(client, ("nap", 10), ("doze", 3_000), ("rest", 10))
            with pytest.raises(grpc.aio.AioRpcError) as broken:
                await follow(client, parent, seen, on_event=lambda: kill_in_the_second_nap(deployment, manager))
        again = deployment.manager(listen=address_of(manager))
        async with stub(again) as client:
            await follow(client, parent, seen)
            final = await client.GetParentJob(jobs.GetParentJobRequest(parent_job_id=parent))

        assert broken.value.code() == grpc.StatusCode.UNAVAILABLE
        assert seen == list(range(1, final.parent_job.sequence + 1))


class TestCancel:
    async def test_a_running_operation_is_interrupted(self, deployment: Deployment) -> None:
        manager = deployment.manager()
        deployment.worker(manager)
        async with stub(manager) as client:
            parent = await create(client, ("nap", 20_000), ("doze", 10))
            await started(deployment)
            await client.CancelParentJob(jobs.CancelParentJobRequest(parent_job_id=parent, reason="enough"))
            final = await ended(client, parent)
            found = await children(client, parent)

        assert final.state == job.PARENT_JOB_STATE_CANCELLED
        assert Counter(child.state for child in found) == {job.CHILD_JOB_STATE_CANCELLED: 2}
        assert deployment.marks("end") == 1
        assert "enough" in found[0].reason


class TestDrain:
    async def test_sigterm_finishes_within_the_grace(self, deployment: Deployment) -> None:
        manager = deployment.manager()
        worker = deployment.worker(manager)
        async with stub(manager) as client:
            parent = await create(client, ("nap", 700))
            await started(deployment)
            code = worker.terminate()
            final = await ended(client, parent)

        assert code == 0
        assert final.state == job.PARENT_JOB_STATE_COMPLETED
        assert deployment.marks("start") == 1

    async def test_what_outlives_the_grace_is_released_at_no_cost(self, deployment: Deployment) -> None:
        manager = deployment.manager()
        worker = deployment.worker(manager, "first", grace="0.3")
        async with stub(manager) as client:
            parent = await create(client, ("nap", 2_500))
            await started(deployment)
            code = worker.terminate()
            [released] = await children(client, parent)
            deployment.worker(manager, "second")
            final = await ended(client, parent)
            [child] = await children(client, parent)

        assert code == 0
        assert released.state == job.CHILD_JOB_STATE_PENDING
        assert final.state == job.PARENT_JOB_STATE_COMPLETED
        assert (child.attempts, child.failures, child.losses) == (2, 0, 0)

    async def test_a_worker_told_to_terminate_ends_when_idle(self, deployment: Deployment) -> None:
        manager = deployment.manager()
        worker = deployment.worker(manager, "leaver")
        async with grpc.aio.insecure_channel(address_of(manager)) as channel:
            client = fleet_grpc.FleetServiceStub(channel)
            await client.DrainWorker(fleet.DrainWorkerRequest(worker_name="leaver", terminate=True))

        assert await asyncio.to_thread(worker.wait) == 0


class TestLogs:
    async def test_every_line_about_a_job_has_its_id_on_both_sides(self, deployment: Deployment) -> None:
        manager = deployment.manager()
        worker = deployment.worker(manager)
        async with stub(manager) as client:
            parent = await create(client, ("nap", 50))
            await ended(client, parent)
            [child] = await children(client, parent)
            entries = [
                entry.message
                async for page in client.ReadLogs(jobs.ReadLogsRequest(child_job_id=child.id, follow=True))
                for entry in page.entries
            ]
        worker.terminate()
        manager.terminate()

        assert entries == ["napping for 50 ms"]
        assert any(parent in line for line in manager.lines)
        about_child = [line for line in worker.lines if child.id in line]
        assert about_child
        assert all(parent in line for line in about_child)
