"""Workers and the manager are killed at random moments while hundreds of children run."""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import apsw
import pytest

from overhaul.v1 import job_service_pb2 as jobs
from tests.battery.deployment import (
    PATIENCE,
    ROUNDS,
    Deployment,
    children_of,
    client_of,
    create,
    events_of,
    seeded,
    tell,
)
from tests.battery.verdicts import (
    assert_done_apart,
    assert_granted_apart,
    assert_recorded_once,
    assert_recorded_was_done,
    assert_told_once,
)
from tests.integration.operations.databases import bloated_database, content, query
from tests.services import Service, address_of

KILLS = 20
CHILDREN = 200
WORKERS = ("anna", "berta", "clara")
BEDS = tuple(f"bed{number}" for number in range(12))
FILES = ("one", "two", "three", "four")
NAP_JOBS = 4
FILE_JOBS = 3
FILE_OPERATIONS = ("vacuum", "analyze", "reindex", "integrity_check", "optimize")


@dataclass
class Crew:
    """The processes of a round, and the chance that kills them."""

    deployment: Deployment
    chance: random.Random
    targets: Sequence[str]
    manager: Service
    workers: dict[str, Service] = field(default_factory=dict)
    kills: int = 0

    @property
    def address(self) -> str:
        return address_of(self.manager)

    def hire(self, name: str) -> None:
        self.workers[name] = self.deployment.worker(self.address, *self.targets, name=name)

    async def strike(self) -> None:
        """Kill a worker, the manager, or both, at a random moment, and put others in their place."""
        await asyncio.sleep(self.chance.uniform(0.05, 0.9))
        victim = self.chance.choice((*WORKERS, *WORKERS, "manager", "manager", "both"))
        name = self.chance.choice(WORKERS) if victim in ("manager", "both") else victim
        await asyncio.to_thread(
            self._kill, name, worker=victim != "manager", manager=victim in ("manager", "both")
        )

    def _kill(self, name: str, *, worker: bool, manager: bool) -> None:
        if worker:
            self.deployment.kill(self.workers[name])
            self.kills += 1
        if manager:
            self.deployment.kill(self.manager)
            self.kills += 1
            self.manager = self.deployment.manager(listen=self.address)
        if worker:
            self.hire(name)


class Work:
    """The parent jobs of a round, each watched from its first event on."""

    def __init__(self, address: str, chance: random.Random) -> None:
        self._address = address
        self._chance = chance
        self.watches: dict[str, asyncio.Task[list[jobs.JobEvent]]] = {}

    @property
    def unfinished(self) -> bool:
        return not all(watch.done() for watch in self.watches.values())

    async def add_naps(self) -> None:
        naps = [(name, self._chance.randint(300, 1_500)) for name in ("nap", "doze", "rest")]
        await self._add(BEDS, *naps)

    async def add_files(self) -> None:
        await self._add(FILES, *((name, None) for name in FILE_OPERATIONS))

    async def _add(self, targets: Sequence[str], *operations: tuple[str, int | None]) -> None:
        async with client_of(self._address) as client:
            parent = await create(client, targets, *operations)
        self.watches[parent] = asyncio.create_task(events_of(self._address, parent))

    async def ended(self) -> dict[str, list[jobs.JobEvent]]:
        async with asyncio.timeout(3 * PATIENCE):
            return {parent: await watch for parent, watch in self.watches.items()}


def databases(folder: Path) -> dict[str, Path]:
    return {
        name: bloated_database(folder / f"{name}.db", rows=3_000, journal="wal" if index % 2 else "delete")
        for index, name in enumerate(FILES)
    }


async def read_all(address: str, parents: Sequence[str]) -> list[list[jobs.GetChildJobResponse]]:
    async with client_of(address) as client:
        return [await children_of(client, parent) for parent in parents]


def assert_nothing_left(store: Path) -> None:
    """Assert that no lease, lock or waiting child outlived the jobs, and that the store is sound."""
    connection = apsw.Connection(str(store))
    for table in ("leases", "live_locks", "queue"):
        assert connection.execute(f"SELECT count(*) FROM {table}").get == 0, table
    assert connection.execute("PRAGMA integrity_check").get == "ok"
    connection.close()


class TestKills:
    @pytest.mark.timeout(480)
    @pytest.mark.parametrize("round_", range(3 * ROUNDS))
    async def test_every_child_ends_once_whoever_is_killed(self, deployment: Deployment, round_: int) -> None:
        chance = seeded(round_)
        files = databases(deployment.folder)
        rows = {name: content(path) for name, path in files.items()}
        targets = [deployment.bed(name) for name in BEDS] + [f"{name}={path}" for name, path in files.items()]
        crew = Crew(deployment, chance, targets, await asyncio.to_thread(deployment.manager))
        for name in WORKERS:
            await asyncio.to_thread(crew.hire, name)
        work = Work(crew.address, chance)
        for _ in range(NAP_JOBS):
            await work.add_naps()
        for _ in range(FILE_JOBS):
            await work.add_files()

        while crew.kills < KILLS:
            await crew.strike()
            if not work.unfinished and crew.kills < KILLS:
                await work.add_naps()
        begun_to_end = time.monotonic()
        events = await work.ended()
        children = await read_all(crew.address, list(events))
        tell(f"{crew.kills} kills, the rest took {time.monotonic() - begun_to_end:.1f} s")

        assert sum(map(len, children)) >= CHILDREN
        for story, of_parent in zip(events.values(), children, strict=True):
            assert_told_once(story, of_parent)
        self._assert_recorded(deployment, [child for of_parent in children for child in of_parent])
        for name, path in files.items():
            assert query(path, "PRAGMA integrity_check") == [("ok",)]
            assert content(path) == rows[name]
        for worker in crew.workers.values():
            await asyncio.to_thread(worker.terminate)
        await asyncio.to_thread(crew.manager.terminate)
        assert_nothing_left(deployment.store)

    def _assert_recorded(self, deployment: Deployment, children: Sequence[jobs.GetChildJobResponse]) -> None:
        attempts = {(child.child_job.id, item.attempt): item for child in children for item in child.attempts}
        for child in children:
            assert_recorded_once(child)
        for target in (*BEDS, *FILES):
            assert_granted_apart(
                item for child in children if child.child_job.target == target for item in child.attempts
            )
        excused = 0
        now = time.monotonic_ns()
        for bed in BEDS:
            naps = deployment.naps(bed)
            excused += assert_done_apart(naps, attempts, deployment.died, now)
            on_bed = [child for child in children if child.child_job.target == bed]
            assert_recorded_was_done(on_bed, naps, deployment.names)
        lost = sum(child.child_job.losses for child in children)
        tell(f"{len(children)} children, {len(attempts)} attempts, {lost} lost, {excused} overlaps of the cut off")
