"""How long a request takes to reach the operation, and a cancel the statement, on an idle deployment."""

import asyncio
import tempfile
import time
from pathlib import Path
from statistics import median

import grpc

from benchmarks.figures import RUNS, Figure, percentile
from overhaul.v1 import job_pb2 as job
from overhaul.v1 import job_service_pb2 as jobs
from overhaul.v1 import job_service_pb2_grpc as jobs_grpc
from tests.services import address_of, start_manager, start_worker

_SAMPLES = 400


def measure() -> list[Figure]:
    dispatches, cancels = zip(*(_run() for _ in range(RUNS)), strict=True)
    return [
        Figure(name="dispatch, median", values=[median(d) for d in dispatches], unit="ms", aim="under 5"),
        Figure(
            name="dispatch, 99th percentile",
            values=[percentile(d, 99) for d in dispatches],
            unit="ms",
            aim="under 20",
        ),
        Figure(name="cancel to interrupt, median", values=[median(c) for c in cancels], unit="ms", aim="under 30"),
        Figure(
            name="cancel to interrupt, 99th percentile",
            values=[percentile(c, 99) for c in cancels],
            unit="ms",
            aim="under 100",
        ),
    ]


def _run() -> tuple[list[float], list[float]]:
    with tempfile.TemporaryDirectory() as folder:
        audit = Path(folder) / "audit"
        with (
            start_manager(Path(folder) / "jobs.db", "--log-level", "warning") as manager,
            start_worker(address_of(manager), f"bed=nap://{audit}"),
        ):
            return asyncio.run(sample(address_of(manager), audit, _SAMPLES))


async def sample(address: str, audit: Path, samples: int) -> tuple[list[float], list[float]]:
    """Start naps and cancel them, one after the other; return the milliseconds of both."""
    dispatches, cancels = [], []
    async with grpc.aio.insecure_channel(address) as channel:
        client = jobs_grpc.JobServiceStub(channel)
        for _ in range(samples):
            latency, parent = await dispatch(client, audit, milliseconds=60_000)
            dispatches.append(latency)
            await asyncio.sleep(0.05)
            cancels.append(await _cancel(client, parent))
    return dispatches, cancels


async def dispatch(client: jobs_grpc.JobServiceStub, audit: Path, *, milliseconds: int) -> tuple[float, str]:
    """Ask for a nap; return the milliseconds from the call to the nap's start, and the parent job's id."""
    operation = job.OperationSpec(name="nap", options={"milliseconds": f"{milliseconds}"})
    request = jobs.CreateParentJobRequest(targets=["bed"], operations=[operation])
    before = len(_starts(audit))
    sent = time.monotonic_ns()
    parent = (await client.CreateParentJob(request)).parent_job.id
    # Nothing is asked of the manager meanwhile: it would be measured as well.
    return (await asyncio.to_thread(_next_start, audit, before) - sent) / 1e6, parent


def _next_start(audit: Path, before: int) -> int:
    """Return the machine's monotonic clock at the operation's start, as the engine wrote it down."""
    while len(starts := _starts(audit)) == before:
        time.sleep(0.005)
    return int(starts[before].split()[-1])


def _starts(audit: Path) -> list[str]:
    lines = audit.read_text().splitlines() if audit.exists() else []
    return [line for line in lines if line.startswith("start ")]


async def _cancel(client: jobs_grpc.JobServiceStub, parent: str) -> float:
    """Return the milliseconds from sending the cancel to the interrupt, as the engine noted it."""
    sent = time.monotonic_ns()
    await client.CancelParentJob(jobs.CancelParentJobRequest(parent_job_id=parent))
    async for _ in client.WatchParentJob(jobs.WatchParentJobRequest(parent_job_id=parent)):
        pass
    answer = await client.ListChildJobs(jobs.ListChildJobsRequest(parent_job_id=parent))
    return (answer.child_jobs[0].after["interrupt_ns"] - sent) / 1e6
