import asyncio
import time
from collections.abc import Sequence

from benchmarks.caller import OPTIONS, create, served, worker
from benchmarks.figures import Figure, cpu_seconds, tree_cpu_seconds
from benchmarks.scale.deployment import managed, migrated
from benchmarks.scale.size import Size
from tests.battery.remote import remote
from tests.postgres import PostgresServer
from tests.services import Service

_TARGETS = [f"t{number:05d}" for number in range(50_000)]
_PER_WORKER = 10_000
_AIM = "50,000"
_FEW = 2
_MANY = 20


def measure(server: PostgresServer, size: Size) -> list[Figure]:
    """Tell how many children a second one parent job is made of, on targets that are known and that are not."""
    figures = []
    for each in (_FEW, _MANY) if size.full else (_FEW,):
        runs = [_run(server, each) for _ in range(size.rounds)]
        for number, where in enumerate(("known targets", "targets nobody serves")):
            made = [run[number] for run in runs]
            children = each * len(_TARGETS)
            rates = [children / seconds for seconds, *_ in made]
            figures.append(
                Figure(name=f"children a second, {children:,} on {where}", values=rates, unit="/s", aim=_AIM)
            )
            for place, who in enumerate(("manager", "database"), 1):
                cpu = [one[place] / children * 1e6 for one in made]
                figures.append(Figure(name=f"  CPU of the {who} a child", values=cpu, unit="us"))
    return figures


def _run(server: PostgresServer, each: int) -> list[tuple[float, float, float]]:
    """Return the seconds of a creation, and the CPU seconds of manager and database, of each kind."""
    with migrated(server) as url, managed(url, 1, *OPTIONS) as [manager]:
        return asyncio.run(_creations(server, manager, [f"o{number}" for number in range(max(each, 10))], each))


async def _creations(
    server: PostgresServer, manager: Service, offered: Sequence[str], each: int
) -> list[tuple[float, float, float]]:
    async with remote(manager) as caller:
        for begin in range(0, len(_TARGETS), _PER_WORKER):
            offers = [served(name, offered) for name in _TARGETS[begin : begin + _PER_WORKER]]
            await worker(caller, f"w{begin}", offers)
        made = []
        for names, known in ((_TARGETS, True), ([f"u{name}" for name in _TARGETS], False)):
            await asyncio.to_thread(server.checkpoint)
            begun, spent = time.perf_counter(), _spent(server, manager)
            await create(caller, names, offered[:each], allow_unknown_targets=not known)
            after = _spent(server, manager)
            made.append((time.perf_counter() - begun, after[0] - spent[0], after[1] - spent[1]))
        return made


def _spent(server: PostgresServer, manager: Service) -> tuple[float, float]:
    return cpu_seconds(manager.process.pid), tree_cpu_seconds(server.pid)
