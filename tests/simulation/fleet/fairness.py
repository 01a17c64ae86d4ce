"""Parent jobs of very different sizes share the workers of a fleet."""

import asyncio

from manager_service.domain.model import ParentJob
from tests.simulation.fleet.figures import Figures, jain, percentile
from tests.simulation.fleet.fleet import MEAN_SPAN, Fleet, Size
from tests.simulation.invariants import demand

FULL = Size(sites=200, workers=10, targets=25)
QUICK = Size(sites=24, workers=10, targets=25)

LEAST_INDEX = 0.97
MOST_ROUNDS = 5.0
MOST_ROUNDS_A_TURN = 1.3
"""A small parent job takes so many mean operations, and so many for each turn of what it may run at once."""

_LIMIT = 10
_SMALL = (20, 40, 80)
_LARGE = ((0, 12, 4), (12, 19, 3), (19, 25, 3))
"""The first and last target of each site, and the operations, of each large parent job."""
_WATCHED = 40.0


def share(seed: int, size: Size) -> Figures:
    """Let large and small parent jobs compete, and demand that each gets its share.

    Three large ones of equal priority have work for every site all the time; small ones that come later run ten
    children at a time, wherever; an urgent one passes them all, and one of a lower priority waits for them all.
    """
    return Fleet(seed, size).live(_compete)


async def _compete(fleet: Fleet) -> Figures:
    await fleet.man()
    names = fleet.shuffled(fleet.names)
    large = [await fleet.create(fleet.shuffled(fleet.names_of(first, last)), of) for first, last, of in _LARGE]
    low = await fleet.create(names, 1, priority=-1)
    await asyncio.sleep(MEAN_SPAN)
    small = [await fleet.create(fleet.chance.sample(names, of), max_parallel=_LIMIT) for of in _SMALL]
    came = fleet.loop.time()
    high = await fleet.create(names[::5], priority=1)
    await fleet.ended(high, within=4 * MEAN_SPAN, promise="an urgent parent job passes all others")
    urgent = fleet.loop.time() - came
    await asyncio.sleep(max(0.0, came + _WATCHED - fleet.loop.time()))
    demand(not fleet.ledger.grants[low.id], "a lower priority waits while a higher one could go")
    shares = await _shares(fleet, large, came)
    demand(jain(shares) >= LEAST_INDEX, "parent jobs of equal priority share fairly", shares)
    await fleet.ended(*small, within=600.0, promise="small parent jobs end")
    times = [fleet.ledger.ends[job.id][-1] - came for job in small]
    for time, children in zip(times, _SMALL, strict=True):
        most = MEAN_SPAN * (MOST_ROUNDS + MOST_ROUNDS_A_TURN * children / _LIMIT)
        demand(time <= most, "a small parent job takes time in proportion to its size", children, times)
    demand(not fleet.ledger.twice(), "no child runs twice", *fleet.ledger.twice()[:3])
    waits = [wait for job in small for wait in fleet.ledger.waits(parents={job.id})[:_LIMIT]]
    return {
        "workers, targets": f"{len(fleet.workers):,}, {len(names):,}",
        "children of the large parent jobs": ", ".join(f"{job.counts.total:,}" for job in large),
        f"of them granted in {_WATCHED:.0f} s": ", ".join(f"{share:,.0f}" for share in shares),
        "Jain's index": jain(shares),
        "the smallest share, of the largest": min(shares) / max(shares),
        f"seconds of parent jobs of {', '.join(map(str, _SMALL))}": ", ".join(f"{time:.0f}" for time in times),
        f"wait of their first {_LIMIT} children, p50, s": percentile(waits, 0.5),
        f"wait of their first {_LIMIT} children, p99, s": percentile(waits, 0.99),
        f"seconds of an urgent one of {high.counts.total:,}": urgent,
    }


async def _shares(fleet: Fleet, jobs: list[ParentJob], begin: float) -> list[float]:
    """Return what each was granted since then; all of them have to have waited all the time."""
    standing = [await fleet.parent(job.id) for job in jobs]
    demand(all(job.counts.pending for job in standing), "every large parent job has children left", standing)
    return [float(sum(time >= begin for time in fleet.ledger.grants[job.id])) for job in jobs]
