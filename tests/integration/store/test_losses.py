"""Which workers are lost: found once each, by one of all managers, until they come back."""

from manager_service.domain.fleet import SessionState
from tests.factories import World
from tests.integration.store.managers import Managers, at_once


async def lost(world: World, *, limit: int = 99) -> list[str]:
    """Return the names of the workers that are found to be lost."""
    return [worker.worker_name for worker in (await world.store.note_losses(limit=limit)).workers]


async def test_a_loss_is_found_once(world: World) -> None:
    anna = await world.worker("a", "b", worker_name="anna")
    begun = world.clock.wall()
    await world.live_on(world.timing.lease_duration)
    assert await lost(world) == []
    await world.live_on(1)

    losses = await world.store.note_losses(limit=99)

    [worker] = losses.workers
    assert (worker.worker_name, worker.session_id, worker.state) == ("anna", anna.session_id, SessionState.LOST)
    assert worker.targets == ("a", "b")
    assert losses.time - worker.heartbeat_time == world.clock.wall() - begun
    assert await lost(world) == []


async def test_who_beats_in_time_is_not_lost(world: World) -> None:
    anna, _ = await world.worker("a", worker_name="anna"), await world.worker("b", worker_name="bert")
    await world.live_on(world.timing.lease_duration)
    await anna.beat()
    await world.live_on(1)

    assert await lost(world) == ["bert"]


async def test_who_said_goodbye_or_was_superseded_is_not_lost(world: World) -> None:
    gone = await world.worker("a", worker_name="anna")
    await world.worker("b", worker_name="bert")
    await world.store.deregister(gone.session_id)
    newer = await world.worker("b", worker_name="bert")
    await world.live_on(world.timing.lease_duration + 1)

    [found] = (await world.store.note_losses(limit=99)).workers

    assert found.session_id == newer.session_id


async def test_an_outage_of_all_managers_loses_nobody(world: World) -> None:
    await world.worker()
    world.clock.pass_time(10 * world.timing.lease_duration)

    assert await lost(world) == []


async def test_many_are_found_by_and_by(world: World) -> None:
    for number in range(3):
        await world.worker(f"t{number}", worker_name=f"w{number}")
    await world.live_on(world.timing.lease_duration + 1)

    assert [await lost(world, limit=2) for _ in range(3)] == [["w0", "w1"], ["w2"], []]


async def test_the_first_heartbeat_after_a_loss_tells_that_the_worker_is_back(world: World) -> None:
    anna = await world.worker(worker_name="anna")
    await world.live_on(world.timing.lease_duration + 1)
    late = anna.heartbeat()
    assert (await world.store.heartbeat(late)).back is None, "nobody told that it was lost"
    await world.live_on(world.timing.lease_duration + 1)
    assert await lost(world) == ["anna"]

    repeated, first, second = await world.store.heartbeat(late), await anna.beat(), await anna.beat()

    assert (repeated.back, first.back, second.back) == (None, "anna", None)
    await world.live_on(world.timing.lease_duration + 1)
    assert await lost(world) == ["anna"]


async def test_one_that_registers_again_can_be_lost_again(world: World) -> None:
    anna = await world.worker(worker_name="anna")
    for _ in range(2):
        await world.live_on(world.timing.lease_duration + 1)
        assert await lost(world) == ["anna"]
        await anna.register_again()
        assert (await anna.beat()).back is None


async def test_of_several_managers_one_finds_a_loss(managers: Managers) -> None:
    worlds = list(managers)
    names = [f"w{number}" for number in range(9)]
    for name in names:
        await worlds[0].worker(f"target of {name}", worker_name=name)
    await worlds[1].live_on(worlds[1].timing.lease_duration + 1)

    found = await at_once(*(lost(world) for world in worlds for _ in range(3)))

    assert sorted(name for some in found for name in some) == names
