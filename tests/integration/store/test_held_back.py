"""What a session is granted on targets that its worker holds back, and what is told to those who wait."""

from manager_service.domain.ports import JobStore
from manager_service.domain.states import WaitReason
from tests.factories import World, served_target
from tests.integration.store.conftest import Reopen

BUSY = "31 active sessions, at most 20"


async def reasons(world: World, parent_id: str) -> list[tuple[WaitReason | None, str]]:
    children = await world.children(await world.store.parent_job(parent_id))
    return [(child.wait_reason, child.wait_detail) for child in children]


class TestATargetThatIsHeldBack:
    async def test_is_granted_to_nobody_who_holds_it_back(self, world: World) -> None:
        anna = await world.worker("orders", "users")
        await world.parent_job("orders", "users")
        await anna.hold_back(orders=BUSY)

        assert [lease.target for lease in await anna.acquire()] == ["users"]
        assert await anna.acquire() == ()

    async def test_is_granted_to_another_worker_all_the_same(self, world: World) -> None:
        anna = await world.worker("orders")
        bert = await world.worker("orders", worker_name="bert")
        parent = await world.parent_job("orders")
        await anna.hold_back(orders=BUSY)

        assert await reasons(world, parent.id) == [(None, "")]
        assert await anna.acquire() == ()
        assert [lease.target for lease in await bert.acquire()] == ["orders"]

    async def test_is_passed_over_however_many_of_its_children_come_first(self, world: World) -> None:
        anna = await world.worker("orders", "users")
        await anna.hold_back(orders=BUSY)
        for _ in range(70):
            await world.parent_job("orders", priority=5)
        await world.parent_job("users")

        assert [lease.target for lease in await anna.acquire(3)] == ["users"]

    async def test_is_not_granted_with_a_report_either(self, world: World) -> None:
        anna, lease = await world.running_child_job(operations=("vacuum", "analyze"))
        await anna.hold_back(lease, orders=BUSY)

        answer = await world.store.report(anna.session_id, [], anna.poll())

        assert answer.leases == ()

    async def test_keeps_what_runs_there(self, world: World) -> None:
        anna, lease = await world.running_child_job()
        await anna.hold_back(lease, orders=BUSY)
        await world.live_on(world.timing.lease_duration - 1)

        assert (await anna.hold_back(lease, orders=BUSY)).leases[0].value == "continue"

    async def test_is_held_back_still_by_a_session_that_registered_again(self, world: World) -> None:
        anna = await world.worker("orders")
        await world.parent_job("orders")
        await anna.hold_back(orders=BUSY)

        await anna.register_again()

        assert await anna.acquire() == ()

    async def test_outlives_the_manager(self, store: JobStore, world: World, open_again: Reopen) -> None:
        anna = await world.worker("orders")
        parent = await world.parent_job("orders")
        await anna.hold_back(orders=BUSY)
        await store.close()

        world.store = anna.store = open_again()
        try:
            assert await anna.acquire() == ()
            assert await reasons(world, parent.id) == [(WaitReason.THROTTLED, BUSY)]
        finally:
            await world.store.close()


class TestLettingGo:
    async def test_wakes_a_poll_for_each_child_that_can_go(self, world: World) -> None:
        anna = await world.worker("orders", "users")
        await world.parent_job("orders", "users")
        await anna.hold_back(orders=BUSY, users=BUSY)
        world.ready_hints()

        await anna.hold_back(users=BUSY)

        assert world.ready_hints() == {"orders": 1}
        assert [lease.target for lease in await anna.acquire()] == ["orders"]

    async def test_needs_no_more_than_a_heartbeat_that_says_nothing_of_it(self, world: World) -> None:
        anna = await world.worker("orders")
        await world.parent_job("orders")
        await anna.hold_back(orders=BUSY)

        await anna.beat()

        assert len(await anna.acquire()) == 1

    async def test_is_not_told_by_an_older_heartbeat(self, world: World) -> None:
        anna = await world.worker("orders")
        await world.parent_job("orders")
        old = anna.heartbeat()
        await anna.hold_back(orders=BUSY)

        await world.store.heartbeat(old)

        assert await anna.acquire() == ()

    async def test_another_reason_wakes_nobody(self, world: World) -> None:
        anna = await world.worker("orders")
        parent = await world.parent_job("orders")
        await anna.hold_back(orders=BUSY)
        world.ready_hints()

        await anna.hold_back(orders="the pause file is there")

        assert world.ready_hints() == {}
        assert await reasons(world, parent.id) == [(WaitReason.THROTTLED, "the pause file is there")]


class TestTheReason:
    async def test_is_told_when_every_live_worker_holds_back(self, world: World) -> None:
        anna = await world.worker("orders")
        bert = await world.worker("orders", worker_name="bert")
        parent = await world.parent_job("orders")
        await anna.hold_back(orders=BUSY)
        await bert.hold_back(orders="the pause file is there")

        told = (WaitReason.THROTTLED, f"{BUSY}; the pause file is there")
        assert await reasons(world, parent.id) == [told]

    async def test_is_none_of_a_worker_that_is_gone(self, world: World) -> None:
        anna = await world.worker("orders")
        parent = await world.parent_job("orders")
        await anna.hold_back(orders=BUSY)

        await world.live_on(world.timing.lease_duration + 1)

        assert await reasons(world, parent.id) == [(WaitReason.NO_WORKER, "")]

    async def test_is_none_of_a_worker_that_does_not_offer_the_operation(self, world: World) -> None:
        anna = await world.worker(served_target(operations=("analyze",)))
        await world.worker("orders", worker_name="bert")
        parent = await world.parent_job("orders", operations=("vacuum",))
        await anna.hold_back(orders=BUSY)

        assert await reasons(world, parent.id) == [(None, "")]

    async def test_gives_way_to_one_that_keeps_it_from_those_who_would_run_it(self, world: World) -> None:
        anna = await world.worker("orders", slots=1)
        bert = await world.worker("orders", "users", worker_name="bert", slots=1)
        await world.parent_job("users")
        assert len(await bert.acquire()) == 1
        parent = await world.parent_job("orders")
        await anna.hold_back(orders=BUSY)

        assert await reasons(world, parent.id) == [(WaitReason.SLOTS_FULL, "")]

    async def test_comes_behind_what_keeps_the_target_busy(self, world: World) -> None:
        anna, lease = await world.running_child_job()
        parent = await world.parent_job("orders")
        await anna.hold_back(lease, orders=BUSY)

        assert await reasons(world, parent.id) == [(WaitReason.TARGET_BUSY, "vacuum on anna")]
