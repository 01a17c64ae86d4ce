"""What the benchmarks say to a manager in a process of its own, and what they see of that process."""

import time
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any

from overhaul.v1 import job_service_pb2 as jobs
from overhaul.v1 import lease_service_pb2 as leases
from tests.contract.manager_harness import RunningManager, Worker, result
from tests.services import Service

PATIENCE = 300.0
_DESCRIPTION = "what an operation does, as long as such a text is"
_OPTION = leases.OptionSpec(name="full", type=leases.OPTION_TYPE_BOOLEAN, description="all of it")
# Leases of these workers last though they never beat.
OPTIONS = ("--lease-duration", "20m", "--log-level", "warning")


def served(name: str, operations: Sequence[str], *locks: leases.Lock, **fields: Any) -> leases.ServedTarget:
    """Return a target as a worker offers it; without locks each operation takes the whole database for itself."""
    keys = locks or (leases.Lock(key=f"sqlite:{name}", exclusive=True),)
    offers = [
        leases.OfferedOperation(name=operation, description=_DESCRIPTION, options=[_OPTION], locks=keys)
        for operation in operations
    ]
    given = {"engine": "sqlite", "engine_version": "3.53", "identity": f"file:{name}", "max_parallel": 1, **fields}
    return leases.ServedTarget(name=name, operations=offers, **given)


async def worker(
    caller: RunningManager, name: str, targets: Sequence[leases.ServedTarget], *, slots: int = 100
) -> Worker:
    """Open a session."""
    opened = Worker(caller, name=name, targets=(), slots=slots, fields={"targets": targets})
    await opened.register()
    return opened


async def retire(opened: Worker) -> None:
    """Close a session."""
    request = leases.DeregisterWorkerRequest(session_id=opened.session_id)
    await opened.manager.leases.DeregisterWorker(request)


async def create(caller: RunningManager, targets: Sequence[str], operations: Sequence[str], **fields: Any) -> str:
    """Make a parent job and return its id."""
    request = jobs.CreateParentJobRequest(targets=targets, **fields)
    for name in operations:
        request.operations.add(name=name)
    return (await caller.jobs.CreateParentJob(request, timeout=PATIENCE)).parent_job.id


async def snapshot(caller: RunningManager, parent: str) -> None:
    """Begin to watch a parent job, and leave after the first message."""
    watch = caller.watch(parent)
    await watch.read()
    watch.cancel()


async def grant(opened: Worker, number: int) -> list[leases.Lease]:
    """Claim so many leases, and fail if there are fewer."""
    granted = await opened.acquire(most=number)
    if len(granted) != number:
        raise AssertionError(f"{len(granted)} leases instead of {number}")
    return granted


async def report(opened: Worker, granted: Sequence[leases.Lease]) -> None:
    """Report leases as completed."""
    await opened.report(*(result(lease) for lease in granted))


async def timed(call: Awaitable[Any], into: list[float]) -> Any:
    """Await a call, note its milliseconds, and return its answer."""
    begun = time.perf_counter()
    answer = await call
    into.append((time.perf_counter() - begun) * 1e3)
    return answer


def cpu_seconds(service: Service) -> float:
    """Return the CPU seconds that a process has used so far."""
    fields = Path(f"/proc/{service.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def memory(service: Service) -> tuple[float, float]:
    """Return the largest and the present resident memory of a process, in MB."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{service.process.pid}/status").read_text().splitlines()
    )
    peak, now = (int(status[name].split()[0]) / 1_024 for name in ("VmHWM", "VmRSS"))
    return peak, now
