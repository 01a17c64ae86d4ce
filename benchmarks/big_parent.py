"""A parent job of 100,000 children: what it takes to make, and what calls cost beside one of ten children."""

import asyncio
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from pathlib import Path
from statistics import median

from benchmarks import finished
from benchmarks.caller import OPTIONS, create, grant, memory, report, retire, served, snapshot, timed, worker
from benchmarks.figures import RUNS, Figure
from tests.battery.remote import remote
from tests.contract.manager_harness import RunningManager, Worker
from tests.services import Service, start_manager

_OPERATIONS = ("vacuum", "analyze")
# As many as the SQLite engine has.
_OFFERED = (*_OPERATIONS, *(f"other_{number}" for number in range(8)))
_TARGETS = [f"t{number:05d}" for number in range(50_000)]
_PER_WORKER = 10_000
_FEW = 10
_SAMPLES = 60
_AT_REST = 1.0
_CALLS = ("GetParentJob", "WatchParentJob's snapshot")
_CLAIMS = ("AcquireLeases of 1", "ReportResults of 1", "AcquireLeases of 10", "ReportResults of 10")
_PLACES = tuple(
    f"{store}{place}" for store in ("big", "finished") for place in ("", ", few served", ": ten beside it")
)

Took = dict[str, list[float]]


def measure() -> list[Figure]:
    return [*_creation(known=False), *_creation(known=True), *_costs()]


def _creation(*, known: bool) -> list[Figure]:
    made = [asyncio.run(_made(known=known)) for _ in range(RUNS)]
    seconds, peaks, rests = zip(*made, strict=True)
    which = "known targets, each served" if known else "targets that nobody serves yet"
    return [
        Figure(name=f"creation, {which}", values=seconds, unit="s", aim="under 5"),
        Figure(name="  most memory of the manager", values=peaks, unit="MB", aim="under 300"),
        Figure(name="  memory of the manager a second later", values=rests, unit="MB"),
    ]


async def _made(*, known: bool) -> tuple[float, float, float]:
    """Return the seconds of a creation, and the memory of the manager at its most and afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        async with _manager(Path(folder) / "jobs.db", "full") as (service, caller):
            if known:
                await _serve_all(caller)
            begun = time.perf_counter()
            await create(caller, _TARGETS, _OPERATIONS, allow_unknown_targets=not known)
            seconds = time.perf_counter() - begun
            await asyncio.sleep(_AT_REST)
            return seconds, *memory(service)


@asynccontextmanager
async def _manager(store: Path, synchronous: str) -> AsyncIterator[tuple[Service, RunningManager]]:
    with start_manager(store, "--synchronous", synchronous, *OPTIONS) as service:
        async with remote(service) as caller:
            yield service, caller


async def _serve_all(caller: RunningManager) -> list[Worker]:
    """Open a session for each 10,000 of the targets, the most that one may serve."""
    parts = [_TARGETS[begin : begin + _PER_WORKER] for begin in range(0, len(_TARGETS), _PER_WORKER)]
    return [await _serving(caller, part) for part in parts]


async def _serving(caller: RunningManager, targets: Sequence[str]) -> Worker:
    return await worker(caller, f"of {targets[0]}", [served(name, _OFFERED) for name in targets])


def _costs() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "finished.db"
        finished.fill(store, _TARGETS[:5_000])
        runs = [asyncio.run(_cost(store)) for _ in range(RUNS)]
    figures = [
        Figure(name=f"{call}, ten children", values=[median(run["ten"][call]) for run in runs], unit="ms")
        for call in (*_CALLS, *_CLAIMS)
    ]
    for place in _PLACES:
        for call in (*_CALLS, *_CLAIMS):
            if call in runs[0][place]:
                ratios = [median(run[place][call]) / median(run["ten"][call]) for run in runs]
                figures.append(Figure(name=f"{call}, {place}", values=ratios, unit="x", aim="at most 1.5"))
    return figures


async def _cost(store: Path) -> dict[str, Took]:
    """Return the milliseconds of calls by where they were made, taking turns on three managers.

    "ten" knows parent jobs of ten children only, "big" one of 100,000 too, "finished" a million ended children.
    """
    took: dict[str, Took] = defaultdict(lambda: defaultdict(list))
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        shutil.copy(store, folder / "finished.db")
        ten, big, full = [
            (await stack.enter_async_context(_manager(folder / f"{name}.db", "normal")))[1]
            for name in ("ten", "big", "finished")
        ]
        small = _Small(ten, took["ten"])
        places: list[_Small | _Big] = [
            small,
            await _Big.of(big, took, "big"),
            await _Big.of(full, took, "finished"),
        ]
        for _ in range(_SAMPLES):
            for place in places:
                await place.sample()
    return took


class _Small:
    """Parent jobs of ten children, one after the other."""

    def __init__(self, caller: RunningManager, took: Took) -> None:
        self._caller = caller
        self._took = took
        self._rounds = count()

    async def sample(self) -> None:
        names = [f"s{next(self._rounds)}.{number}" for number in range(_FEW)]
        serving = await _serving(self._caller, names)
        parent = await create(self._caller, names, _OPERATIONS[:1])
        await _look(self._caller, parent, self._took)
        await _lease(serving, 1, self._took)
        await _lease(serving, _FEW - 1, {})
        await create(self._caller, names, _OPERATIONS[:1])
        await _lease(serving, _FEW, self._took)
        await retire(serving)


class _Big:
    """A parent job of 100,000 children, with a worker that serves many of its targets and one that serves few."""

    def __init__(
        self, caller: RunningManager, parent: str, serving: Worker, took: dict[str, Took], name: str
    ) -> None:
        self._caller = caller
        self._parent = parent
        self._serving = serving
        self._took = took[name]
        self._few = took[f"{name}, few served"]
        self._beside = _Small(caller, took[f"{name}: ten beside it"])
        self._rounds = count(1)

    @classmethod
    async def of(cls, caller: RunningManager, took: dict[str, Took], name: str) -> "_Big":
        serving = await _serve_all(caller)
        return cls(caller, await create(caller, _TARGETS, _OPERATIONS), serving[0], took, name)

    async def sample(self) -> None:
        await _look(self._caller, self._parent, self._took)
        for number in (1, _FEW):
            await _lease(self._serving, number, self._took)
        end = len(_TARGETS) - 2 * _FEW * next(self._rounds)
        few = await _serving(self._caller, _TARGETS[end : end + 2 * _FEW])
        for number in (1, _FEW):
            await _lease(few, number, self._few)
        await retire(few)
        await self._beside.sample()


async def _look(caller: RunningManager, parent: str, took: Took) -> None:
    get, watch = _CALLS
    await caller.get(parent)  # the manager was idle, which costs the first call something
    await timed(caller.get(parent), took[get])
    await timed(snapshot(caller, parent), took[watch])


async def _lease(serving: Worker, number: int, took: Took) -> None:
    granted = await timed(grant(serving, number), took.setdefault(f"AcquireLeases of {number}", []))
    await timed(report(serving, granted), took.setdefault(f"ReportResults of {number}", []))
