import asyncio

from benchmarks.figures import Figure
from benchmarks.scale import ended
from benchmarks.scale.deployment import Window, deployed, figures_of, migrated, ratio
from benchmarks.scale.load import windows
from benchmarks.scale.size import Size
from tests.postgres import PostgresServer

_FEW = 1_000
_SECONDS = 8.0
_AIM = "at least 0.9"


def measure(server: PostgresServer, size: Size) -> list[Figure]:
    """Tell what a lifecycle comes to with many pending, and with many that have ended, against few of both."""
    many, finished = 100_000, size.of(200_000, 1_000_000)
    found: dict[str, list[Window]] = {"few": [], "pending": [], "finished": []}
    with migrated(server) as empty, migrated(server) as full:
        ended.fill(full, finished)
        for _ in range(size.rounds):
            for name, template, level in (
                ("few", empty, _FEW),
                ("pending", empty, many),
                ("finished", full, _FEW),
            ):
                found[name].append(_run(server, template, level))
    return [
        *figures_of(f"lifecycle, {_FEW:,} pending", found["few"]),
        *figures_of(f"lifecycle, {many:,} pending", found["pending"]),
        ratio("  against few", found["pending"], found["few"], _AIM),
        *figures_of(f"lifecycle, {finished:,} finished", found["finished"]),
        ratio("  against none", found["finished"], found["few"], _AIM),
    ]


def _run(server: PostgresServer, template: str, level: int) -> Window:
    url = server.create_database(template)
    try:
        server.checkpoint()
        with deployed(server, url) as deployment:
            [window] = asyncio.run(windows(deployment, level=level, warm_up=3, seconds=_SECONDS))
            return window
    finally:
        server.drop_database(url)
