"""The calls that tests make of a manager, made of one in another process; and how much that process holds."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, cast

import grpc

from overhaul.v1 import job_service_pb2 as jobs
from tests.contract.manager_harness import RunningManager
from tests.services import Service, address_of

_ALONE = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))


@asynccontextmanager
async def remote(manager: Service) -> AsyncIterator[RunningManager]:
    """Connect to a manager in a process of its own."""
    elsewhere = cast(Any, None)
    async with grpc.aio.insecure_channel(address_of(manager), options=_ALONE) as channel:
        yield RunningManager(manager=elsewhere, store=elsewhere, port=0, channel=channel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What a process holds of the machine."""

    memory: int
    threads: int
    files: int


def footprint(service: Service) -> Footprint:
    """Measure a process from outside; memory is resident bytes."""
    process = Path(f"/proc/{service.process.pid}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    return Footprint(
        memory=int(status["VmRSS"].split()[0]) * 1_024,
        threads=int(status["Threads"]),
        files=len(list((process / "fd").iterdir())),
    )


class Latency:
    """Calls a manager again and again, on a connection of its own, as somebody who waits for the answer."""

    def __init__(self, manager: Service) -> None:
        self._manager = manager

    async def of(self, calls: int) -> float:
        """Return the median seconds of some calls."""
        async with remote(self._manager) as other:
            return median([await self._one(other) for _ in range(calls)])

    @asynccontextmanager
    async def meanwhile(self, took: list[float]) -> AsyncIterator[None]:
        """Call all the while; add to ``took`` how long each call took."""
        task = asyncio.create_task(self._go_on(took))
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _go_on(self, took: list[float]) -> None:
        async with remote(self._manager) as other:
            while True:
                took.append(await self._one(other))
                await asyncio.sleep(0.02)

    async def _one(self, other: RunningManager) -> float:
        begun = time.perf_counter()
        await other.jobs.ListParentJobs(jobs.ListParentJobsRequest(page_size=1), timeout=120)
        return time.perf_counter() - begun
