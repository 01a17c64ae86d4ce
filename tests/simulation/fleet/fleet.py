"""A fleet: one manager, thousands of workers and targets on sites, virtual time, all chance from one seed."""

import asyncio
import random
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from manager_service.config import Settings
from manager_service.domain.fleet import Lock, OfferedOperation, Registration, ServedTarget
from manager_service.domain.model import ParentJob, RequestedOperation
from manager_service.domain.ports import ChildJobFilter
from manager_service.domain.request import JobRequest
from manager_service.domain.states import ChildJobState, Outcome
from tests.simulation.fleet.ledger import Ledger
from tests.simulation.fleet.stand_in import StandIn
from tests.simulation.fleet.wire import Wire
from tests.simulation.invariants import demand
from tests.simulation.machine import LOGGER, SeededIds, VirtualClock
from tests.simulation.processes import ManagerHost
from tests.simulation.virtual_loop import Process, VirtualLoop
from tests.simulation.world import empty_store

T = TypeVar("T")
OPERATIONS = ("vacuum", "analyze", "reindex", "optimize")
MEAN_SPAN = 10.0
_MOST_STEPS = 200_000_000
_SHM = Path("/dev/shm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large a fleet is: each worker serves the targets of its site."""

    sites: int
    workers: int
    targets: int
    alone: int = 0
    """How many of a site's targets, the last ones, its first worker alone serves."""

    @property
    def all_workers(self) -> int:
        """The workers of all sites."""
        return self.sites * self.workers


class Fleet:
    """A manager on a store of its own, and the workers that come to it.

    Args:
        seed: all chance comes from it.
        size: how many sites with how many workers and targets each.
        settings: those of the manager.
        slots: of each worker.
        outcome: draws how an operation ends.
        talks: whether workers tell progress and logs.
        ledger: remembers what happens.
    """

    def __init__(
        self,
        seed: int,
        size: Size,
        *,
        settings: Settings | None = None,
        slots: int = 1,
        outcome: Callable[[random.Random], Outcome] = lambda _: Outcome.COMPLETED,
        talks: bool = False,
        ledger: Ledger | None = None,
    ) -> None:
        self.chance = random.Random(seed)
        random.seed(seed)
        self.size = size
        self._settings = settings or Settings()
        self._slots = slots
        self._outcome = outcome
        self._talks = talks
        self._folder = Path(tempfile.mkdtemp(prefix="fleet-", dir=_SHM if _SHM.is_dir() else None))
        shutil.copy(empty_store(), self._folder / "store.db")
        self.loop = VirtualLoop(lambda _: None, most_steps=_MOST_STEPS)
        self.loop.set_exception_handler(self._unhandled)
        self.clock = VirtualClock(self.loop)
        self.ids = SeededIds(self.chance)
        self.wire = Wire(self.loop, self.chance)
        self.manager = ManagerHost(
            self.loop, self.wire, self.clock, self.ids, self._folder / "store.db", settings=self._settings
        )
        self.ledger = ledger or Ledger()
        self.sites = [self._targets(site) for site in range(size.sites)]
        self.workers: list[StandIn] = []
        self._defects: list[Any] = []

    @property
    def names(self) -> list[str]:
        """The names of all targets."""
        return self.names_of(0, self.size.targets)

    def names_of(self, first: int, last: int) -> list[str]:
        """Return the names of the targets of each site from the first to before the last."""
        return [target.name for site in self.sites for target in site[first:last]]

    def live(self, story: Callable[["Fleet"], Awaitable[T]]) -> T:
        """Live through a story, and return what it found; raise ``ViolationError`` where an invariant breaks."""
        LOGGER.sink = self._heard
        try:
            found = self.loop.run_until_complete(self._story(story))
            self.ledger.check_limits()
            demand(not self._defects + self.wire.defects, "no defect", *self._defects, *self.wire.defects)
            return found
        finally:
            self._clean_up()

    async def _story(self, story: Callable[["Fleet"], Awaitable[T]]) -> T:
        self.start_manager()
        return await story(self)

    def start_manager(self) -> None:
        """Let a manager serve the store."""
        self.manager.start()
        self.ledger.watch_limits(self.manager.store._backend._file.writer.raw)

    def kill_manager(self) -> None:
        """Let the manager die between two steps."""
        self.ledger.check_limits()
        self.loop.kill(self.manager.process)

    async def man(self, *, within: float = 10.0) -> None:
        """Start the workers of every site, spread over some seconds, and wait until all are registered."""
        for number in range(self.size.all_workers):
            place, site = divmod(number, self.size.sites)
            served = self.sites[site][: self.size.targets - (self.size.alone if place else 0)]
            worker = self.worker(f"worker-{number}", served)
            self.loop.call_later(within * self.chance.random(), worker.start)
        for worker in self.workers:
            await worker.registered.wait()

    def worker(self, name: str, served: list[ServedTarget]) -> StandIn:
        """Make a worker of some targets."""
        registration = Registration(
            worker_name=name,
            instance_id=self.ids.new_id(),
            targets=tuple(served),
            slots=self._slots,
        )
        worker = StandIn(
            registration,
            wire=self.wire,
            chance=self.chance,
            ids=self.ids,
            timing=self._settings.timing,
            span=self.span,
            listener=self.ledger,
            outcome=lambda: self._outcome(self.chance),
            talks=self._talks,
        )
        self.workers.append(worker)
        return worker

    def span(self) -> float:
        """Draw how long an operation lasts, in seconds: between a half and one and a half of the mean."""
        return MEAN_SPAN * (0.5 + self.chance.random())

    async def create(self, targets: list[str], operations: int = 1, **fields: Any) -> ParentJob:
        """Create a parent job."""
        request = JobRequest(
            name="upkeep",
            targets=tuple(targets),
            operations=tuple(RequestedOperation(name=name) for name in OPERATIONS[:operations]),
            **fields,
        )
        parent = await self.wire.ask(lambda wire: wire.jobs._creation.create(request))
        assert isinstance(parent, ParentJob)
        self.ledger.created(parent, targets)
        return parent

    def shuffled(self, names: list[str]) -> list[str]:
        """Put targets in the order that a client happens to name them in."""
        return self.chance.sample(names, len(names))

    async def parent(self, parent_job_id: str) -> ParentJob:
        """Read a parent job."""
        found: ParentJob = await self.manager.store.parent_job(parent_job_id)
        return found

    def leases_of(self, session_id: str) -> list[tuple[str, str]]:
        """Read which children are leased to a session, and whether they run."""
        raw = self.manager.store._backend._file.reader.raw
        found: list[tuple[str, str]] = raw.execute(
            "SELECT child_id, state FROM leases WHERE session_id = ?", (session_id,)
        ).fetchall()
        return found

    async def waiting(self, parent: ParentJob) -> list[str]:
        """Return the targets on which children of a parent job wait for their first lease."""
        wanted = ChildJobFilter(states=frozenset({ChildJobState.PENDING}))
        found = await self.manager.store.child_jobs(parent.id, wanted, limit=1_000_000)
        return [child.target for child in found if not child.attempts]

    async def ended(self, *parents: ParentJob, within: float, promise: str) -> None:
        """Wait until parent jobs have ended, and demand that it is in time."""
        limit = self.loop.time() + within
        left = {parent.id for parent in parents}
        while left:
            self.ledger.check_limits()
            left -= {one for one in tuple(left) if (await self.parent(one)).state.final}
            demand(self.loop.time() <= limit, promise, f"{len(left)} left after {within} s")
            if left:
                await asyncio.sleep(0.5)

    def _targets(self, site: int) -> list[ServedTarget]:
        return [
            _target(f"s{site:03}-t{number:03}", shared=number % 10 == 0) for number in range(self.size.targets)
        ]

    def _heard(self, level: str, event: str, fields: dict[str, Any]) -> None:
        if level == "exception" and not self.loop.reaping:
            self._defects.append((event, fields))

    def _unhandled(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not self.loop.reaping:
            self._defects.append(context)

    def _clean_up(self) -> None:
        self.loop.reaping = True
        for worker in self.workers:
            worker.die(silent=True)
        managers: list[Process] = self.manager.all
        for process in managers:
            self.loop.kill(process)
        self.loop.reap(managers)
        if everything := asyncio.all_tasks(self.loop):
            for task in everything:
                task.cancel()
            self.loop.run_until_complete(asyncio.wait(everything, timeout=60))
        self.loop.close()
        LOGGER.sink = None
        shutil.rmtree(self._folder)


def _target(name: str, *, shared: bool) -> ServedTarget:
    """Make a target: most take one operation at a time, some two."""
    locks = (Lock(key=f"key:{name}", exclusive=not shared),)
    return ServedTarget(
        name=name,
        engine="simulated",
        engine_version="1",
        identity=f"file:{name}",
        max_parallel=2 if shared else 1,
        operations=tuple(OfferedOperation(name=operation, locks=locks) for operation in OPERATIONS),
    )
