import asyncio

from benchmarks.figures import Figure
from benchmarks.scale.deployment import (
    Deployment,
    Meter,
    Window,
    all_ended,
    client_of,
    create,
    deployed,
    figures_of,
    migrated,
    ratio,
)
from benchmarks.scale.size import Size
from overhaul.v1 import job_service_pb2_grpc as jobs_grpc
from tests.postgres import PostgresServer

_MANAGERS = 3
_PARENTS = 100


def measure(server: PostgresServer, size: Size) -> list[Figure]:
    """Tell what three managers come to with one parent job of many children, against a hundred parent jobs."""
    children, figures = size.of(10_000, 20_000), []
    for slots in (10, 100):
        one, many = [], []
        for _ in range(size.rounds):
            with (
                migrated(server) as url,
                deployed(server, url, managers=_MANAGERS, slots=slots, targets=children, split=True) as deployment,
            ):
                one.append(asyncio.run(_work(deployment, 1)))
                many.append(asyncio.run(_work(deployment, _PARENTS)))
        figures += [
            *figures_of(f"one parent job of {children:,}, {_MANAGERS} managers, slots {slots}", one),
            *figures_of(f"{_PARENTS} parent jobs of {children // _PARENTS}", many),
            ratio("  one against many", one, many),
        ]
    return figures


async def _work(deployment: Deployment, parents: int) -> Window:
    """Create parent jobs over all targets, paused until the last is there, and let them be done."""
    async with client_of(deployment) as channel:
        client = jobs_grpc.JobServiceStub(channel)
        meter, before = Meter(deployment), deployment.ended()
        await asyncio.gather(*(create(client, deployment.targets[n::parents]) for n in range(parents)))
        await all_ended(deployment, before + len(deployment.targets))
        return meter.window()
