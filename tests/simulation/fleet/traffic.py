"""An hour of a busy manager: jobs are made, worked, watched and pruned, workers come and go; memory stays flat."""

import asyncio
import gc
import os
import random
import sys
from collections import Counter
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from manager_service.config import Settings
from manager_service.domain.errors import ManagerError
from manager_service.domain.leases import Lease, ReportStatus
from manager_service.domain.model import SECOND, ParentJob
from manager_service.domain.ports import ChildJobFilter
from manager_service.domain.states import Outcome
from tests.simulation.fleet.figures import Figures
from tests.simulation.fleet.fleet import MEAN_SPAN, OPERATIONS, Fleet, Size
from tests.simulation.fleet.holdings import holdings
from tests.simulation.fleet.ledger import Ledger
from tests.simulation.fleet.stand_in import StandIn
from tests.simulation.fleet.wire import Wire
from tests.simulation.invariants import demand

MOST_BLOCKS = 1.0
"""How many blocks of memory may be left of each child that came and went in the last third of the time."""
MOST_BYTES = 2_000
"""The same for the memory of the whole process, which the allocators of Python and SQLite make uneven."""

_SAMPLES = 30
_LOAD = 0.4
_TARGETS, _OPERATIONS = 5, 2
_CHURN = 10.0
"""How often, in seconds, a worker goes and another comes."""
_SLACK = 1.5
# What grows evenly from nothing is half as large again at the end as after two thirds.
_GROWTH = 1.2
_FEW = 20
_THIRD = _SAMPLES // 3
_FAILS, _SAME_NAME, _LEAVES, _SILENT = 0.05, 0.5, 0.5, 0.5
_MEMORY = Path("/proc/self/statm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """How long the traffic lasts, and how long what is long gone is kept; in seconds.

    What a manager keeps for days is kept for minutes, and what it keeps so many of as it has workers and targets,
    so that an hour shows that it is forgotten.
    """

    lasts: float
    kept: float


FULL = Size(sites=20, workers=10, targets=25)
QUICK = Size(sites=2, workers=10, targets=25)
HOUR = Span(lasts=3_600.0, kept=300.0)


class _Forgetful(Ledger):
    """Counts reports, and remembers nothing else."""

    def created(self, parent: ParentJob, targets: Iterable[str]) -> None:
        """Remember nothing."""

    def granted(self, worker: StandIn, lease: Lease) -> None:
        """Remember nothing."""

    def answered(self, worker: StandIn, lease: Lease, status: ReportStatus) -> None:
        """Count a report."""
        self.statuses[status] += 1


def busy(seed: int, size: Size, span: Span = HOUR) -> Figures:
    """Live through traffic, and demand that what a manager holds is bounded and does not grow."""
    settings = Settings(retention=round(span.kept * SECOND))
    with _kept(span.kept, offers=size.all_workers * size.targets):
        fleet = Fleet(seed, size, settings=settings, outcome=_outcome, talks=True, ledger=_Forgetful())
        return fleet.live(_Traffic(span).live)


@contextmanager
def _kept(seconds: float, *, offers: int) -> Iterator[None]:
    kept = round(seconds * SECOND)
    with (
        patch("manager_service.leasing.sessions.KEPT", kept),
        patch("manager_service.leasing.heartbeats.KEPT", kept),
        patch("manager_service.housekeeping.SESSIONS_KEPT", kept),
        patch("manager_service.progress.KEPT", kept),
        patch("manager_service.store.offers._OFFERS_KEPT", offers),
    ):
        yield


def _outcome(chance: random.Random) -> Outcome:
    return Outcome.FAILED if chance.random() < _FAILS else Outcome.COMPLETED


class _Traffic:
    """What clients and operators do, and what is measured meanwhile."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self._tasks: set[asyncio.Task[None]] = set()
        self._watching = 0
        self._most_watching = 0
        self._done: Counter[str] = Counter()
        self._reported: list[int] = []
        self._blocks: list[int] = []
        self._bytes: list[int] = []
        # The largest of each third: what the simulation itself keeps must not grow either.
        self._largest: tuple[Counter[str], ...] = (Counter(), Counter(), Counter())

    async def live(self, fleet: Fleet) -> Figures:
        """Let everybody come and go, and look at the manager again and again."""
        await fleet.man()
        self._spawn(self._create_on(fleet))
        self._spawn(self._churn_on(fleet))
        for number in range(_SAMPLES):
            await asyncio.sleep(self._span.lasts / _SAMPLES)
            self._sample(fleet, self._largest[number // _THIRD])
        for task in self._tasks:
            task.cancel()
        self._check(fleet)
        return self._figures(fleet)

    async def _create_on(self, fleet: Fleet) -> None:
        children = _TARGETS * _OPERATIONS
        rate = _LOAD * fleet.size.all_workers / MEAN_SPAN / children
        while True:
            await asyncio.sleep(fleet.chance.expovariate(rate))
            targets = fleet.chance.sample(fleet.names, _TARGETS)
            parent = await fleet.create(targets, _OPERATIONS, max_parallel=fleet.chance.choice([0, 2]))
            self._done["parent jobs"] += 1
            visit = fleet.chance.choice([self._watch, self._watch_a_while, self._read_logs, self._cancel])
            self._spawn(visit(fleet, parent))

    async def _watch(self, fleet: Fleet, parent: ParentJob) -> None:
        async def follow(wire: Wire) -> None:
            async with aclosing(wire.jobs._watches.watch(parent.id, None)) as updates:
                async for _ in updates:
                    pass

        self._watching += 1
        self._most_watching = max(self._watching, self._most_watching)
        try:
            await fleet.wire.ask(follow)
        finally:
            self._watching -= 1
        self._done["watches"] += 1
        with suppress(ManagerError):
            await fleet.manager.store.delete_parent_job(parent.id)

    async def _watch_a_while(self, fleet: Fleet, parent: ParentJob) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(MEAN_SPAN * fleet.chance.random()):
                await self._watch(fleet, parent)

    async def _read_logs(self, fleet: Fleet, parent: ParentJob) -> None:
        [child] = await fleet.manager.store.child_jobs(parent.id, ChildJobFilter(), limit=1)

        async def follow(wire: Wire) -> None:
            pages = wire.jobs._logs.read(child.id, attempt=0, offset=0, follow=True)
            async with aclosing(pages):
                async for _ in pages:
                    pass

        await fleet.wire.ask(follow)
        self._done["logs followed"] += 1

    async def _cancel(self, fleet: Fleet, parent: ParentJob) -> None:
        await asyncio.sleep(MEAN_SPAN * fleet.chance.random())
        with suppress(ManagerError):
            await fleet.manager.store.cancel_parent_job(parent.id, "not needed")
        self._done["cancels"] += 1

    async def _churn_on(self, fleet: Fleet) -> None:
        """Let workers go in each of the ways that there are; each is followed by one of a new or of its name."""
        while True:
            await asyncio.sleep(fleet.chance.expovariate(1 / _CHURN))
            worker = fleet.workers.pop(fleet.chance.randrange(len(fleet.workers)))
            self._spawn(self._replace(fleet, worker))

    async def _replace(self, fleet: Fleet, worker: StandIn) -> None:
        name = worker.name if fleet.chance.random() < _SAME_NAME else f"worker-{fleet.ids.new_id()}"
        served = list(worker.registration.targets)
        if fleet.chance.random() < _LEAVES:
            await worker.leave()
        else:
            worker.die(silent=fleet.chance.random() < _SILENT)
        self._done["workers that went"] += 1
        fleet.worker(name, served).start()

    def _sample(self, fleet: Fleet, largest: Counter[str]) -> None:
        fleet.wire.calls.clear()
        gc.collect()
        self._reported.append(fleet.ledger.statuses.total())
        self._blocks.append(sys.getallocatedblocks())
        self._bytes.append(int(_MEMORY.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
        largest |= holdings(fleet.manager._manager, fleet.manager.store)

    def _check(self, fleet: Fleet) -> None:
        _, before, last = self._largest
        for name, most in self._bounds(fleet).items():
            demand(last[name] > 0, "what is to be bounded is there", name)
            demand(last[name] <= most, "what a manager holds is bounded", name, last[name], most)
        for name, now in last.items():
            demand(
                now <= _SLACK * before[name] + _FEW, "what a manager holds does not grow", name, before[name], now
            )
        blocks, memory = self._left(self._blocks), self._left(self._bytes)
        demand(blocks <= MOST_BLOCKS, "a manager's memory is flat", blocks, self._blocks)
        demand(memory <= MOST_BYTES, "a manager's memory is flat", memory, self._bytes)

    def _bounds(self, fleet: Fleet) -> dict[str, float]:
        """Return how large the maps may be: as many as there are, and those gone for no longer than is kept."""
        workers, timing = len(fleet.workers), Settings().timing
        gone = self._span.kept / _CHURN
        known = _SLACK * (workers + gone)
        silent = _SLACK * timing.poll_window / SECOND / _CHURN
        told = _LOAD * fleet.size.all_workers / MEAN_SPAN * self._span.kept
        return {
            "Parking._polls": workers + silent + _FEW,
            "Heartbeats._hanging": workers + silent + _FEW,
            "Heartbeats._heard": known,
            "Sessions._sessions": known,
            "Sessions._by_worker": known,
            "Sessions._serving": len(fleet.names) + known * fleet.size.targets,
            "Polls._seen": known,
            # For each pair of a worker and a target, itself and its operations.
            "KeptOffers._kept": fleet.size.all_workers * fleet.size.targets * (1 + len(OPERATIONS)) + _FEW,
            "EventPages._readings": _FEW,
            "Paces._paces": _SLACK * (workers + told),
            "ProgressHub._followed": 2 * self._most_watching,
        }

    def _left(self, samples: list[int]) -> float:
        """Return what was left of each child, by the means of the last third and the one before."""
        before, now = (sum(some) / _THIRD for some in (samples[_THIRD:-_THIRD], samples[-_THIRD:]))
        return (now - before) / (self._reported[-1] - self._reported[-1 - _THIRD])

    def _figures(self, fleet: Fleet) -> Figures:
        names = self._bounds(fleet)
        most = {name: max(sizes[name] for sizes in self._largest) for name in names}
        return {
            "workers, targets": f"{len(fleet.workers):,}, {len(fleet.names):,}",
            "virtual minutes": self._span.lasts / 60,
            "children reported": sum(fleet.ledger.statuses.values()),
            **{name: self._done[name] for name in sorted(self._done)},
            "MB of the process after a third, two thirds, and at the end": ", ".join(
                f"{self._bytes[at] / 1e6:.1f}" for at in (_THIRD, -_THIRD, -1)
            ),
            "blocks of memory left of a child": self._left(self._blocks),
            "bytes of memory left of a child": self._left(self._bytes),
            **{f"most in {name}, of at most": f"{most[name]:,} of {bound:,.0f}" for name, bound in names.items()},
        }

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, ManagerError):
            raise error
