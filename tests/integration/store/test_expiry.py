import pytest

from manager_service.domain.errors import SessionUnknownError
from manager_service.domain.leases import LeaseDirective, ReportStatus
from manager_service.domain.model import SECOND, RetryPolicy
from manager_service.domain.ports import JobStore
from manager_service.domain.states import ChildJobState, Outcome, ParentJobState
from tests.doubles import FakeClock
from tests.factories import World, plan
from tests.integration.store.conftest import Reopen

MINUTE = 60 * SECOND


class TestExpireLeases:
    async def test_a_lease_that_ran_out_is_taken_back_and_costs_a_loss(self, world: World) -> None:
        worker, lease = await world.expired_lease()

        assert await world.store.expire_leases(limit=10) == 1

        child, [attempt] = await world.store.child_job(lease.child_job_id)
        assert (child.state, child.losses, child.failures) == (ChildJobState.PENDING, 1, 0)
        assert (attempt.outcome, attempt.reason) == (None, "the worker was lost: its lease expired")
        assert (await worker.beat(lease)).leases == (LeaseDirective.LOST,)
        await world.check(lease.parent_job_id)

    async def test_a_lease_is_kept_until_its_expire_time(self, world: World) -> None:
        await world.running_child_job()
        await world.live_on(world.timing.lease_duration)

        assert await world.store.expire_leases(limit=10) == 0

    async def test_the_losses_budget_is_apart_and_ends(self, world: World) -> None:
        policy = RetryPolicy(max_losses=2, max_failures=1, initial_backoff=0)
        worker, lease = await world.lost_lease(retry_policy=policy)
        await worker.beat()
        [lease] = await worker.acquire()
        await worker.beat(lease)
        await world.live_on(world.timing.lease_duration + 1)
        await world.store.expire_leases(limit=10)

        child = (await world.store.child_job(lease.child_job_id))[0]
        assert (child.state, child.losses, child.failures) == (ChildJobState.FAILED, 2, 0)
        assert child.failure is not None
        assert child.failure.reason == "WORKER_LOST"
        assert await world.state(lease.parent_job_id) is ParentJobState.FAILED

    async def test_an_unaccepted_lease_of_a_silent_worker_goes_back_at_no_cost(self, world: World) -> None:
        _, lease = await world.leased_child_job()
        patience = world.timing.accept_within + 2 * world.timing.heartbeat_interval
        await world.live_on(patience)
        assert await world.store.expire_leases(limit=10) == 0

        await world.live_on(1)
        assert await world.store.expire_leases(limit=10) == 1

        child = (await world.store.child_job(lease.child_job_id))[0]
        assert (child.state, child.losses) == (ChildJobState.PENDING, 0)

    async def test_it_does_a_bounded_piece(self, world: World) -> None:
        worker = await world.worker("a", "b", "c")
        await world.parent_job("a", "b", "c")
        await worker.beat(*await worker.acquire())
        await world.live_on(world.timing.lease_duration + 1)

        assert [await world.store.expire_leases(limit=2) for _ in range(3)] == [2, 1, 0]

    async def test_the_keys_and_slots_of_a_lost_lease_are_free(self, world: World) -> None:
        worker, _ = await world.lost_lease(await world.worker("orders", slots=1))
        await world.parent_job("orders")

        assert len(await worker.acquire()) == 1

    async def test_the_next_thing_that_falls_due_is_known(self, world: World) -> None:
        assert await world.store.next_available() is None
        worker, lease = await world.running_child_job(deadline=world.clock.wall() + MINUTE)
        assert await world.store.next_available() == world.timing.lease_duration + 1
        await worker.end(lease, Outcome.FAILED, retry_after=7 * SECOND)
        assert await world.store.next_available() == 7 * SECOND + 1
        world.clock.pass_time(7 * SECOND)
        assert await world.store.next_available() == 1
        await world.store.release_due()
        assert await world.store.next_available() == 53 * SECOND + 1
        await worker.acquire()
        expected = world.timing.accept_within + 2 * world.timing.heartbeat_interval + 1
        assert await world.store.next_available() == expected

    async def test_what_falls_due_is_told(self, world: World) -> None:
        worker, lease = await world.running_child_job()
        assert not any(hint.due for hint in world.hints)

        await worker.end(lease, Outcome.FAILED, retry_after=SECOND)
        assert world.hints[-1].due

        await world.store.pause_parent_job(lease.parent_job_id)
        assert not world.hints[-1].due
        await world.store.resume_parent_job(lease.parent_job_id)
        assert world.hints[-1].due

        await world.store.create_parent_job(plan(deadline=world.clock.wall() + MINUTE))
        assert world.hints[-1].due

    async def test_a_due_child_wakes_a_waiter(self, world: World) -> None:
        worker, lease = await world.running_child_job()
        await worker.end(lease, Outcome.FAILED, retry_after=SECOND)
        world.ready_hints()
        assert await world.store.release_due() == 0

        world.clock.pass_time(SECOND)

        assert await world.store.release_due() == 1
        assert world.ready_hints() == {"orders": 1}


