"""How far running operations are, as the store keeps it with their leases."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from manager_service.domain.leases import LeaseDirective
from manager_service.domain.model import ChildJob, Progress, RunningProgress
from manager_service.domain.ports import ChildJobFilter
from manager_service.domain.states import ChildJobState, Outcome
from manager_service.store.unit_of_work import UnitOfWork
from tests.factories import World

HALF = Progress(phase="copy", done=1, total=2, unit="pages")


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return which statements transactions run from now on, by the way they run them."""
    ran: list[str] = []
    begin = UnitOfWork.__init__

    def counted(way: str, run: Callable[..., Any]) -> Callable[..., Any]:
        def count_and_run(*args: Any, **kwargs: Any) -> Any:
            ran.append(way)
            return run(*args, **kwargs)

        return count_and_run

    def begin_counted(tx: Any, *args: Any, **kwargs: Any) -> None:
        begin(tx, *args, **kwargs)
        for way in ("rows", "run", "run_many", "post", "post_many"):
            setattr(tx, way, counted(way, getattr(tx, way)))

    monkeypatch.setattr(UnitOfWork, "__init__", begin_counted)
    return ran


async def test_it_costs_no_statement(world: World, statements: list[str]) -> None:
    worker, lease = await world.running_child_job()
    statements.clear()
    await worker.beat(lease)
    without = len(statements)
    statements.clear()

    await worker.tell(lease, HALF)

    assert len(statements) == without > 0


async def child(world: World, child_job_id: str) -> ChildJob:
    return (await world.store.child_job(child_job_id))[0]


async def test_it_is_read_with_the_child(world: World) -> None:
    worker, lease = await world.running_child_job()
    assert (await child(world, lease.child_job_id)).progress is None

    await worker.tell(lease, HALF)

    [listed] = await world.store.child_jobs(lease.parent_job_id, ChildJobFilter(), limit=9)
    assert listed.progress == (await child(world, lease.child_job_id)).progress == HALF


async def test_it_is_read_for_many_parent_jobs_at_once(world: World) -> None:
    worker = await world.worker("a", "b", "c", "d")
    for target in ("a", "b", "c", "d"):
        await world.parent_job(target)
    leases = {lease.target: lease for lease in await worker.acquire()}
    told = {leases[target].lease_id: replace(HALF, phase=target) for target in ("a", "b", "d")}
    await world.store.heartbeat(worker.heartbeat(*leases.values(), progress=told))

    found = await world.store.progress([leases[target].parent_job_id for target in ("a", "b", "c")])

    assert sorted(found, key=lambda one: one.progress.phase) == [
        RunningProgress(
            parent_job_id=leases[target].parent_job_id,
            child_job_id=leases[target].child_job_id,
            attempt=1,
            progress=replace(HALF, phase=target),
        )
        for target in ("a", "b")
    ]
    assert await world.store.progress([]) == ()


async def test_the_first_heartbeat_that_names_a_lease_may_tell_it(world: World) -> None:
    worker, lease = await world.leased_child_job()

    await worker.tell(lease, HALF)

    assert (await child(world, lease.child_job_id)).progress == HALF
    await world.check(lease.parent_job_id)


async def test_what_is_not_told_anew_stands(world: World) -> None:
    worker = await world.worker("a", "b")
    await world.parent_job("a", "b")
    one, other = await worker.acquire()
    await worker.tell(one, HALF, other)

    await worker.beat(one, other)
    await worker.tell(other, Progress(phase="sort"), one)

    found = await world.store.progress([one.parent_job_id])
    assert {told.child_job_id: told.progress for told in found} == {
        one.child_job_id: HALF,
        other.child_job_id: Progress(phase="sort"),
    }


async def test_a_heartbeat_that_tells_it_renews_every_lease(world: World) -> None:
    worker = await world.worker("a", "b")
    await world.parent_job("a", "b")
    one, other = await worker.acquire()
    await worker.beat(one, other)
    await worker.beat(one)  # the other one was not listed once
    await world.live_on(world.timing.lease_duration - 1)

    await worker.tell(one, HALF, other)
    await worker.beat(one)  # nor now, which is the first time again

    await world.live_on(world.timing.lease_duration - 1)
    assert await world.store.expire_leases(limit=9) == 0
    assert (await child(world, other.child_job_id)).state is ChildJobState.RUNNING


async def test_a_heartbeat_that_tells_it_earns_a_grace_after_the_next_outage(world: World) -> None:
    worker, lease = await world.running_child_job()
    for _ in range(2):
        world.clock.pass_time(world.timing.lease_duration)
        await worker.tell(lease, HALF)
    world.clock.pass_time(world.timing.lease_duration)
    await world.live_on(world.timing.lease_duration + 2 * world.timing.heartbeat_interval)

    assert await world.store.expire_leases(limit=9) == 0


async def test_an_older_heartbeat_sets_none_back(world: World) -> None:
    worker, lease = await world.running_child_job()
    late = worker.heartbeat(lease, progress={lease.lease_id: replace(HALF, done=0)})
    await worker.tell(lease, HALF)

    await world.store.heartbeat(late)

    assert (await child(world, lease.child_job_id)).progress == HALF


async def test_it_goes_with_its_lease(world: World) -> None:
    worker, lease = await world.running_child_job()
    await worker.tell(lease, HALF)
    await worker.end(lease, Outcome.RELEASED)
    assert (await child(world, lease.child_job_id)).progress is None

    await world.live_on(world.timing.lease_duration)
    await world.store.release_due()
    [again] = await worker.acquire()
    late = await worker.tell(lease, HALF)
    await worker.beat(again)

    assert again.attempt == 2
    assert late.leases == (LeaseDirective.LOST,)
    assert (await child(world, lease.child_job_id)).progress is None
    assert await world.store.progress([lease.parent_job_id]) == ()


async def test_an_attempt_that_a_forged_heartbeat_names_gets_none(world: World) -> None:
    worker, lease = await world.running_child_job()

    await worker.tell(replace(lease, attempt=2), HALF)

    assert (await child(world, lease.child_job_id)).progress is None


async def test_any_text_comes_back(world: World) -> None:
    worker, lease = await world.running_child_job()
    odd = Progress(phase='a"b\\c%$1 \u00e4\U0001f600\n', done=2**62, total=None, unit="")

    await worker.tell(lease, odd)
    assert (await child(world, lease.child_job_id)).progress == odd

    await worker.tell(lease, Progress(phase="nul \0 end"))
    told = (await child(world, lease.child_job_id)).progress
    assert told is not None
    assert told.phase in ("nul \0 end", "nul \ufffd end")
