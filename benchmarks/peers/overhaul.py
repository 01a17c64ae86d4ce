import asyncio
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import grpc

from benchmarks.figures import cpu_seconds, tree_cpu_seconds
from benchmarks.latency import dispatch
from benchmarks.lifecycle import deployment, drive
from benchmarks.peers.contender import Lifecycle, measured, new_database
from manager_service.store import migrate_store
from overhaul.v1 import job_service_pb2_grpc as jobs_grpc
from tests.postgres import PostgresServer
from tests.services import address_of, start_manager, start_worker

_WARM_UP = 1_000
# Long enough for the system to be idle again.
_REST = 0.05


class Overhaul:
    """A manager and workers.

    Args:
        jobs: How many children to measure, by the slots of a worker.
        server: Where it gets a database for each measurement.
        store: The kind of its job store, sqlite or postgresql; SQLite waits for the disk as well.
    """

    name = "overhaul"
    width = "slots"

    def __init__(self, jobs: Mapping[int, int], server: PostgresServer, store: str) -> None:
        self._jobs = jobs
        self._server = server
        self._store = store

    def lifecycle(self, wide: int) -> Lifecycle:
        """Create parent jobs of 1,000 no-ops, two at a time."""
        jobs = self._jobs[wide]
        with self._new_store() as (url, *options), deployment(url, *options, slots=wide) as (manager, *workers):
            asyncio.run(drive(address_of(manager), _WARM_UP))
            spenders = {
                "client": lambda: cpu_seconds(os.getpid()),
                "manager": lambda: cpu_seconds(manager.process.pid),
                "workers": lambda: sum(cpu_seconds(worker.process.pid) for worker in workers),
                "database": lambda: tree_cpu_seconds(self._server.pid),
            }
            return measured(jobs, spenders, lambda: asyncio.run(drive(address_of(manager), jobs)))

    def latencies(self, wide: int, samples: int) -> Sequence[float]:
        """Create parent jobs of one nap of no time, after a tenth as many to warm up."""
        with (
            tempfile.TemporaryDirectory() as folder,
            self._new_store() as (url, *options),
            start_manager(url, *options, "--log-level", "warning") as manager,
        ):
            address, audit = address_of(manager), Path(folder) / "audit"
            bed = f"bed=nap://{audit}"
            with (
                start_worker(address, bed, name="one", slots=wide, level="warning"),
                start_worker(address, bed, name="two", slots=wide, level="warning"),
            ):
                return asyncio.run(_dispatches(address, audit, samples + samples // 10))[-samples:]

    @contextmanager
    def _new_store(self) -> Iterator[Sequence[str]]:
        """Lend the URL of an empty store, and the options that belong to it."""
        if self._store == "postgresql":
            with new_database(self._server) as url:
                migrate_store(url)
                yield (url,)
        else:
            with tempfile.TemporaryDirectory() as folder:
                yield (f"sqlite:///{folder}/jobs.db", "--synchronous", "full")


async def _dispatches(address: str, audit: Path, number: int) -> list[float]:
    latencies = []
    async with grpc.aio.insecure_channel(address) as channel:
        client = jobs_grpc.JobServiceStub(channel)
        for _ in range(number):
            await asyncio.sleep(_REST)
            latency, _ = await dispatch(client, audit, milliseconds=0)
            latencies.append(latency)
    return latencies
