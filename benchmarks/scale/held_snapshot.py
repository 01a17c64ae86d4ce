import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import median

import psycopg

from benchmarks.caller import create, grant, report, served, timed, worker
from benchmarks.figures import Figure
from benchmarks.scale.deployment import Deployment, Meter, deployed, migrated
from benchmarks.scale.hot_tables import TABLES, look
from benchmarks.scale.load import Load
from benchmarks.scale.size import Size
from tests.battery.remote import remote
from tests.contract.manager_harness import RunningManager
from tests.postgres import PostgresServer

_LEVEL = 2_000
_WINDOW = 8.0
_WARM_UP = 3.0
_AFTER = 5
_BACK = 0.95
_PROBE_EVERY = 0.1
_PROBE = "probe"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What a window came to: children a second, milliseconds of a median claim, dead rows of hot tables."""

    rate: float
    claim: float
    dead: dict[str, int]


def measure(server: PostgresServer, size: Size) -> list[Figure]:
    """Tell what a transaction that holds a snapshot open costs a lifecycle, and how fast that is over."""
    hold = size.of(60, 300)
    with migrated(server) as url, deployed(server, url) as deployment:
        before, held, after, seconds = asyncio.run(_run(deployment, hold))
    figures = []
    for name, moment in (("before", before), (f"after {hold} s of a held snapshot", held), ("afterwards", after)):
        figures.append(Figure(name=f"lifecycle, {name}", values=[moment.rate], unit="/s"))
        figures.append(Figure(name="  a claim of one, median", values=[moment.claim], unit="ms"))
        figures += [
            Figure(name=f"  dead rows of {of}", values=[dead], unit="") for of, dead in moment.dead.items()
        ]
    return [
        *figures,
        Figure(name="rate held / before", values=[held.rate / before.rate], unit="x"),
        Figure(name="claim held / before", values=[held.claim / before.claim], unit="x"),
        Figure(name=f"back at {_BACK} of the rate, at most", values=[seconds], unit="s"),
    ]


async def _run(deployment: Deployment, hold: int) -> tuple[Moment, Moment, Moment, float]:
    async with Load(deployment, _LEVEL).kept(), remote(deployment.managers[0]) as caller:
        windows = _Windows(deployment)
        async with windows.probed(caller):
            await asyncio.sleep(_WARM_UP)
            before = await windows.next()
            with psycopg.connect(deployment.url) as holder:
                holder.execute("SET idle_in_transaction_session_timeout = 0")
                holder.commit()
                holder.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                holder.execute("SELECT count(*) FROM queue")
                await asyncio.sleep(hold - _WINDOW)
                held = await windows.next()
            released = time.monotonic()
            after = await windows.next()
            for _ in range(_AFTER):
                if after.rate >= _BACK * before.rate and after.claim * _BACK <= before.claim:
                    break
                after = await windows.next()
            return before, held, after, time.monotonic() - released


class _Windows:
    """Windows of time, of each what it came to."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._claims: list[float] = []

    async def next(self) -> Moment:
        """Return what the next window comes to."""
        meter = Meter(self._deployment)
        self._claims.clear()
        await asyncio.sleep(_WINDOW)
        window, tables = meter.window(), look(self._deployment.url)
        return Moment(
            rate=window.rate, claim=median(self._claims), dead={name: tables[name].dead for name in TABLES}
        )

    @asynccontextmanager
    async def probed(self, caller: RunningManager) -> AsyncIterator[None]:
        """Claim one child after the other on a target of its own."""
        task = asyncio.create_task(self._probe(caller))
        try:
            yield
            if task.done():
                task.result()
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _probe(self, caller: RunningManager) -> None:
        one = await worker(caller, "prober", [served(_PROBE, ("noop",))])
        while True:
            await create(caller, [_PROBE], ["noop"])
            await report(one, await timed(grant(one, 1), self._claims))
            await asyncio.sleep(_PROBE_EVERY)
