import asyncio

from benchmarks.figures import Figure
from benchmarks.scale.deployment import Window, deployed, figures_of, migrated, ratio
from benchmarks.scale.load import windows
from benchmarks.scale.size import Size
from tests.postgres import PostgresServer

_LEVEL = 2_000


def measure(server: PostgresServer, size: Size) -> list[Figure]:
    """Tell what two managers come to against one, on the cores that they share with the store and the workers."""
    slots = (1, 10, 100) if size.full else (10, 100)
    return [figure for number in slots for figure in _figures(server, size, number)]


def _figures(server: PostgresServer, size: Size, slots: int) -> list[Figure]:
    one, two = [], []
    for _ in range(size.rounds):
        one.append(_run(server, size, slots, managers=1))
        two.append(_run(server, size, slots, managers=2))
    return [
        *figures_of(f"one manager, slots {slots}", one),
        *figures_of(f"two managers, slots {slots}", two),
        ratio("  two against one", two, one, "not slower"),
    ]


def _run(server: PostgresServer, size: Size, slots: int, *, managers: int) -> Window:
    seconds = size.of(6, 20)
    with migrated(server) as url, deployed(server, url, managers=managers, slots=slots) as deployment:
        [window] = asyncio.run(windows(deployment, level=_LEVEL, warm_up=2, seconds=seconds))
        return window
