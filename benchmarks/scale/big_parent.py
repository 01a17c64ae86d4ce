import asyncio
from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from benchmarks.caller import OPTIONS, create, snapshot, timed
from benchmarks.figures import Figure
from benchmarks.scale.deployment import managed, migrated
from benchmarks.scale.size import Size
from tests.battery.remote import remote
from tests.postgres import PostgresServer
from tests.services import Service

_TARGETS = [f"t{number:05d}" for number in range(50_000)]
_OPERATIONS = [f"o{number}" for number in range(20)]
_SMALL = 1_000
_SAMPLES = 200
_CALLS = ("GetParentJob", "WatchParentJob's snapshot")


def measure(server: PostgresServer, size: Size) -> list[Figure]:
    """Tell what calls about a parent job of a million children cost against those about one of a thousand."""
    operations = _OPERATIONS[: size.of(4, len(_OPERATIONS))]
    children = len(_TARGETS) * len(operations)
    with migrated(server) as url, managed(url, 1, *OPTIONS) as [manager]:
        runs = asyncio.run(_runs(manager, operations, size.rounds))
    figures = []
    for call in _CALLS:
        small = [run["small", call] for run in runs]
        ratios = [run["big", call] / run["small", call] for run in runs]
        figures.append(Figure(name=f"{call}, {_SMALL:,} children", values=small, unit="ms"))
        figures.append(Figure(name=f"  against it, {children:,}", values=ratios, unit="x", aim="at most 1.5"))
    return figures


async def _runs(manager: Service, operations: Sequence[str], rounds: int) -> list[dict[tuple[str, str], float]]:
    async with remote(manager) as caller:
        parents = {
            "small": await create(caller, _TARGETS[:_SMALL], operations[:1], allow_unknown_targets=True),
            "big": await create(caller, _TARGETS, operations, allow_unknown_targets=True),
        }
        runs = []
        for _ in range(rounds):
            took: dict[tuple[str, str], list[float]] = defaultdict(list)
            for _ in range(_SAMPLES):
                for name, parent in parents.items():
                    await timed(caller.get(parent), took[name, _CALLS[0]])
                    await timed(snapshot(caller, parent), took[name, _CALLS[1]])
            runs.append({which: median(of) for which, of in took.items()})
        return runs
