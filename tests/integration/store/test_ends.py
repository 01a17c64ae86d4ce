"""Who is told of the end of a parent job, and how it is told."""

from manager_service.domain.model import ParentJob
from manager_service.domain.states import Counts, Outcome, ParentJobState
from tests.factories import World, failure
from tests.integration.store.managers import Managers, at_once


def ends(world: World) -> list[ParentJob]:
    """Return the parent jobs whose end a manager was told of."""
    return [parent_job for hints in world.hints for parent_job in hints.ended]


async def test_the_end_is_told_once_with_the_job_as_it_stood(world: World) -> None:
    worker = await world.worker("a", "b")
    parent = await world.parent_job("a", "b", name="nightly")
    one, other = await worker.acquire()
    await worker.end(one)
    assert ends(world) == []

    world.clock.pass_time(5)
    await worker.end(other, Outcome.FAILED, failure=failure(retryable=False))

    [ended] = ends(world)
    stands = await world.store.parent_job(parent.id)
    assert (ended.id, ended.spec.name, ended.state) == (parent.id, "nightly", ParentJobState.PARTIALLY_COMPLETED)
    assert ended.counts == stands.counts == Counts(completed=1, failed=1)
    assert (ended.start_time, ended.end_time) == (stands.start_time, stands.end_time)


async def test_a_parent_job_without_children_ends_when_it_is_made(world: World) -> None:
    parent = await world.parent_job(children=())

    assert [(one.id, one.state) for one in ends(world)] == [(parent.id, ParentJobState.COMPLETED)]


async def test_one_that_is_cancelled_ends_with_its_last_child(world: World) -> None:
    _, lease = await world.running_child_job()
    pending = await world.parent_job("else")

    for parent_job_id in (lease.parent_job_id, pending.id):
        await world.store.cancel_parent_job(parent_job_id, "")
        await world.store.sweep(parent_job_id, limit=9)

    assert [(one.id, one.state) for one in ends(world)] == [(pending.id, ParentJobState.CANCELLED)]


async def test_each_round_has_an_end(world: World) -> None:
    worker = await world.worker()
    parent = await world.finished_parent_job(Outcome.FAILED, worker=worker)
    await world.store.retry_parent_job(parent.id)
    [lease] = await worker.acquire()
    await worker.end(lease)

    assert [(one.round, one.state) for one in ends(world)] == [
        (1, ParentJobState.FAILED),
        (2, ParentJobState.COMPLETED),
    ]


async def test_of_several_managers_only_the_one_that_ended_it_is_told(managers: Managers) -> None:
    worlds = list(managers)
    targets = [f"t{number}" for number in range(len(worlds))]
    workers = [
        await world.worker(target, worker_name=target) for world, target in zip(worlds, targets, strict=True)
    ]
    parents = [await worlds[0].parent_job(*targets) for _ in range(8)]

    for _ in parents:
        leases = [(await worker.acquire(1))[0] for worker in workers]
        await at_once(*(worker.end(lease) for worker, lease in zip(workers, leases, strict=True)))

    told = [parent_job for world in worlds for parent_job in ends(world)]
    assert sorted(one.id for one in told) == sorted(parent.id for parent in parents)
    assert {one.counts for one in told} == {Counts(completed=3)}
    await managers.check()
