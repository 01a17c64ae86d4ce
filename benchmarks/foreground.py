"""What somebody who waits for answers notices of thousands of others, who come and go at a stated pace."""

import asyncio
import random
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

import grpc

from benchmarks.caller import OPTIONS, cpu_seconds, create, served, timed, worker
from benchmarks.figures import RUNS, Figure
from tests.battery.remote import remote
from tests.contract.manager_harness import RunningManager, Worker
from tests.services import Service

_CALLS_PER_SECOND = 20
_SECONDS = 6.0
_SETTLE = 1.0

POLLS = 2_000
POLLS_AGAIN_PER_SECOND = 100
WATCHERS = 500
WATCHERS_AGAIN_PER_SECOND = 200
PARENTS_PER_SECOND = 100

Load = Callable[[RunningManager], Any]


def measure() -> list[Figure]:
    runs = [asyncio.run(_run()) for _ in range(RUNS)]
    figures = []
    for call in ("GetParentJob", "CreateParentJob"):
        rest = [median(run[call, "at rest"]) for run in runs]
        figures.append(Figure(name=f"{call} at rest", values=rest, unit="ms"))
        for load in _LOADS:
            times = [median(run[call, load]) / idle for run, idle in zip(runs, rest, strict=True)]
            figures.append(Figure(name=f"  beside {load}", values=times, unit="x", aim="at most 2"))
    figures += [
        Figure(name=f"CPU: {load}", values=[run["cpu", load][0] for run in runs], unit="%")
        for load in ("at rest", *_LOADS)
    ]
    return figures


async def _run() -> dict[tuple[str, str], list[float]]:
    """Return the milliseconds of each call at rest and beside each load, on one manager."""
    took: dict[tuple[str, str], list[float]] = {}
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        store = ("--listen", "127.0.0.1:0", "--store", f"sqlite:///{folder}/jobs.db", "--synchronous", "normal")
        # One that prunes twice a second instead of once a minute, so that it does while it is looked at.
        arguments = ["serve", *store, "--retention", "1s", *OPTIONS]
        manager = stack.enter_context(Service("tests.battery.watched_manager", arguments))
        caller, others = [await stack.enter_async_context(remote(manager)) for _ in range(2)]
        await _foreground(manager, caller, "at rest", took)
        for name, load in _LOADS.items():
            async with load(others):
                await asyncio.sleep(_SETTLE)
                await _foreground(manager, caller, name, took)
            await asyncio.sleep(_SETTLE)
    return took


async def _foreground(
    manager: Service, caller: RunningManager, name: str, took: dict[tuple[str, str], list[float]]
) -> None:
    gets, creates = took.setdefault(("GetParentJob", name), []), took.setdefault(("CreateParentJob", name), [])
    begun, cpu = time.monotonic(), cpu_seconds(manager)
    while time.monotonic() - begun < _SECONDS:
        parent = await timed(create(caller, ["mine"], ["vacuum"], allow_unknown_targets=True), creates)
        await asyncio.sleep(1 / _CALLS_PER_SECOND)
        await timed(caller.get(parent), gets)
        await asyncio.sleep(1 / _CALLS_PER_SECOND)
    took["cpu", name] = [(cpu_seconds(manager) - cpu) / (time.monotonic() - begun) * 100]


@asynccontextmanager
async def _parked_polls(caller: RunningManager) -> AsyncIterator[None]:
    """Keep polls hanging; each moment one is sent again, half of them after they were dropped."""
    workers = [await worker(caller, f"w{number}", [served("idle", ("vacuum",))]) for number in range(POLLS)]
    polls = [_poll(one) for one in workers]

    def again() -> None:
        number = random.randrange(POLLS)
        if random.random() < 0.5:
            polls[number].cancel()
        polls[number] = _poll(workers[number])

    async with _paced(POLLS_AGAIN_PER_SECOND, _at_once(again)):
        yield
    for poll in polls:
        poll.cancel()


def _poll(one: Worker) -> Any:
    return one.poll(wait=45, timeout=60)


@asynccontextmanager
async def _watchers(caller: RunningManager) -> AsyncIterator[None]:
    """Keep watches of one parent job open; each moment one is left and another begins."""
    parent = await create(caller, ["nobody's"], ["vacuum"], allow_unknown_targets=True)
    watches = []
    for _ in range(WATCHERS):
        watches.append(caller.watch(parent, timeout=300))
        await watches[-1].read()

    async def again() -> None:
        number = random.randrange(WATCHERS)
        watches[number].cancel()
        watches[number] = caller.watch(parent, timeout=300)
        await watches[number].read()

    async with _paced(WATCHERS_AGAIN_PER_SECOND, again):
        yield
    for watch in watches:
        watch.cancel()


@asynccontextmanager
async def _parents(caller: RunningManager) -> AsyncIterator[None]:
    """Create parent jobs of one child and end them; a second later they are pruned."""
    offer = served("any", ("vacuum",), max_parallel=1_000)
    one = await worker(caller, "any", [offer])

    async def again() -> None:
        await create(caller, ["any"], ["vacuum"])
        await one.complete(*await one.acquire(most=10))

    async with _paced(PARENTS_PER_SECOND, again):
        yield


@asynccontextmanager
async def _paced(per_second: int, act: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Do something so many times a second, never two at once."""

    async def pace() -> None:
        due = time.monotonic()
        while True:
            due = max(due + 1 / per_second, time.monotonic() - 1)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await act()

    task = asyncio.create_task(pace())
    try:
        yield
        if task.done():
            task.result()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
            await task


def _at_once(act: Callable[[], None]) -> Callable[[], Awaitable[None]]:
    async def acting() -> None:
        act()

    return acting


_LOADS: dict[str, Load] = {
    f"{POLLS} parked polls, {POLLS_AGAIN_PER_SECOND} a second sent again": _parked_polls,
    f"{WATCHERS} watchers, {WATCHERS_AGAIN_PER_SECOND} a second come and go": _watchers,
    f"{PARENTS_PER_SECOND} parent jobs a second made, ended, pruned": _parents,
}
