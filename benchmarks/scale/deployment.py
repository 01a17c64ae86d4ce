"""Managers and workers on one database, and what each of them costs."""

import asyncio
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import grpc
import psycopg

from benchmarks.figures import Figure, cpu_seconds, machine_cpu_seconds, tree_cpu_seconds
from benchmarks.peers.contender import new_database
from manager_service.client.channel import channel_options, channel_target
from manager_service.store import migrate_store
from overhaul.v1 import job_pb2 as job
from overhaul.v1 import job_service_pb2 as jobs
from overhaul.v1 import job_service_pb2_grpc as jobs_grpc
from tests.postgres import PostgresServer
from tests.services import Service, address_of, start_manager, start_worker

WORKERS = 2
_LONGEST = 600.0
_ENDED = "SELECT coalesce(sum(completed), 0) FROM parent_counts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """Running programs, and the targets whose no-ops the workers do."""

    url: str
    server: PostgresServer
    managers: Sequence[Service]
    workers: Sequence[Service]
    targets: Sequence[str]
    store: psycopg.Connection

    @property
    def address(self) -> str:
        """Return where all the managers are."""
        return ",".join(map(address_of, self.managers))

    def spenders(self) -> Mapping[str, Callable[[], float]]:
        """Return how to ask for the CPU seconds of each, by who spends them."""
        return {
            "client": lambda: cpu_seconds(os.getpid()),
            "managers": lambda: _cpu(self.managers),
            "workers": lambda: _cpu(self.workers),
            "database": lambda: tree_cpu_seconds(self.server.pid),
        }

    def ended(self) -> int:
        """Return how many children have completed, as the store has it."""
        row = self.store.execute(_ENDED).fetchone()
        return int(row[0]) if row else 0


@contextmanager
def migrated(server: PostgresServer) -> Iterator[str]:
    """Lend an empty store."""
    with new_database(server) as url:
        migrate_store(url)
        yield url


@contextmanager
def managed(url: str, number: int = 1, *options: str) -> Iterator[list[Service]]:
    """Run managers on a store."""
    with ExitStack() as stack:
        yield [stack.enter_context(start_manager(url, "--log-level", "warning", *options)) for _ in range(number)]


@contextmanager
def deployed(
    server: PostgresServer,
    url: str,
    *,
    managers: int = 1,
    slots: int = 10,
    targets: int = 1_000,
    split: bool = False,
) -> Iterator[Deployment]:
    """Run managers, and two workers that know them all; if split, each worker serves half of the targets."""
    names = [f"t{number:05d}" for number in range(targets)]
    with tempfile.TemporaryDirectory() as folder, managed(url, managers) as running, ExitStack() as stack:
        address = ",".join(map(address_of, running))
        workers = []
        for number in range(WORKERS):
            served = names[number::WORKERS] if split else names
            given = [f"{name}=nap://{folder}/{name}" for name in served]
            started = start_worker(address, *given, name=f"w{number}", slots=slots, level="warning")
            workers.append(stack.enter_context(started))
        store = stack.enter_context(psycopg.connect(url, autocommit=True))
        yield Deployment(url=url, server=server, managers=running, workers=workers, targets=names, store=store)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What a time of work came to: children a second, CPU seconds per 1,000 of them, and the cores of others."""

    rate: float
    cpu: Mapping[str, float]
    others: float


class Meter:
    """Counts ends and CPU seconds from one look to the next."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._spenders = {**deployment.spenders(), "machine": machine_cpu_seconds}
        self._last = self._look()

    def window(self) -> Window:
        """Return what came since the last look."""
        before, self._last = self._last, self._look()
        ended = max(1, self._last[1] - before[1])
        seconds = self._last[0] - before[0]
        spent = {who: after - before[2][who] for who, after in self._last[2].items()}
        others = (spent.pop("machine") - sum(spent.values())) / seconds
        cpu = {who: of / ended * 1_000 for who, of in spent.items()}
        return Window(rate=ended / seconds, cpu=cpu, others=others)

    def _look(self) -> tuple[float, int, Mapping[str, float]]:
        ended = self._deployment.ended()
        return time.perf_counter(), ended, {who: spent() for who, spent in self._spenders.items()}


def client_of(deployment: Deployment) -> grpc.aio.Channel:
    """Open a channel to all managers, as our client does."""
    address = deployment.address
    return grpc.aio.insecure_channel(channel_target(address), options=channel_options(address))


async def create(client: jobs_grpc.JobServiceStub, targets: Sequence[str]) -> str:
    """Make a parent job of a no-op for each target, and return its id."""
    request = jobs.CreateParentJobRequest(targets=targets, operations=[job.OperationSpec(name="noop")])
    return (await client.CreateParentJob(request, timeout=_LONGEST)).parent_job.id


async def all_ended(deployment: Deployment, number: int) -> None:
    """Wait until so many children have completed."""
    deadline = time.monotonic() + _LONGEST
    while deployment.ended() < number:
        if time.monotonic() > deadline:
            raise AssertionError(f"{deployment.ended()} of {number} children have ended")
        await asyncio.sleep(0.05)


def figures_of(name: str, windows: Sequence[Window]) -> list[Figure]:
    """Tell rates, and who spent the CPU on them."""
    spenders = [
        Figure(name=f"  CPU of {who} per 1,000", values=[w.cpu[who] for w in windows], unit="s")
        for who in windows[0].cpu
    ]
    others = Figure(name="  cores that others took", values=[w.others for w in windows], unit="")
    return [Figure(name=name, values=[w.rate for w in windows], unit="/s"), *spenders, others]


def ratio(name: str, ours: Sequence[Window], base: Sequence[Window], aim: str = "") -> Figure:
    """Tell rates against others of the same rounds."""
    values = [one.rate / other.rate for one, other in zip(ours, base, strict=True)]
    return Figure(name=name, values=values, unit="x", aim=aim)


def _cpu(services: Sequence[Service]) -> float:
    return sum(cpu_seconds(service.process.pid) for service in services)
