"""Ever newer parent jobs come, and nobody waits for ever."""

import asyncio

from tests.simulation.fleet.figures import Figures, percentile
from tests.simulation.fleet.fleet import MEAN_SPAN, Fleet, Size
from tests.simulation.invariants import demand

FULL = Size(sites=200, workers=10, targets=25, alone=1)
QUICK = Size(sites=16, workers=10, targets=25, alone=1)

MOST_ROUNDS = 9
"""How many mean operations the first child of a lane waits at most, on any target that is not asked too much."""
MOST_ROUNDS_HOT = 13
"""How many one of the older parent job waits on a hot target; the stream lasts longer than that."""

_LOAD = 0.6
"""What the stream asks of all workers, as a share of what they can do."""
_HOT_LOAD = 2.0
"""What it asks besides of each hot target, of which there is one at each site."""
_LONG = 15 * MEAN_SPAN


def stream(seed: int, size: Size) -> Figures:
    """Let an old parent job compete with a stream of newer ones of a single child each.

    The workers could do more, but the hot targets are asked for more than they can take: there newer children are
    waiting all the time. Other targets are served by one worker alone, which many serve others with.
    """
    return Fleet(seed, size).live(_overtake)


async def _overtake(fleet: Fleet) -> Figures:
    await fleet.man()
    hot, others = fleet.names_of(0, 1), fleet.names_of(1, fleet.size.targets)
    alone = frozenset(fleet.names_of(fleet.size.targets - fleet.size.alone, fleet.size.targets))
    end = fleet.loop.time() + _LONG
    streams = [
        asyncio.ensure_future(_pour(fleet, others, _LOAD * fleet.size.all_workers / MEAN_SPAN, end)),
        asyncio.ensure_future(_pour(fleet, hot, _HOT_LOAD * len(hot) / MEAN_SPAN, end)),
    ]
    await asyncio.sleep(MEAN_SPAN)
    # The hot ones come last, so that they have the latest turns.
    old = await fleet.create([*fleet.shuffled(others), *fleet.shuffled(hot)])
    newer = sum([await one for one in streams])
    late = await fleet.waiting(old)
    demand(not late, "an older parent job is not overtaken for ever", f"{len(late)} left", *late[:3])
    ledger = fleet.ledger
    of_old, of_hot = ledger.waits(parents={old.id}), ledger.waits(parents={old.id}, targets=frozenset(hot))
    elsewhere, of_alone = ledger.waits(targets=frozenset(others)), ledger.waits(targets=alone)
    demand(max(of_old) <= MOST_ROUNDS_HOT * MEAN_SPAN, "no older child waits for long", max(of_old))
    demand(max(elsewhere) <= MOST_ROUNDS * MEAN_SPAN, "no child waits for long but on hot targets", max(elsewhere))
    demand(not ledger.twice(), "no child runs twice", *ledger.twice()[:3])
    return {
        "workers, targets": f"{len(fleet.workers):,}, {len(fleet.names):,}",
        "newer parent jobs": newer,
        "hot targets, and what is asked of each": f"{len(hot)}, {_HOT_LOAD:.0%}",
        "children of the older one": old.counts.total,
        "their wait, p50, p99 and longest, s": _spread(of_old),
        "of those on hot targets": _spread(of_hot),
        "all children but on hot targets": _spread(elsewhere),
        "of those on targets with one worker": _spread(of_alone),
    }


async def _pour(fleet: Fleet, targets: list[str], rate: float, end: float) -> int:
    """Create parent jobs of one child each at random times until the end; return how many."""
    calls = []
    while fleet.loop.time() < end:
        await asyncio.sleep(fleet.chance.expovariate(rate))
        calls.append(asyncio.ensure_future(fleet.create([fleet.chance.choice(targets)])))
    return len(await asyncio.gather(*calls))


def _spread(waits: list[float]) -> str:
    return ", ".join(f"{wait:.1f}" for wait in (percentile(waits, 0.5), percentile(waits, 0.99), max(waits)))
