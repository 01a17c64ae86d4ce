"""Workers and the servers of two databases are killed at random moments while these are maintained."""

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import pytest

from overhaul.v1 import job_pb2 as job
from overhaul.v1 import job_service_pb2 as jobs
from tests.battery.deployment import (
    PATIENCE,
    Deployment,
    children_of,
    client_of,
    events_of,
    seeded,
    tell,
    until,
)
from tests.battery.overlaps import overlaps
from tests.battery.server_logs import postgres_works
from tests.battery.shops import SESSIONS, MariadbShop, PostgresShop, hire, order
from tests.battery.test_kills import assert_nothing_left
from tests.battery.verdicts import assert_recorded_once, assert_told_once, taken_back
from tests.postgres import Stop
from tests.services import Service, address_of

WORKERS = ("anna", "berta")
SECONDS = 60 * float(os.environ.get("OVERHAUL_SOAK_MINUTES") or 0)


ANEW = ("reindex", "vacuum:full=true", "cluster")


@dataclass
class Crew:
    """The processes of a round, the chance that kills them, and the work that is struck."""

    deployment: Deployment
    chance: random.Random
    address: str
    postgres: PostgresShop
    mariadb: MariadbShop
    workers: dict[str, Service] = field(default_factory=dict)
    watches: dict[str, "asyncio.Task[list[jobs.JobEvent]]"] = field(default_factory=dict)
    struck: list[str] = field(default_factory=list)
    # When the statistics of PostgreSQL began anew: a server that crashed forgets them.
    counted_since: float = 0.0

    async def hire(self, name: str) -> None:
        urls = {"shop": (self.postgres.url, None), "mart": (self.mariadb.url, None)}
        self.workers[name] = await asyncio.to_thread(hire, self.deployment, self.address, name, urls)

    async def order_all(self) -> None:
        async with client_of(self.address) as client:
            for parent in (
                await order(client, ["shop"], "reindex", "vacuum", "analyze"),
                # A vacuum beside it would be the same rebuild, and is done to the whole database below.
                await order(client, ["mart"], "reindex", "analyze"),
                await order(client, ["shop"], *ANEW[1:]),
                await order(client, ["shop"], "reindex", scope=job.SCOPE_INDEX),
                await order(client, ["mart"], "vacuum", "integrity_check", scope=job.SCOPE_DATABASE),
            ):
                self.watches[parent] = asyncio.create_task(events_of(self.address, parent))

    async def strike_all(self) -> None:
        """Strike with everything there is in a random order, once or as long as is wanted."""
        strikes: list[Callable[[], Awaitable[None]]] = [
            *[self._kill_worker] * 3,
            partial(self._restart_postgres, Stop.FAST),
            partial(self._restart_postgres, Stop.IMMEDIATE),
            partial(self._restart_mariadb, killed=True),
            partial(self._restart_mariadb, killed=False),
        ]
        deadline = time.monotonic() + SECONDS
        while True:
            for strike in self.chance.sample(strikes, len(strikes)):
                await self._at_work()
                await asyncio.sleep(self.chance.uniform(0, 0.1))
                await strike()
            if time.monotonic() >= deadline:
                tell(", ".join(self.struck))
                return

    async def ended(self) -> list[list[jobs.JobEvent]]:
        async with asyncio.timeout(3 * PATIENCE):
            return await asyncio.gather(*self.watches.values())

    async def _at_work(self) -> None:
        """Wait until a statement of maintenance runs in one of the servers."""
        shop = self.chance.choice((self.postgres, self.mariadb))
        for _ in range(100):
            if all(watch.done() for watch in self.watches.values()):
                await self.order_all()
            if await asyncio.to_thread(shop.busy):
                return

    async def _kill_worker(self) -> None:
        name = self.chance.choice(WORKERS)
        await asyncio.to_thread(self.deployment.kill, self.workers[name])
        self.struck.append(name)
        await self.hire(name)

    async def _restart_postgres(self, how: Stop) -> None:
        await asyncio.to_thread(self.postgres.server.restart, how)
        self.struck.append(f"postgresql {how.name.lower()}")
        if how is Stop.IMMEDIATE:
            self.counted_since = time.time()

    async def _restart_mariadb(self, *, killed: bool) -> None:
        server = self.mariadb.server
        await asyncio.to_thread(server.kill if killed else server.stop)
        await asyncio.to_thread(server.start)
        self.struck.append("mariadb killed" if killed else "mariadb stopped")


class TestServerKills:
    @pytest.mark.timeout(SECONDS + 300)
    async def test_what_is_recorded_is_true_and_nothing_is_left(
        self, deployment: Deployment, shops: tuple[PostgresShop, MariadbShop]
    ) -> None:
        postgres, mariadb = shops
        content = postgres.content(), mariadb.content()
        files = postgres.files() | mariadb.files()
        manager = await asyncio.to_thread(deployment.manager)
        crew = Crew(deployment, seeded(0), address_of(manager), postgres, mariadb)
        for name in WORKERS:
            await crew.hire(name)
        await crew.order_all()
        await crew.strike_all()
        events = await crew.ended()
        async with client_of(crew.address) as client:
            children = [await children_of(client, parent) for parent in crew.watches]

        for story, of_parent in zip(events, children, strict=True):
            assert_told_once(story, of_parent)
        everyone = [child for of_parent in children for child in of_parent]
        for child in everyone:
            assert_recorded_once(child)
        tell(f"{len(everyone)} children; {Counter(_how(item) for child in everyone for item in child.attempts)}")
        for worker in crew.workers.values():
            await asyncio.to_thread(worker.terminate)
        await asyncio.to_thread(manager.terminate)
        assert_nothing_left(deployment.store)
        # A session ends a moment after its client.
        await until(lambda: not postgres.rows(SESSIONS), "the sessions have ended")
        assert (postgres.left(), mariadb.left()) == ({}, {})
        assert (postgres.content(), mariadb.content()) == content
        self._assert_true(crew, everyone, files)

    def _assert_true(
        self, crew: Crew, children: Sequence[jobs.GetChildJobResponse], files: Mapping[str, int]
    ) -> None:
        works = postgres_works(crew.postgres.log(), crew.postgres.tables_of())
        met = overlaps(works)
        assert not met, "\n".join(f"{one}\n  {other}" for one, other in met)
        well = {(work.child, work.attempt) for work in works if work.well}
        shop = [child for child in children if child.child_job.target == "shop"]
        done = [child.child_job for child in shop if child.child_job.operation != "inspect"]
        assert [one for one in done if (one.id, one.attempts) not in well] == []
        now = crew.postgres.files() | crew.mariadb.files()
        assert [name for name, file in files.items() if now[name] == file] == []
        counted = crew.postgres.counted()
        since = [one for one in done if one.end_time.ToSeconds() > crew.counted_since + 1]
        assert {name for name in ("vacuum", "analyze") for one in since if _lacks(counted, one, name)} == set()


def _lacks(counted: Mapping[str, Mapping[str, int]], one: job.ChildJob, name: str) -> bool:
    return one.operation == name and not one.options and not counted[one.object][name]


def _how(attempt: job.Attempt) -> str:
    if taken_back(attempt):
        return "lost"
    return f"{job.Outcome.Name(attempt.outcome).removeprefix('OUTCOME_').lower()} {attempt.failure.reason}".strip()
