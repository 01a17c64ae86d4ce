import asyncio
from collections.abc import Mapping

import psycopg

from benchmarks.figures import Figure
from benchmarks.scale.deployment import Deployment, Meter, Window, deployed, figures_of, migrated
from benchmarks.scale.hot_tables import TABLES, HotTable, look
from benchmarks.scale.load import Load
from benchmarks.scale.size import Size
from tests.postgres import PostgresServer

_LEVEL = 2_000
_EVERY = 1.0
_OFTEN = "5s"


def measure(server: PostgresServer, size: Size) -> list[Figure]:
    """Tell how far autovacuum is behind in the hot tables under a steady load, as installed and looking often."""
    installed = _figures(server, size.of(130, 600), "autovacuum_naptime as installed")
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"ALTER SYSTEM SET autovacuum_naptime = '{_OFTEN}'")
        connection.execute("SELECT pg_reload_conf()")
    return [*installed, *_figures(server, size.of(50, 300), f"autovacuum_naptime {_OFTEN}")]


def _figures(server: PostgresServer, seconds: int, setting: str) -> list[Figure]:
    with migrated(server) as url, deployed(server, url) as deployment:
        windows, looks = asyncio.run(_watch(deployment, seconds))
    figures = figures_of(f"lifecycle, each tenth of the time, {setting}", windows)
    for table in TABLES:
        dead = [one[table].dead for one in looks]
        vacuums = looks[-1][table].vacuums - looks[0][table].vacuums
        figures += [
            Figure(name=f"  dead rows of {table}, {vacuums} vacuums, each second", values=dead, unit=""),
            Figure(name="    its live rows", values=[one[table].live for one in looks], unit=""),
            Figure(name="    its size", values=[one[table].size / 1e6 for one in looks], unit="MB"),
        ]
    return figures


async def _watch(deployment: Deployment, seconds: int) -> tuple[list[Window], list[Mapping[str, HotTable]]]:
    looks, windows = [], []
    async with Load(deployment, _LEVEL).kept():
        await asyncio.sleep(2)
        meter = Meter(deployment)
        for second in range(1, seconds + 1):
            await asyncio.sleep(_EVERY)
            looks.append(await asyncio.to_thread(look, deployment.url))
            if second % (seconds // 10) == 0:
                windows.append(meter.window())
    return windows, looks
