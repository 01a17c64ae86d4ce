"""How long a claim takes when 100,000 children that may not start lie before the one that may."""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

from benchmarks.caller import OPTIONS, create, grant, report, retire, served, timed, worker
from benchmarks.figures import RUNS, Figure
from overhaul.v1 import fleet_service_pb2 as fleet
from overhaul.v1 import job_service_pb2 as jobs
from overhaul.v1 import lease_service_pb2 as leases
from tests.battery.remote import remote
from tests.contract.manager_harness import RunningManager
from tests.services import start_manager

_SAMPLES = 60
_FEW = [f"t{number:05d}" for number in range(100)]
_MOST = [f"t{number:05d}" for number in range(9_999)]
_ALL = [f"t{number:05d}" for number in range(50_000)]
_OPERATIONS = tuple(f"o{number}" for number in range(10))
_KEY = "the same storage"
_AHEAD = 9
_SHARED = leases.Lock(key=_KEY, exclusive=False)

Block = Callable[[RunningManager], Awaitable[Sequence[leases.ServedTarget]]]


def measure() -> list[Figure]:
    """Tell how many times longer a claim takes with blocked children than without, on two managers in turn."""
    figures = []
    for name, block in _KINDS.items():
        ratios, without = zip(*asyncio.run(_compare(block)), strict=True)
        figures.append(Figure(name=f"claim, 100,000 blocked: {name}", values=ratios, unit="x", aim="about 1"))
        figures.append(Figure(name="  the same claim with none blocked", values=without, unit="ms"))
    return figures


async def _compare(block: Block) -> list[tuple[float, float]]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        free, crowded = [
            await stack.enter_async_context(
                remote(stack.enter_context(start_manager(folder / name, "--synchronous", "normal", *OPTIONS)))
            )
            for name in ("free.db", "crowded.db")
        ]
        targets = await block(crowded)
        claims = [_Claims(caller, [*targets, served("mine", _OPERATIONS)]) for caller in (free, crowded)]
        for claim in claims:
            await claim.open()
        return [await _run(*claims) for _ in range(RUNS)]


async def _run(free: "_Claims", crowded: "_Claims") -> tuple[float, float]:
    free.took.clear()
    crowded.took.clear()
    for _ in range(_SAMPLES):
        await free.sample()
        await crowded.sample()
    return median(crowded.took) / median(free.took), median(free.took)


class _Claims:
    """A worker that claims the one child that may start."""

    def __init__(self, caller: RunningManager, targets: Sequence[leases.ServedTarget]) -> None:
        self._caller = caller
        self._targets = targets
        self.took: list[float] = []

    async def open(self) -> None:
        self._worker = await worker(self._caller, "claimer", self._targets)

    async def sample(self) -> None:
        await create(self._caller, ["mine"], _OPERATIONS[:1])
        granted = await timed(grant(self._worker, 1), self.took)
        await report(self._worker, granted)


async def _unserved(caller: RunningManager) -> Sequence[leases.ServedTarget]:
    await create(caller, _ALL, _OPERATIONS[:2], allow_unknown_targets=True, priority=_AHEAD)
    return [served(f"u{name}", _OPERATIONS) for name in _FEW]


async def _target_paused(caller: RunningManager) -> Sequence[leases.ServedTarget]:
    targets = [served(name, _OPERATIONS, _SHARED) for name in _FEW]
    await _crowd(caller, targets)
    for name in _FEW:
        await caller.fleet.PauseTarget(fleet.PauseTargetRequest(target=name))
    return targets


async def _target_busy(caller: RunningManager) -> Sequence[leases.ServedTarget]:
    targets = [served(name, _OPERATIONS, _SHARED) for name in _FEW]
    await _hold(caller, targets)
    await _crowd(caller, targets)
    return targets


async def _target_busy_many_served(caller: RunningManager) -> Sequence[leases.ServedTarget]:
    busy = await _target_busy(caller)
    return [*busy, *(served(name, _OPERATIONS) for name in _MOST[len(busy) :])]


async def _key_held(caller: RunningManager) -> Sequence[leases.ServedTarget]:
    targets = [served(name, _OPERATIONS, _SHARED, max_parallel=1_000) for name in _FEW]
    await _hold(caller, [served("keeper", _OPERATIONS, leases.Lock(key=_KEY, exclusive=True))])
    await _crowd(caller, targets)
    return targets


async def _parent_paused(caller: RunningManager) -> Sequence[leases.ServedTarget]:
    targets = [served(name, _OPERATIONS) for name in _MOST]
    parent = await create(caller, _ALL, _OPERATIONS[:2], allow_unknown_targets=True, priority=_AHEAD)
    await caller.jobs.PauseParentJob(jobs.PauseParentJobRequest(parent_job_id=parent))
    return targets


async def _parent_full(caller: RunningManager) -> Sequence[leases.ServedTarget]:
    await _at_limit(caller)
    return [served(name, _OPERATIONS) for name in _FEW]


async def _parent_full_all_served(caller: RunningManager) -> Sequence[leases.ServedTarget]:
    await _at_limit(caller)
    return [served(name, _OPERATIONS) for name in _MOST]


async def _at_limit(caller: RunningManager) -> None:
    """Bring a parent job with max_parallel 1 to its limit."""
    await create(caller, _ALL, _OPERATIONS[:2], allow_unknown_targets=True, priority=_AHEAD, max_parallel=1)
    holder = await worker(caller, "holder", [served(name, _OPERATIONS) for name in _FEW])
    await grant(holder, 1)


async def _hold(caller: RunningManager, targets: Sequence[leases.ServedTarget]) -> None:
    """Keep one operation live on each target."""
    await create(caller, [target.name for target in targets], _OPERATIONS[:1], allow_unknown_targets=True)
    await grant(await worker(caller, "holder", targets, slots=len(targets)), len(targets))


async def _crowd(caller: RunningManager, targets: Sequence[leases.ServedTarget]) -> None:
    """Queue 100,000 children that do not wait for one another: 100 parent jobs, 100 targets, 10 operations."""
    known = await worker(caller, "known", targets)
    names = [target.name for target in targets]
    for _ in range(100):
        await create(caller, names, _OPERATIONS, priority=_AHEAD)
    await retire(known)


_KINDS = {
    "targets that nobody serves": _unserved,
    "targets paused": _target_paused,
    "targets busy": _target_busy,
    "targets busy, 9,999 targets served": _target_busy_many_served,
    "their key held": _key_held,
    "parent job paused": _parent_paused,
    "parent job at its limit, 100 of its targets served": _parent_full,
    "parent job at its limit, 9,999 of its targets served": _parent_full_all_served,
}
