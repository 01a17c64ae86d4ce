import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import cycle, islice

from benchmarks.scale.deployment import Deployment, Meter, Window, client_of, create
from overhaul.v1 import job_service_pb2_grpc as jobs_grpc

_LOOK_EVERY = 0.05
PART = 250


class Load:
    """Parent jobs of no-ops, of which new ones are made as children end, so that as many are always pending.

    Args:
        deployment: where they are made and done.
        level: how many children are to be pending.
    """

    def __init__(self, deployment: Deployment, level: int) -> None:
        self._deployment = deployment
        self._level = level
        self._names = cycle(deployment.targets)
        self._made = 0

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Fill up to the level, and keep it while the block lasts."""
        async with client_of(self._deployment) as channel:
            client = jobs_grpc.JobServiceStub(channel)
            before = self._deployment.ended()
            await self._fill(client, before)
            task = asyncio.create_task(self._keep(client, before))
            try:
                yield
                if task.done():
                    task.result()
            finally:
                task.cancel()
                await asyncio.wait([task])

    async def _keep(self, client: jobs_grpc.JobServiceStub, before: int) -> None:
        while True:
            await self._fill(client, before)
            await asyncio.sleep(_LOOK_EVERY)

    async def _fill(self, client: jobs_grpc.JobServiceStub, before: int) -> None:
        while self._made - (self._deployment.ended() - before) <= self._level - PART:
            await create(client, list(islice(self._names, PART)))
            self._made += PART


async def windows(
    deployment: Deployment, *, level: int, warm_up: float, seconds: float, number: int = 1
) -> Sequence[Window]:
    """Return what so many times in a row came to, under a load of that level."""
    async with Load(deployment, level).kept():
        await asyncio.sleep(warm_up)
        meter = Meter(deployment)
        found = []
        for _ in range(number):
            await asyncio.sleep(seconds)
            found.append(meter.window())
        return found
