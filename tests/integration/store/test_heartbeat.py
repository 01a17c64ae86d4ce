import pytest

from manager_service.domain.errors import SessionUnknownError
from manager_service.domain.events import ChildJobChange
from manager_service.domain.fleet import SessionState, WorkerDirective
from manager_service.domain.leases import Heartbeat, HeldLease, LeaseDirective
from manager_service.domain.ports import JobStore
from manager_service.domain.states import ChildJobState, ParentJobState
from tests.factories import World


class TestHeartbeat:
    async def test_the_first_one_that_names_a_lease_makes_the_child_running(self, world: World) -> None:
        worker, lease = await world.leased_child_job()
        world.clock.pass_time(3)

        answer = await worker.beat(lease)

        child, [attempt] = await world.store.child_job(lease.child_job_id)
        assert answer.leases == (LeaseDirective.CONTINUE,)
        assert answer.accepted == ((lease.parent_job_id, lease.child_job_id, lease.lease_id),)
        assert (child.state, child.start_time) == (ChildJobState.RUNNING, world.clock.wall())
        assert attempt.start_time == world.clock.wall()
        await world.check(lease.parent_job_id)

    async def test_each_one_renews_the_lease(self, world: World) -> None:
        worker, lease = await world.running_child_job()
        for _ in range(10):
            await world.live_on(world.timing.lease_duration - 1)
            assert (await worker.beat(lease)).leases == (LeaseDirective.CONTINUE,)

        assert await world.store.expire_leases(limit=10) == 0

    async def test_an_older_one_changes_nothing_but_is_answered(self, world: World) -> None:
        worker, lease = await world.running_child_job()
        old = Heartbeat(session_id=worker.session_id, sequence=worker.beats, draining=True, leases=())
        held = HeldLease(lease_id=lease.lease_id, attempt=1)
        for _ in range(3):
            await world.store.heartbeat(old)

        again = Heartbeat(session_id=worker.session_id, sequence=1, draining=False, leases=(held,))
        answer = await world.store.heartbeat(again)

        assert (answer.leases, answer.directive) == ((LeaseDirective.CONTINUE,), WorkerDirective.NONE)

    async def test_a_lease_of_another_attempt_or_worker_is_lost(self, world: World) -> None:
        worker, lease = await world.running_child_job()
        other = await world.worker("users", worker_name="bert")

        assert (await other.beat(lease)).leases == (LeaseDirective.LOST,)
        wrong = Heartbeat(
            session_id=worker.session_id,
            sequence=99,
            draining=False,
            leases=(HeldLease(lease_id=lease.lease_id, attempt=2),),
        )
        assert (await world.store.heartbeat(wrong)).leases == (LeaseDirective.LOST,)

    async def test_an_unlisted_lease_is_taken_back_at_the_second_beat(self, world: World) -> None:
        worker, lease = await world.running_child_job()

        await worker.beat()
        assert (await world.store.child_job(lease.child_job_id))[0].state is ChildJobState.RUNNING
        await worker.beat()

        child, [attempt] = await world.store.child_job(lease.child_job_id)
        assert (child.state, child.failures, child.losses) == (ChildJobState.PENDING, 0, 0)
        assert (attempt.outcome, attempt.reason) == (None, "the worker no longer listed the lease")
        await world.check(lease.parent_job_id)

    async def test_a_lease_that_is_listed_again_is_kept(self, world: World) -> None:
        worker, lease = await world.running_child_job()
        for _ in range(3):
            await worker.beat()
            assert (await worker.beat(lease)).leases == (LeaseDirective.CONTINUE,)

    async def test_an_unaccepted_lease_is_taken_back_past_its_accept_time(self, world: World) -> None:
        worker, lease = await world.leased_child_job()
        await world.live_on(world.timing.accept_within)
        for _ in range(3):
            await worker.beat()
        assert (await world.store.child_job(lease.child_job_id))[0].state is ChildJobState.LEASED

        await world.live_on(1)
        await worker.beat()

        child = (await world.store.child_job(lease.child_job_id))[0]
        assert (child.state, child.losses, child.attempts) == (ChildJobState.PENDING, 0, 1)

    async def test_a_draining_worker_can_be_ready_again(self, world: World) -> None:
        worker = await world.worker("orders")
        await worker.beat(draining=True)
        assert (await world.store.workers(include_gone=False, limit=9))[0].state is SessionState.DRAINING

        await worker.beat()

        assert (await world.store.workers(include_gone=False, limit=9))[0].state is SessionState.READY

    async def test_a_cancel_reaches_the_lease(self, world: World) -> None:
        worker, lease = await world.running_child_job()
        await world.store.cancel_parent_job(lease.parent_job_id, "")

        assert (await worker.beat(lease)).leases == (LeaseDirective.CANCEL,)

    async def test_an_unknown_session_is_refused(self, store: JobStore) -> None:
        with pytest.raises(SessionUnknownError):
            await store.heartbeat(Heartbeat(session_id="none", sequence=1, draining=False))

    async def test_a_superseded_session_may_beat_and_is_told_to_end(self, world: World) -> None:
        worker, lease = await world.running_child_job()
        await world.worker("orders")

        answer = await worker.beat(lease)

        assert answer.directive is WorkerDirective.TERMINATE
        assert answer.leases == (LeaseDirective.CONTINUE,)

    async def test_leased_running_and_the_end_are_told_in_order(self, world: World) -> None:
        worker, lease = await world.running_child_job()
        await worker.end(lease)

        changes = [e.change for e in await world.all_events(lease.parent_job_id)]
        states = [c.state for c in changes if isinstance(c, ChildJobChange)]
        assert states == [ChildJobState.LEASED, ChildJobState.RUNNING, ChildJobState.COMPLETED]
        assert await world.state(lease.parent_job_id) is ParentJobState.COMPLETED
