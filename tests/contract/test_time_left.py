"""How long a running child still takes, as clients are told it."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from manager_service.app.system import SystemClock
from manager_service.domain.durations import Completion
from manager_service.domain.model import SECOND
from overhaul.v1 import job_pb2, lease_service_pb2
from tests.contract.manager_harness import RunningManager, Worker, result, running, served, settings_on


class LeapingClock(SystemClock):
    """The clocks of this machine, and the time that was let pass."""

    leapt = 0

    def wall(self) -> int:
        return super().wall() + self.leapt

    def monotonic(self) -> int:
        return super().monotonic() + self.leapt

    def leap(self, seconds: int) -> None:
        self.leapt += seconds * SECOND


@pytest.fixture
def clock() -> LeapingClock:
    return LeapingClock()


@pytest.fixture
async def manager(tmp_path: Path, clock: LeapingClock) -> AsyncIterator[RunningManager]:
    async with running(settings_on(tmp_path), by=clock) as running_manager:
        yield running_manager


def scanned(done: int, **fields: Any) -> job_pb2.Progress:
    return job_pb2.Progress(phase="scan", done=done, total=100, unit="pages", **fields)


async def begun(manager: RunningManager) -> tuple[Worker, job_pb2.ParentJob, lease_service_pb2.Lease]:
    """Return a worker with a child that runs."""
    worker = await manager.worker()
    parent = await manager.create(operations=("vacuum",))
    [lease] = await worker.acquire()
    await worker.beat(lease)
    return worker, parent, lease


def seconds(progress: job_pb2.Progress) -> float:
    assert progress.HasField("remaining")
    return progress.remaining.ToTimedelta().total_seconds()


async def test_whoever_follows_or_reads_is_told_it_from_how_fast_the_phase_goes(
    manager: RunningManager, clock: LeapingClock
) -> None:
    worker, parent, lease = await begun(manager)
    call = manager.watch(parent.id)
    await call.read()

    await worker.beat(lease, progress=scanned(20))
    first = (await call.read()).progress
    clock.leap(10)
    await worker.beat(lease, progress=scanned(40))
    second = (await call.read()).progress
    call.cancel()

    [listed] = await manager.children(parent.id)
    read = (await manager.child(lease.child_job_id)).child_job
    assert not first.progress.HasField("remaining")
    assert (second.child_job_id, second.HasField("object")) == (lease.child_job_id, False)
    for told in (second.progress, listed.progress, read.progress):
        assert (told.phase, told.done, told.total) == ("scan", 40, 100)
        assert seconds(told) == pytest.approx(30, abs=2)


async def test_without_a_speed_it_is_what_is_left_of_the_learned_duration(
    manager: RunningManager, clock: LeapingClock
) -> None:
    worker, _, lease = await begun(manager)
    await worker.complete(lease)
    await manager.store.learn([Completion(child_job_id=lease.child_job_id, span=90 * SECOND)])
    again = await manager.create(operations=("vacuum",))
    [lease] = await worker.acquire()
    call = manager.watch(again.id)
    await call.read()

    clock.leap(30)
    await worker.beat(lease, progress=job_pb2.Progress(phase="truncate"))
    updates = [await call.read() for _ in range(2)]
    call.cancel()
    [child] = await manager.children(again.id)
    clock.leap(120)
    [late] = await manager.children(again.id)

    [told] = [update.progress.progress for update in updates if update.HasField("progress")]
    assert seconds(told) == pytest.approx(60, abs=2)
    assert seconds(child.progress) == pytest.approx(60, abs=2)
    assert late.progress.phase == "truncate"
    assert not late.progress.HasField("remaining")


async def test_what_a_worker_says_of_it_is_not_read(manager: RunningManager) -> None:
    worker, parent, lease = await begun(manager)

    await worker.beat(lease, progress=scanned(20, remaining=Duration(seconds=7)))

    [child] = await manager.children(parent.id)
    assert child.progress.done == 20
    assert not child.progress.HasField("remaining")


async def test_of_a_child_that_ended_or_tells_no_progress_nothing_is_told(manager: RunningManager) -> None:
    worker, parent, lease = await begun(manager)
    [silent] = await manager.children(parent.id)
    await worker.beat(lease, progress=scanned(20))
    await worker.complete(lease)

    [ended] = await manager.children(parent.id)
    assert not silent.HasField("progress")
    assert not ended.HasField("progress")


async def test_the_object_of_a_progress_is_told(manager: RunningManager) -> None:
    offered = [lease_service_pb2.OfferedOperation(name=name) for name in ("inspect", "vacuum")]
    for one in offered:
        one.locks.add(key="db", exclusive=one.name != "inspect")
    worker = await manager.worker(targets=[served("app", operations=offered)])
    parent = await manager.create(scope=job_pb2.SCOPE_TABLE, operations=("vacuum",))
    [lease] = await worker.acquire()
    found = lease_service_pb2.InspectionResult(
        operations=["vacuum"], objects=[lease_service_pb2.InspectedObject(object="users", operations=[0])]
    )
    answer = await worker.report(result(lease, inspection=found), want=1)
    [lease] = answer.leases
    await worker.beat(lease)
    call = manager.watch(parent.id)
    await call.read()

    await worker.beat(lease, progress=scanned(20))
    update = (await call.read()).progress
    call.cancel()

    assert (update.target, update.object) == ("app", "users")
