import asyncio
import json
from collections.abc import Sequence

from benchmarks.figures import Figure, cpu_seconds
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
from overhaul.v1 import job_service_pb2 as jobs
from overhaul.v1 import job_service_pb2_grpc as jobs_grpc
from tests.postgres import PostgresServer
from tests.services import Service, address_of

_PARENTS = 100
_WATCHERS = 2_000
_SLOTS = 10


def measure(server: PostgresServer, size: Size) -> list[Figure]:
    """Tell what a lifecycle comes to while many watch its parent jobs, against the same with nobody."""
    alone, watched, heard, told, spent = [], [], [], [], []
    for _ in range(size.rounds):
        alone.append(_run(server, size, 0)[0])
        window, messages, events, cpu = _run(server, size, _WATCHERS)
        watched.append(window)
        heard.append(messages)
        told.append(events)
        spent.append(cpu)
    return [
        *figures_of(f"lifecycle of {_PARENTS} parent jobs, nobody watches", alone),
        *figures_of(f"  beside {_WATCHERS:,} watchers", watched),
        Figure(name="  messages that they heard for a child", values=heard, unit=""),
        Figure(name="  events in them", values=told, unit=""),
        Figure(name="  CPU of the watchers per 1,000", values=spent, unit="s"),
        ratio("  watched against unwatched", watched, alone, "at least 0.8"),
    ]


def _run(server: PostgresServer, size: Size, watchers: int) -> tuple[Window, float, float, float]:
    children = size.of(10_000, 20_000)
    with (
        migrated(server) as url,
        deployed(server, url, slots=_SLOTS, targets=children, split=True) as deployment,
    ):
        return asyncio.run(_watched(deployment, watchers))


async def _watched(deployment: Deployment, watchers: int) -> tuple[Window, float, float, float]:
    """Return what the work came to, and of the watchers messages and events a child, and CPU seconds per 1,000."""
    children = len(deployment.targets)
    async with client_of(deployment) as channel:
        client = jobs_grpc.JobServiceStub(channel)
        parents = [await create(client, deployment.targets[n::_PARENTS]) for n in range(_PARENTS)]
        for parent in parents:
            await client.PauseParentJob(jobs.PauseParentJobRequest(parent_job_id=parent))
        before = deployment.ended()
        with _watching(deployment, watchers, parents) as watching:
            meter, begun = Meter(deployment), cpu_seconds(watching.process.pid)
            for parent in parents:
                await client.ResumeParentJob(jobs.ResumeParentJobRequest(parent_job_id=parent))
            await all_ended(deployment, len(deployment.targets))
            window, spent = meter.window(), cpu_seconds(watching.process.pid) - begun
            watching.terminate()
        measured, heard = children - before, json.loads(watching.lines[-1])
        return window, heard["messages"] / measured, heard["events"] / measured, spent / measured * 1_000


def _watching(deployment: Deployment, watchers: int, parents: Sequence[str]) -> Service:
    return Service("benchmarks.scale.watching", [address_of(deployment.managers[0]), str(watchers), *parents])
