"""No-op children through a manager and two workers: what Overhaul itself costs, beside the least that it could.

Two set-ups: both workers serve all targets, as replicas of one deployment do, or each serves half of them, as
workers close to their databases do. The reference is `bare`, in turn with them.
"""

import asyncio
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc

from benchmarks.figures import RUNS, Figure, cpu_seconds
from overhaul.v1 import job_pb2 as job
from overhaul.v1 import job_service_pb2 as jobs
from overhaul.v1 import job_service_pb2_grpc as jobs_grpc
from tests.services import Service, address_of, start_manager, start_worker

_CHILDREN = {1: 3_000, 10: 10_000, 100: 20_000}
# How many times as many the reference gets, for it is faster.
_BARE = 3
_LONGEST = 120.0
_TARGETS = 1_000
# Seldom enough that looking costs the manager nothing to speak of.
_LOOK_EVERY = 0.05
_AIMS = {(1, "normal"): "at least 1,000", (10, "normal"): "at least 3,000"}


def measure() -> list[Figure]:
    return [
        figure
        for synchronous in ("normal", "full")
        for slots in _CHILDREN
        for figure in _figures(slots, synchronous)
    ]


def _figures(slots: int, synchronous: str) -> list[Figure]:
    children = _CHILDREN[slots]
    rounds = [
        (
            _run(slots, children, synchronous, split=False),
            _run(slots, children, synchronous, split=True),
            _run_bare(slots, children * _BARE, synchronous),
        )
        for _ in range(RUNS)
    ]
    both, split, bare = zip(*rounds, strict=True)
    rates, *cpus = zip(*both, strict=True)
    label = f"slots {slots}, synchronous {synchronous}"
    return [
        Figure(name=label, values=rates, unit="/s", aim=_AIMS.get((slots, synchronous), "")),
        *(
            Figure(name=f"  CPU of {who} per 1,000 children", values=values, unit="s")
            for who, values in zip(("manager", "both workers"), cpus, strict=True)
        ),
        Figure(name="  each worker with half of the targets", values=[rate for rate, *_ in split], unit="/s"),
        Figure(name="  the bare reference", values=bare, unit="/s"),
        Figure(
            name="  Overhaul / the bare reference",
            values=[rate / least for rate, least in zip(rates, bare, strict=True)],
            unit="x",
        ),
    ]


def _run_bare(slots: int, children: int, synchronous: str) -> float:
    """Return how many children per second the reference gets through."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        serve = ["serve", f"{folder}/jobs.db", synchronous, str(children)]
        server = stack.enter_context(Service("benchmarks.bare", serve))
        work = ["work", address_of(server), str(slots)]
        workers = [stack.enter_context(Service("benchmarks.bare", work)) for _ in range(2)]
        begun = time.perf_counter()
        if any(worker.process.wait(_LONGEST) for worker in workers):
            raise AssertionError("the bare reference failed")
        seconds = time.perf_counter() - begun
        server.terminate()
    return children / seconds


def _run(slots: int, children: int, synchronous: str, *, split: bool) -> tuple[float, float, float]:
    """Return children per second, and the CPU seconds of manager and workers per 1,000 children."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "jobs.db"
        with deployment(store, "--synchronous", synchronous, slots=slots, split=split) as (manager, *workers):
            before = [_cpu(manager), sum(map(_cpu, workers))]
            seconds = asyncio.run(drive(address_of(manager), children))
            after = [_cpu(manager), sum(map(_cpu, workers))]
    spent = [(end - begin) / children * 1_000 for begin, end in zip(before, after, strict=True)]
    return children / seconds, spent[0], spent[1]


@contextmanager
def deployment(store: Path | str, *options: str, slots: int, split: bool = False) -> Iterator[list[Service]]:
    """Run a manager and two workers for no-ops; if split, each worker serves half of the targets."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        manager = stack.enter_context(start_manager(store, *options, "--log-level", "warning"))
        targets = [f"t{n}=nap://{folder}/audit{n}" for n in range(_TARGETS)]
        half = _TARGETS // 2 if split else _TARGETS
        yield [
            manager,
            *(
                stack.enter_context(
                    start_worker(address_of(manager), *some, name=name, slots=slots, level="warning")
                )
                for name, some in (("one", targets[:half]), ("two", targets[-half:]))
            ),
        ]


async def drive(address: str, children: int) -> float:
    """Create parent jobs of one no-op per target, two at a time; return the seconds until enough have ended."""
    async with grpc.aio.insecure_channel(address) as channel:
        client = jobs_grpc.JobServiceStub(channel)
        names = [f"t{n}" for n in range(_TARGETS)]
        noop = job.OperationSpec(name="noop")
        request = jobs.CreateParentJobRequest(targets=names, operations=[noop])

        async def create(number: int) -> None:
            for _ in range(number):
                created = await client.CreateParentJob(request)
                await _ended(client, created.parent_job.id)

        parents = children // _TARGETS
        begun = time.perf_counter()
        await asyncio.gather(create(parents // 2), create(parents - parents // 2))
        return time.perf_counter() - begun


async def _ended(client: jobs_grpc.JobServiceStub, parent: str) -> None:
    while True:
        answer = await client.GetParentJob(jobs.GetParentJobRequest(parent_job_id=parent))
        if answer.parent_job.HasField("end_time"):
            return
        await asyncio.sleep(_LOOK_EVERY)


def _cpu(service: Service) -> float:
    return cpu_seconds(service.process.pid)
