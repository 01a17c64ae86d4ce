"""Managers and workers that a test kills and stops, on targets that keep an audit."""

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from overhaul.v1 import job_pb2 as job
from overhaul.v1 import job_service_pb2 as jobs
from overhaul.v1 import job_service_pb2_grpc as jobs_grpc
from tests.services import Service, start_manager, start_worker

ROUNDS = int(os.environ.get("OVERHAUL_BATTERY_ROUNDS", "1"))
QUICK = ("--heartbeat-interval", "300ms", "--lease-duration", "2500ms", "--accept-within", "2500ms")
PATIENCE = 60.0
EVER_NEW = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
)
_AWAY = frozenset({grpc.StatusCode.UNAVAILABLE})


def tell(line: str) -> None:
    """Say what a run was like; pytest shows it when the test fails, and always with -s."""
    sys.stdout.write(f"{line}\n")


def seeded(round_: int) -> random.Random:
    """Return the chance of a round; its seed is printed, and can be given to see the same again."""
    seed = os.environ.get("OVERHAUL_BATTERY_SEED") or f"{random.SystemRandom().randrange(2**32)}"
    tell(f"OVERHAUL_BATTERY_SEED={seed}, round {round_}")
    return random.Random(f"{seed}/{round_}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Nap:
    """What one attempt did on one target, from the target's own audit; ``end`` is unset when it never ended."""

    child_job_id: str
    attempt: int
    pid: int
    begin: int
    end: int | None = None


@dataclass(slots=True)
class Deployment:
    """A store, targets, and the services on them."""

    folder: Path
    stack: ExitStack
    # Where jobs are kept, if that is not a file of the folder.
    url: str = ""
    died: dict[int, int] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    services: dict[int, Service] = field(default_factory=dict)
    managers: list[Service] = field(default_factory=list)

    @property
    def store(self) -> Path:
        return self.folder / "jobs.db"

    def bed(self, name: str = "bed") -> str:
        """Return a target that is napped on, as an argument of a worker."""
        return f"{name}=nap://{self.audit(name)}"

    def audit(self, name: str = "bed") -> Path:
        return self.folder / f"{name}.audit"

    def manager(self, *arguments: str, listen: str = "127.0.0.1:0") -> Service:
        manager = self.stack.enter_context(
            start_manager(self.url or self.store, *QUICK, *arguments, listen=listen)
        )
        self.managers.append(manager)
        return manager

    def worker(self, address: str, *targets: str, name: str = "worker", slots: int = 4) -> Service:
        worker = self.stack.enter_context(
            start_worker(address, *(targets or (self.bed(),)), name=name, slots=slots, grace="10")
        )
        self.names[worker.process.pid] = name
        self.services[worker.process.pid] = worker
        return worker

    def kill(self, service: Service) -> None:
        """Kill a service, and note by when it was certainly dead."""
        service.kill()
        self.died[service.process.pid] = time.monotonic_ns()

    def naps(self, name: str = "bed") -> list[Nap]:
        """Read what was really done on a target, in order."""
        found: dict[tuple[str, int], Nap] = {}
        for line in self.audit(name).read_text().splitlines() if self.audit(name).exists() else ():
            mark, child, attempt, pid, when = line.split()
            key = (child, int(attempt))
            if mark == "start":
                assert key not in found, f"attempt {key} began twice"
                found[key] = Nap(child_job_id=child, attempt=int(attempt), pid=int(pid), begin=int(when))
            else:
                begun = found[key]
                assert begun.end is None, f"attempt {key} ended twice"
                assert begun.pid == int(pid)
                found[key] = Nap(
                    child_job_id=child, attempt=int(attempt), pid=int(pid), begin=begun.begin, end=int(when)
                )
        return sorted(found.values(), key=lambda nap: nap.begin)


def freeze(service: Service) -> None:
    """Stop a service as a suspended machine would, and wait until it stands still."""
    service.process.send_signal(signal.SIGSTOP)
    status = Path(f"/proc/{service.process.pid}/stat")
    while status.read_text().rpartition(")")[2].split()[0] != "T":
        time.sleep(0.001)


def thaw(service: Service) -> None:
    """Let a stopped service go on."""
    service.process.send_signal(signal.SIGCONT)


@asynccontextmanager
async def client_of(address: str) -> AsyncIterator[jobs_grpc.JobServiceStub]:
    async with grpc.aio.insecure_channel(address, options=EVER_NEW) as channel:
        yield jobs_grpc.JobServiceStub(channel)


async def create(
    client: jobs_grpc.JobServiceStub, targets: Sequence[str], *operations: tuple[str, int | None]
) -> str:
    """Create a parent job that outlives any number of losses; return its id."""
    request = jobs.CreateParentJobRequest(
        targets=targets,
        operations=[
            job.OperationSpec(name=name, options={} if ms is None else {"milliseconds": str(ms)})
            for name, ms in operations
        ],
        retry_policy=job.RetryPolicy(max_losses=100, max_failures=100),
    )
    request.retry_policy.initial_backoff.FromMilliseconds(50)
    request.retry_policy.max_backoff.FromMilliseconds(500)
    return (await client.CreateParentJob(request)).parent_job.id


async def events_of(address: str, parent_job_id: str) -> list[jobs.JobEvent]:
    """Watch a parent job from its first event to its last, through every outage; return what came, as it came."""
    seen: list[jobs.JobEvent] = []
    async with client_of(address) as client:
        while True:
            after = seen[-1].sequence if seen else 0
            request = jobs.WatchParentJobRequest(parent_job_id=parent_job_id, after_sequence=after)
            try:
                async for update in client.WatchParentJob(request):
                    assert not update.HasField("snapshot"), "events were missing"
                    if update.HasField("event"):
                        seen.append(update.event)
            except grpc.aio.AioRpcError as error:
                if error.code() not in _AWAY:
                    raise
                await asyncio.sleep(0.05)
            else:
                return seen


async def children_of(client: jobs_grpc.JobServiceStub, parent_job_id: str) -> list[jobs.GetChildJobResponse]:
    """Read every child of a parent job with its attempts."""
    request = jobs.ListChildJobsRequest(parent_job_id=parent_job_id, page_size=1_000)
    listed = (await client.ListChildJobs(request)).child_jobs
    return [await client.GetChildJob(jobs.GetChildJobRequest(child_job_id=child.id)) for child in listed]


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for what a test cannot be told of."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        await asyncio.sleep(0.005)