class TestDeregister:
    async def test_live_leases_go_back_at_no_cost(self, world: World) -> None:
        worker, lease = await world.running_child_job()

        await world.store.deregister(worker.session_id)

        child = (await world.store.child_job(lease.child_job_id))[0]
        assert (child.state, child.losses, child.reason) == (
            ChildJobState.PENDING,
            0,
            "the worker closed its session",
        )
        assert world.hints[-1].sessions == {worker.session_id}
        await world.check(lease.parent_job_id)

    async def test_a_closed_session_is_unknown_to_every_call(self, world: World) -> None:
        worker, lease = await world.running_child_job()
        await world.store.deregister(worker.session_id)

        for call in (worker.acquire, worker.beat, lambda: worker.end(lease)):
            with pytest.raises(SessionUnknownError):
                await call()

    async def test_it_is_idempotent(self, world: World) -> None:
        worker = await world.worker("orders")
        for _ in range(2):
            await world.store.deregister(worker.session_id)
        await world.store.deregister("none")


class TestAnOutageNeverExpiresALease:
    async def reopen(self, world: World, open_again: Reopen) -> None:
        await world.store.close()
        world.store = open_again()

    @pytest.mark.parametrize("down", [MINUTE, 600 * MINUTE])
    async def test_a_manager_that_was_down(self, world: World, open_again: Reopen, down: int) -> None:
        _, lease = await world.running_child_job()
        await self.reopen(world, open_again)
        await world.store.close()
        world.clock.reboot()
        world.clock.wall_time += down

        world.store = open_again()

        try:
            await world.live_on(world.timing.lease_duration)
            assert await world.store.expire_leases(limit=10) == 0
            assert (await world.store.child_job(lease.child_job_id))[0].state is ChildJobState.RUNNING
            await world.live_on(2 * world.timing.heartbeat_interval + 1)
            assert await world.store.expire_leases(limit=10) == 1
        finally:
            await world.store.close()

    @pytest.mark.parametrize(("beyond", "expired"), [(1, 0), (0, 1)])
    async def test_two_intervals_without_a_mark_are_the_limit(
        self, world: World, beyond: int, expired: int
    ) -> None:
        await world.running_child_job()
        silence = 2 * world.timing.heartbeat_interval
        await world.live_on(world.timing.lease_duration - silence + 1)
        await world.store.mark_alive()
        world.clock.pass_time(silence + beyond)

        assert await world.store.expire_leases(limit=10) == expired

    async def test_a_clock_that_went_back_while_it_was_down(self, world: World, open_again: Reopen) -> None:
        worker, lease = await world.running_child_job()
        await worker.end(lease, Outcome.FAILED, retry_after=MINUTE)
        await world.running_child_job(worker)
        await world.store.close()
        world.clock.step(-24 * 60 * MINUTE)

        world.store = open_again()

        try:
            await world.live_on(world.timing.lease_duration)
            assert await world.store.expire_leases(limit=10) == 0
            await world.live_on(2 * world.timing.heartbeat_interval + 1)
            assert await world.store.expire_leases(limit=10) == 1
            assert await world.store.release_due() == 1
        finally:
            await world.store.close()

    async def test_a_paused_child_does_not_wait_longer_for_a_clock_that_went_back(
        self, world: World, open_again: Reopen
    ) -> None:
        worker = await world.worker()
        parent = await world.parent_job()
        await world.store.pause_parent_job(parent.id)
        await world.store.close()
        world.clock.step(-24 * 60 * MINUTE)
        world.store = worker.store = open_again()

        try:
            await world.store.resume_parent_job(parent.id)

            assert len(await worker.acquire()) == 1
        finally:
            await world.store.close()

    async def test_a_clock_that_went_back_delays_what_a_child_is_said_to_wait_for_no_longer(
        self, world: World, open_again: Reopen
    ) -> None:
        worker, lease = await world.running_child_job()
        await worker.end(lease, Outcome.FAILED, retry_after=MINUTE)
        await world.store.close()
        world.clock.step(-24 * 60 * MINUTE)
        world.store = open_again()

        try:
            child, _ = await world.store.child_job(lease.child_job_id)
            assert child.available_time == world.clock.wall() + MINUTE
        finally:
            await world.store.close()

    async def test_a_manager_that_was_stopped(self, world: World) -> None:
        worker, lease = await world.running_child_job()
        world.clock.pass_time(60 * MINUTE)

        assert await world.store.expire_leases(limit=10) == 0
        assert (await worker.beat(lease)).leases == (LeaseDirective.CONTINUE,)
        assert await worker.end(lease) is ReportStatus.RECORDED

    async def test_a_call_that_is_refused_makes_up_for_it_as_well(self, world: World) -> None:
        worker = await world.worker("orders")
        world.clock.pass_time(60 * MINUTE)

        with pytest.raises(SessionUnknownError):
            await world.store.report("none", [], None)

        [known] = await world.store.workers(include_gone=False, limit=9)
        assert known.session_id == worker.session_id

    async def test_a_stopped_manager_does_not_take_unaccepted_leases_back(self, world: World) -> None:
        worker, lease = await world.leased_child_job()
        world.clock.pass_time(60 * MINUTE)

        await worker.beat()

        assert (await world.store.child_job(lease.child_job_id))[0].state is ChildJobState.LEASED

    async def test_a_stopped_manager_still_knows_its_workers(self, world: World) -> None:
        await world.worker("orders")
        world.clock.pass_time(60 * MINUTE)
        await world.store.mark_alive()

        assert len(await world.store.workers(include_gone=False, limit=9)) == 1

    async def test_a_step_of_the_wall_clock_changes_nothing(self, world: World, clock: FakeClock) -> None:
        _, lease = await world.running_child_job()
        for span in (600 * MINUTE, -1200 * MINUTE):
            clock.step(span)
            await world.store.mark_alive()
            assert await world.store.expire_leases(limit=10) == 0
        await world.live_on(world.timing.lease_duration + 1)

        assert await world.store.expire_leases(limit=10) == 1
        assert (await world.store.child_job(lease.child_job_id))[0].losses == 1

    async def test_repeated_crashes_cannot_suspend_for_ever(self, world: World, open_again: Reopen) -> None:
        _, lease = await world.running_child_job()
        interval = world.timing.heartbeat_interval
        for _ in range(7):
            await self.reopen(world, open_again)
            await world.live_on(interval)
        try:
            assert await world.store.expire_leases(limit=10) == 1
            assert (await world.store.child_job(lease.child_job_id))[0].losses == 1
        finally:
            await world.store.close()


class TestRestart:
    async def test_everything_goes_on_where_it_was(
        self, world: World, open_again: Reopen, store: JobStore
    ) -> None:
        worker, lease = await world.running_child_job(operations=("vacuum", "analyze"))
        paused = await world.parent_job("orders")
        await world.store.pause_parent_job(paused.id)
        before = [await store.parent_job(lease.parent_job_id), await store.child_job(lease.child_job_id)]
        await world.store.close()

        world.store = worker.store = open_again()

        try:
            after = [
                await world.store.parent_job(lease.parent_job_id),
                await world.store.child_job(lease.child_job_id),
            ]
            assert after == before
            assert (await worker.beat(lease)).leases == (LeaseDirective.CONTINUE,)
            assert await worker.end(lease) is ReportStatus.RECORDED
            assert [lease.operation for lease in await worker.acquire()] == ["analyze"]
            await world.check(lease.parent_job_id)
        finally:
            await world.store.close()
