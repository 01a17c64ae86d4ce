"""The store's invariants under a mixed load of everything at once, repeatable by its seed."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from manager_service.domain.errors import ManagerError
from manager_service.domain.fleet import Lock
from manager_service.domain.leases import Lease, Poll
from manager_service.domain.model import SECOND, ParentJob
from manager_service.domain.ports import ParentJobFilter
from manager_service.domain.states import FailureMode, FailurePolicy, Outcome
from tests.factories import FakeWorker, World, report_of, served_target

TARGETS = [f"t{n}" for n in range(8)]
# Two names of one file, and a target that takes two operations at once.
ALIAS = Lock(key="shared file", exclusive=True)


class Load:
    """Random calls of workers, clients and housekeeping."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.chance = random.Random(seed)
        self.workers: list[FakeWorker] = []
        self.held: dict[str, list[Lease]] = {}
        self.granted: list[Lease] = []
        self.parents: list[str] = []

    async def begin(self) -> None:
        served = [
            served_target(name, locks=[ALIAS] if name in ("t0", "t1") else None, max_parallel=1 + (name == "t2"))
            for name in TARGETS
        ]
        for name in ("anna", "bert", "carl"):
            worker = await self.world.worker(*served, worker_name=name, slots=3)
            self.workers.append(worker)
            self.held[worker.session_id] = []

    async def step(self) -> None:
        verbs: list[Callable[[], Awaitable[Any]]] = [
            self.create,
            *[self.acquire] * 4,
            *[self.report] * 5,
            *[self.beat] * 2,
            self.steer,
            self.upkeep,
        ]
        calls = [self.chance.choice(verbs)() for _ in range(self.chance.randint(1, 6))]
        for result in await asyncio.gather(*calls, return_exceptions=True):
            assert result is None or isinstance(result, ManagerError), result

    async def create(self) -> None:
        mode = self.chance.choice(list(FailureMode))
        parent = await self.world.parent_job(
            *self.chance.sample(TARGETS, self.chance.randint(1, 5)),
            operations=("vacuum", "analyze", "reindex")[: self.chance.randint(1, 3)],
            failure_policy=FailurePolicy(mode=mode, max_failed_children=1),
            max_parallel=self.chance.choice([0, 0, 2]),
            deadline=self.chance.choice([None, None, self.world.clock.wall() + 200 * SECOND]),
        )
        self.parents.append(parent.id)

    async def acquire(self) -> None:
        worker = self.chance.choice(self.workers)
        leases = await worker.acquire(2)
        self.take(worker, leases)

    def take(self, worker: FakeWorker, leases: tuple[Lease, ...]) -> None:
        self.held[worker.session_id] += leases
        self.granted += leases

    async def report(self) -> None:
        worker = self.chance.choice(self.workers)
        held = self.held[worker.session_id]
        if not held:
            return
        lease = held.pop(self.chance.randrange(len(held)))
        report = report_of(lease, self.chance.choice(list(Outcome)))
        poll: Poll | None = worker.poll(2) if self.chance.random() < 0.5 else None
        for _ in range(self.chance.choice([1, 1, 2])):
            answer = await self.world.store.report(worker.session_id, [report], poll)
            new = [lease for lease in answer.leases if lease not in self.granted]
            self.take(worker, tuple(new))

    async def beat(self) -> None:
        worker = self.chance.choice(self.workers)
        held = self.held[worker.session_id]
        if self.chance.random() < 0.1 and held:
            held.pop()
        await worker.beat(*held)

    async def steer(self) -> None:
        if self.parents:
            verb = self.chance.choice(["pause", "resume", "resume", "retry", "retry", "cancel", "delete"])
            parent_id = self.chance.choice(self.parents)
            arguments = ("enough",) if verb == "cancel" else ()
            await getattr(self.world.store, f"{verb}_parent_job")(parent_id, *arguments)

    async def upkeep(self) -> None:
        store = self.world.store
        self.world.clock.pass_time(self.chance.randint(1, 15) * SECOND)
        await store.mark_alive()
        await store.expire_leases(limit=5)
        await store.release_due()
        await store.fail_overdue(limit=5)
        for parent_id in await store.ending_parent_jobs():
            await store.sweep(parent_id, limit=2)

    async def check(self) -> None:
        """Show that whatever happened, the invariants hold."""
        live: Counter[str] = Counter()
        for parent in await self.world.store.parent_jobs(ParentJobFilter(), limit=1000):
            await self.world.check(parent.id)
            children = await self.world.children(parent)
            running = [child for child in children if child.state.live]
            live.update(child.target for child in running)
            assert not parent.spec.max_parallel or len(running) <= parent.spec.max_parallel
            assert len({child.target for child in running}) == len(running), "a lane is serial"
        assert all(number <= 1 + (target == "t2") for target, number in live.items()), live
        assert live["t0"] + live["t1"] <= 1
        for worker in await self.world.store.workers(include_gone=True, limit=9):
            assert worker.slots_used <= worker.slots
        attempts = [(lease.child_job_id, lease.attempt) for lease in self.granted]
        assert len(attempts) == len(set(attempts)), "an attempt is never handed out twice"
        assert len({lease.lease_id for lease in self.granted}) == len(self.granted)

    async def finish(self) -> None:
        """Show that everything comes to its end."""
        open_jobs: list[ParentJob] = []
        for _ in range(400):
            open_jobs = [
                parent
                for parent in await self.world.store.parent_jobs(ParentJobFilter(), limit=1000)
                if not parent.state.final
            ]
            if not open_jobs:
                return
            for parent in open_jobs:
                if parent.paused:
                    await asyncio.gather(self.world.store.resume_parent_job(parent.id), return_exceptions=True)
            await self.upkeep()
            for worker in self.workers:
                self.take(worker, await worker.acquire(9))
                for lease in self.held[worker.session_id]:
                    await worker.end(lease)
                self.held[worker.session_id].clear()
                await worker.beat()
        pytest.fail(f"these did not end: {open_jobs}")


@pytest.mark.parametrize("seed", range(3))
async def test_the_invariants_hold_under_mixed_load(world: World, seed: int) -> None:
    load = Load(world, seed)
    await load.begin()
    for step in range(120):
        await load.step()
        if step % 20 == 0:
            await load.check()

    await load.finish()
    await load.check()
    assert len(load.granted) > 100
