"""The manager is away for longer than a lease lasts, and a fifth of the workers are lost one after the other."""

import asyncio
from collections import Counter

from manager_service.config import Settings
from manager_service.domain.leases import ReportStatus
from manager_service.domain.model import SECOND, ParentJob
from manager_service.domain.ports import ChildJobFilter
from manager_service.domain.states import ChildJobState
from tests.simulation.fleet.figures import Figures, percentile
from tests.simulation.fleet.fleet import MEAN_SPAN, Fleet, Size
from tests.simulation.fleet.stand_in import StandIn
from tests.simulation.invariants import demand

FULL = Size(sites=200, workers=10, targets=25)
QUICK = Size(sites=40, workers=10, targets=25)

MOST_CALLS_A_WORKER = 1.5
"""How many calls a worker makes in any second after an outage, as a mean over all of them."""
MOST_IN_A_TENTH = 0.25
"""The same in any tenth of a second: they do not come all at once."""
MOST_SECONDS_TO_RESUME = 10.0
"""When every worker is heard again after an outage: twice the longest pause between two tries."""

_AWAY = 90.0
_LOST = 0.2
_ROLLING = 20.0
_EXPIRER = 5.0
"""How long after its end a lease is taken back at the latest, in seconds: the expirer looks every two."""


def outage(seed: int, size: Size) -> Figures:
    """Kill the manager under full load and start it long after every lease would have run out."""
    return Fleet(seed, size).live(_outage)


async def _outage(fleet: Fleet) -> Figures:
    await fleet.man()
    parent = await fleet.create(fleet.names, 2)
    await asyncio.sleep(1.5 * MEAN_SPAN)
    fleet.kill_manager()
    held = sum(len(worker.held) for worker in fleet.workers)
    await asyncio.sleep(_AWAY)
    back, known = fleet.loop.time(), len(fleet.ledger.runs)
    fleet.start_manager()
    resumed = await _until_all_work(fleet, known)
    await fleet.ended(parent, within=200.0, promise="all waiting work goes on after an outage")
    peak, tenth = fleet.wire.peak(back, back + 30), fleet.wire.peak(back, back + 30, tenths=1)
    away = fleet.wire.peak(back - 30, back - 1)
    workers = len(fleet.workers)
    demand(peak <= MOST_CALLS_A_WORKER * workers, "those who come back are not too many", peak)
    demand(tenth <= MOST_IN_A_TENTH * workers, "those who come back do not come all at once", tenth)
    demand(resumed <= MOST_SECONDS_TO_RESUME, "work goes on soon after an outage", resumed)
    demand(not fleet.ledger.twice(), "no child runs twice because of an outage", *fleet.ledger.twice()[:3])
    statuses = fleet.ledger.statuses
    demand(not statuses[ReportStatus.STALE], "no lease expires by an outage", statuses)
    demand(not await _losses(fleet, parent), "no loss is counted because of an outage")
    return {
        "workers, targets, children": f"{workers:,}, {len(fleet.names):,}, {parent.counts.total:,}",
        "seconds without a manager": _AWAY,
        "leases held meanwhile": held,
        "leases expired, children run twice": "0, 0",
        "seconds until as many children began anew as there are workers": resumed,
        "most tries in a second, before it is back": away,
        "most calls in a second, after it is back": peak,
        "most calls in a tenth of a second, after it is back": tenth,
    }


async def _until_all_work(fleet: Fleet, known: int) -> float:
    """Wait until as many further children were begun as there are workers; return the seconds."""
    begin = fleet.loop.time()
    while len(fleet.ledger.runs) < known + len(fleet.workers):
        demand(fleet.loop.time() - begin < 120, "work goes on after an outage", len(fleet.ledger.runs) - known)
        await asyncio.sleep(0.1)
    return fleet.loop.time() - begin


def losses(seed: int, size: Size) -> Figures:
    """Let a fifth of the workers die one after the other, half of them without a word."""
    return Fleet(seed, size).live(_losses_of_workers)


async def _losses_of_workers(fleet: Fleet) -> Figures:
    timing = Settings().timing
    await fleet.man()
    parent = await fleet.create(fleet.names, 2)
    # Every lease that is held for longer than a beat was accepted.
    await asyncio.sleep(1.5 * MEAN_SPAN)
    doomed = fleet.chance.sample(fleet.workers, int(_LOST * len(fleet.workers)))
    dead = _Dead(fleet, within=timing.lease_duration / SECOND + _EXPIRER)
    for number, worker in enumerate(doomed):
        await asyncio.sleep(_ROLLING / len(doomed))
        dead.kill(worker, silent=bool(number % 2))
    await dead.settled()
    await fleet.ended(parent, within=600.0, promise="the others do the work of lost workers")
    counted, owed = await _losses(fleet, parent), Counter(dead.ran)
    demand(counted == owed, "each loss is counted once", counted - owed, owed - counted)
    again = [child_id for child_id in fleet.ledger.twice() if child_id not in dead.held]
    demand(not again, "no child but those of lost workers runs twice", *again[:3])
    waits = [fleet.ledger.last_grant[child_id] - dead.held[child_id] for child_id in dead.ran]
    return {
        "workers, targets, children": f"{len(fleet.workers):,}, {len(fleet.names):,}, {parent.counts.total:,}",
        f"workers lost within {_ROLLING:.0f} s": len(doomed),
        "children they ran, losses counted": f"{sum(owed.values()):,}, {sum(counted.values()):,}",
        "seconds until these ran elsewhere, p50": percentile(waits, 0.5),
        "seconds until these ran elsewhere, p99": percentile(waits, 0.99),
    }


class _Dead:
    """Kills workers, and looks after what they held.

    Args:
        fleet: whose workers.
        within: after so many seconds nothing of a dead worker may be leased any more.
    """

    def __init__(self, fleet: Fleet, *, within: float) -> None:
        self._fleet = fleet
        self._within = within
        self._watching: list[asyncio.Task[None]] = []
        self.held: dict[str, float] = {}
        """When the worker died that a child was leased to."""
        self.ran: list[str] = []
        """The children that dead workers ran, as the manager knows."""

    def kill(self, worker: StandIn, *, silent: bool) -> None:
        """Let a worker die now."""
        worker.die(silent=silent)
        self._watching.append(asyncio.ensure_future(self._watch(worker.session)))

    async def settled(self) -> None:
        """Wait until the last one's leases have to be gone."""
        await asyncio.gather(*self._watching)

    async def _watch(self, session_id: str) -> None:
        died = self._fleet.loop.time()
        # By then what it said last has arrived.
        await asyncio.sleep(1)
        for child_id, state in self._fleet.leases_of(session_id):
            self.held[child_id] = died
            if state == ChildJobState.RUNNING:
                self.ran.append(child_id)
        await asyncio.sleep(self._within - 1)
        left = self._fleet.leases_of(session_id)
        demand(not left, "what a lost worker held is back in the queue in time", *left)


async def _losses(fleet: Fleet, parent: ParentJob) -> Counter[str]:
    """Return how many losses are counted of which child."""
    children = await fleet.manager.store.child_jobs(parent.id, ChildJobFilter(), limit=1_000_000)
    return +Counter({child.id: child.losses for child in children})
