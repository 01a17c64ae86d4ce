from typing import Any

import pytest

from manager_service.domain.errors import ParentJobNotFoundError, WrongStateError
from manager_service.domain.events import BulkChange, BulkChangeKind, ParentJobChange
from manager_service.domain.leases import LeaseDirective
from manager_service.domain.model import SECOND, PlannedChild
from manager_service.domain.ports import JobStore
from manager_service.domain.states import (
    ChildJobState,
    FailureMode,
    FailurePolicy,
    Outcome,
    ParentJobState,
    WaitReason,
)
from tests.factories import FakeWorker, World, failure

FINAL = failure(retryable=False)


def many(number: int) -> list[PlannedChild]:
    return [PlannedChild(target=f"t{n}", operation="vacuum", lane=str(n)) for n in range(number)]


class TestCancelParentJob:
    async def test_few_pending_children_end_at_once(self, world: World) -> None:
        parent = await world.parent_job("a", "b")

        cancelled = await world.store.cancel_parent_job(parent.id, "wrong day")

        assert (cancelled.state, cancelled.counts.cancelled) == (ParentJobState.CANCELLED, 2)
        assert cancelled == await world.store.parent_job(parent.id)
        assert (await world.children(parent))[0].reason == "wrong day"
        await world.check(parent.id)

    async def test_many_pending_children_are_left_to_the_sweep(self, world: World) -> None:
        worker = await world.worker("t0")
        parent = await world.parent_job(children=many(1500))

        cancelled = await world.store.cancel_parent_job(parent.id, "")

        assert (cancelled.state, cancelled.counts.pending) == (ParentJobState.CANCELLING, 1500)
        assert world.hints[-1].ending == {parent.id}
        assert await worker.acquire() == ()
        assert await world.store.ending_parent_jobs() == (parent.id,)
        assert [await world.store.sweep(parent.id, limit=900) for _ in range(3)] == [True, False, False]
        assert await world.state(parent.id) is ParentJobState.CANCELLED
        assert await world.store.ending_parent_jobs() == ()
        assert [
            (e.change.kind, e.change.affected)
            for e in await world.all_events(parent.id)
            if isinstance(e.change, BulkChange)
        ] == [(BulkChangeKind.CREATED, 1500), (BulkChangeKind.ENDED, 900), (BulkChangeKind.ENDED, 600)]

    async def test_live_children_are_told_to_stop(self, world: World) -> None:
        worker, lease = await world.running_child_job(operations=("vacuum", "analyze"))

        cancelled = await world.store.cancel_parent_job(lease.parent_job_id, "")

        assert (cancelled.state, cancelled.counts.running) == (ParentJobState.CANCELLING, 1)
        assert world.hints[-1].sessions == {worker.session_id}
        assert (await worker.beat(lease)).leases == (LeaseDirective.CANCEL,)
        await worker.end(lease, Outcome.CANCELLED, reason="interrupted")
        child = (await world.store.child_job(lease.child_job_id))[0]
        assert (child.state, child.reason) == (ChildJobState.CANCELLED, "cancelled: interrupted")
        assert await world.state(lease.parent_job_id) is ParentJobState.CANCELLED
        await world.check(lease.parent_job_id)

    async def test_a_child_that_completed_before_stays_completed(self, world: World) -> None:
        worker, lease = await world.running_child_job()
        await world.store.cancel_parent_job(lease.parent_job_id, "")
        await worker.end(lease)

        assert (await world.store.child_job(lease.child_job_id))[0].state is ChildJobState.COMPLETED
        assert await world.state(lease.parent_job_id) is ParentJobState.COMPLETED

    async def test_a_lost_worker_does_not_hold_the_cancel_up(self, world: World) -> None:
        _, lease = await world.expired_lease()
        await world.store.cancel_parent_job(lease.parent_job_id, "")
        await world.store.expire_leases(limit=9)

        assert await world.state(lease.parent_job_id) is ParentJobState.CANCELLED

    async def test_it_is_idempotent(self, world: World) -> None:
        parent = await world.parent_job("a")
        first = await world.store.cancel_parent_job(parent.id, "one")

        assert await world.store.cancel_parent_job(parent.id, "two") == first

    async def test_a_repeat_after_every_child_completed_all_the_same_answers_the_job(self, world: World) -> None:
        worker, lease = await world.leased_child_job()
        child, _ = await world.store.child_job(lease.child_job_id)
        await world.store.cancel_parent_job(child.parent_job_id, "enough")
        await worker.end(lease)

        again = await world.store.cancel_parent_job(child.parent_job_id, "enough")

        assert again.state is ParentJobState.COMPLETED

    async def test_a_repeat_while_cancelling_changes_nothing(self, world: World) -> None:
        _, lease = await world.running_child_job()
        first = await world.store.cancel_parent_job(lease.parent_job_id, "one")

        assert await world.store.cancel_parent_job(lease.parent_job_id, "two") == first

    async def test_another_final_state_forbids_it(self, world: World) -> None:
        parent = await world.finished_parent_job()

        with pytest.raises(WrongStateError, match="is completed and cannot be cancelled"):
            await world.store.cancel_parent_job(parent.id, "")

    async def test_the_flag_is_told(self, world: World) -> None:
        parent = await world.parent_job("a")
        await world.store.cancel_parent_job(parent.id, "")

        changes = [e.change for e in await world.all_events(parent.id)]
        told = [(c.state, c.cancel_requested) for c in changes if isinstance(c, ParentJobChange)]
        assert told == [(ParentJobState.CANCELLING, True), (ParentJobState.CANCELLED, True)]

    async def test_only_a_cancelling_parent_job_is_swept(self, world: World) -> None:
        parent = await world.parent_job("a")

        assert await world.store.sweep(parent.id, limit=9) is False
        assert await world.store.sweep("none", limit=9) is False
        assert await world.state(parent.id) is ParentJobState.RUNNING


@pytest.mark.parametrize(
    "verb", ["cancel_parent_job", "pause_parent_job", "resume_parent_job", "retry_parent_job", "delete_parent_job"]
)
async def test_an_unknown_parent_job_is_not_found(store: JobStore, verb: str) -> None:
    arguments = ("none", "") if verb == "cancel_parent_job" else ("none",)
    with pytest.raises(ParentJobNotFoundError):
        await getattr(store, verb)(*arguments)


class TestPause:
    async def test_running_children_finish_and_no_other_starts(self, world: World) -> None:
        worker, lease = await world.running_child_job(operations=("vacuum", "analyze"))

        paused = await world.store.pause_parent_job(lease.parent_job_id)
        await worker.end(lease)

        assert paused.paused
        assert await worker.acquire() == ()
        assert (await world.children(paused))[1].wait_reason is WaitReason.PARENT_PAUSED
        world.ready_hints()
        assert not (await world.store.resume_parent_job(paused.id)).paused
        assert world.ready_hints() == {"orders": 1}
        assert len(await worker.acquire()) == 1
        await world.check(paused.id)

    async def test_it_is_idempotent(self, world: World) -> None:
        parent = await world.parent_job("a")
        first = await world.store.pause_parent_job(parent.id)
        assert await world.store.pause_parent_job(parent.id) == first

        resumed = await world.store.resume_parent_job(parent.id)
        assert await world.store.resume_parent_job(parent.id) == resumed

    async def test_many_heads_are_held_in_pieces(self, world: World) -> None:
        worker = await world.worker("t2999")
        parent = await world.parent_job(children=many(3000))
        await world.store.pause_parent_job(parent.id)
        assert await worker.acquire() == ()

        await world.store.resume_parent_job(parent.id)
        assert len(await worker.acquire()) == 1

    async def test_a_delayed_child_stays_delayed(self, world: World) -> None:
        worker, lease = await world.running_child_job()
        await worker.end(lease, Outcome.FAILED, retry_after=5 * SECOND)
        await world.store.pause_parent_job(lease.parent_job_id)
        await world.store.resume_parent_job(lease.parent_job_id)
        assert await worker.acquire() == ()

        world.clock.pass_time(5 * SECOND)
        await world.store.release_due()
        assert len(await worker.acquire()) == 1

    async def test_what_was_paused_does_not_catch_up(self, world: World) -> None:
        worker = await world.worker("a", "b", "c", "d", slots=1)
        paused = await world.parent_job("a", "b")
        await world.store.pause_parent_job(paused.id)
        other = await world.parent_job("c", "d", operations=("vacuum", "analyze", "reindex"))
        for _ in range(3):
            await worker.end((await worker.acquire())[0])
        await world.store.resume_parent_job(paused.id)

        order = []
        for _ in range(4):
            [lease] = await worker.acquire()
            order.append(lease.parent_job_id)
            await worker.end(lease)
        assert order.count(other.id) == 2

    async def test_successors_of_what_was_paused_do_not_catch_up_either(self, world: World) -> None:
        worker = await world.worker("a", "b", "c", "d", slots=1)
        operations = ("vacuum", "analyze", "reindex")
        paused = await world.parent_job("a", operations=operations)
        await world.store.pause_parent_job(paused.id)
        other = await world.parent_job("b", "c", "d", operations=operations)
        for _ in range(5):
            await worker.end((await worker.acquire())[0])
        await world.store.resume_parent_job(paused.id)

        order = []
        for _ in range(5):
            [lease] = await worker.acquire()
            order.append(lease.parent_job_id)
            await worker.end(lease)
        assert order.count(other.id) >= 2

    @pytest.mark.parametrize("verb", ["pause_parent_job", "resume_parent_job"])
    async def test_a_cancelling_or_final_parent_job_forbids_it(self, world: World, verb: str) -> None:
        finished = await world.finished_parent_job()
        _, lease = await world.running_child_job(await world.worker("orders", worker_name="bert"))
        await world.store.cancel_parent_job(lease.parent_job_id, "")

        for parent_id in (finished.id, lease.parent_job_id):
            with pytest.raises(WrongStateError):
                await getattr(world.store, verb)(parent_id)


class TestRetryParentJob:
    async def failed(self, world: World, **fields: Any) -> tuple[FakeWorker, str]:
        worker, lease = await world.running_child_job(operations=("vacuum", "analyze", "reindex"), **fields)
        await worker.end(lease, Outcome.FAILED, failure=FINAL)
        [lease] = await worker.acquire()
        await worker.end(lease)
        [lease] = await worker.acquire()
        await worker.end(lease, Outcome.FAILED, failure=FINAL)
        return worker, lease.parent_job_id

    async def test_failed_children_get_a_new_round(self, world: World) -> None:
        worker, parent_id = await self.failed(world)
        assert await world.state(parent_id) is ParentJobState.PARTIALLY_COMPLETED

        parent = await world.store.retry_parent_job(parent_id)

        children = await world.children(parent)
        assert (parent.state, parent.round, parent.end_time) == (ParentJobState.RUNNING, 2, None)
        assert [c.state.value for c in children] == ["pending", "completed", "pending"]
        assert [(c.failures, c.attempts) for c in children] == [(0, 1), (0, 1), (0, 1)]
        order = []
        while leases := await worker.acquire():
            order.append((leases[0].operation, leases[0].attempt))
            await worker.end(leases[0])
        assert order == [("vacuum", 2), ("reindex", 2)]
        assert await world.state(parent_id) is ParentJobState.COMPLETED
        await world.check(parent_id)

    async def test_it_is_told_as_one_event(self, world: World) -> None:
        _, parent_id = await self.failed(world)
        before = len(await world.all_events(parent_id))
        await world.store.retry_parent_job(parent_id)

        bulk, change = [e.change for e in (await world.all_events(parent_id))[before:]]
        assert isinstance(bulk, BulkChange)
        assert (bulk.kind, bulk.affected) == (BulkChangeKind.RETRIED, 2)
        assert isinstance(change, ParentJobChange)
        assert change.state is ParentJobState.RUNNING

    async def test_a_repeat_answers_the_job_as_it_stands(self, world: World) -> None:
        _, parent_id = await self.failed(world)
        first = await world.store.retry_parent_job(parent_id)

        assert await world.store.retry_parent_job(parent_id) == first

    async def test_a_tripped_policy_counts_anew(self, world: World) -> None:
        policy = FailurePolicy(mode=FailureMode.FAIL_FAST)
        worker, lease = await world.running_child_job(operations=("vacuum", "analyze"), failure_policy=policy)
        await worker.end(lease, Outcome.FAILED, failure=FINAL)
        await world.store.sweep(lease.parent_job_id, limit=9)
        assert await world.state(lease.parent_job_id) is ParentJobState.FAILED

        parent = await world.store.retry_parent_job(lease.parent_job_id)
        [lease] = await worker.acquire()
        await worker.end(lease)

        ended = await world.store.parent_job(parent.id)
        assert (ended.state, ended.counts.cancelled) == (ParentJobState.PARTIALLY_COMPLETED, 1)

    async def test_of_a_cancelled_job_only_the_failed_children_run_again(self, world: World) -> None:
        worker, lease = await world.running_child_job(operations=("vacuum", "analyze"))
        await worker.end(lease, Outcome.FAILED, failure=FINAL)
        await world.store.cancel_parent_job(lease.parent_job_id, "")
        assert await world.state(lease.parent_job_id) is ParentJobState.CANCELLED

        parent = await world.store.retry_parent_job(lease.parent_job_id)

        assert (parent.cancel_requested, parent.counts.cancelled, parent.counts.pending) == (False, 1, 1)

    async def test_a_deadline_that_passed_does_not_bind_the_new_round(self, world: World) -> None:
        await world.running_child_job(deadline=world.clock.wall() + SECOND)
        worker = await world.worker("users", worker_name="bert")
        parent = await world.parent_job("users", deadline=world.clock.wall() + SECOND)
        world.clock.pass_time(SECOND)
        await world.store.fail_overdue(limit=9)
        await world.store.retry_parent_job(parent.id)

        assert await world.store.fail_overdue(limit=9) == 0
        assert len(await worker.acquire()) == 1

    async def test_states_that_forbid_it(self, world: World) -> None:
        running = await world.parent_job("x")
        finished = await world.finished_parent_job()
        cancelled = await world.parent_job("y")
        await world.store.cancel_parent_job(cancelled.id, "")

        for parent in (running, finished, cancelled):
            with pytest.raises(WrongStateError):
                await world.store.retry_parent_job(parent.id)

    async def test_many_children_in_pieces(self, world: World) -> None:
        parent = await world.parent_job(children=many(3000), deadline=world.clock.wall() + SECOND)
        world.clock.pass_time(SECOND)
        assert await world.store.fail_overdue(limit=5000) == 3000

        retried = await world.store.retry_parent_job(parent.id)

        assert (retried.counts.pending, retried.counts.failed) == (3000, 0)
        assert len(await (await world.worker("t2999")).acquire()) == 1


class TestDeadline:
    async def test_pending_children_fail_and_live_ones_are_told_to_stop(self, world: World) -> None:
        worker, lease = await world.running_child_job(
            operations=("vacuum", "analyze"), deadline=world.clock.wall() + 5 * SECOND
        )
        assert await world.store.fail_overdue(limit=9) == 0
        world.clock.pass_time(5 * SECOND)

        assert await world.store.fail_overdue(limit=9) == 2

        assert world.hints[-1].sessions == {worker.session_id}
        assert (await worker.beat(lease)).leases == (LeaseDirective.CANCEL,)
        await worker.end(lease, Outcome.CANCELLED)
        children = await world.children(await world.store.parent_job(lease.parent_job_id))
        assert [c.state for c in children] == [ChildJobState.FAILED] * 2
        assert {c.failure.reason for c in children if c.failure} == {"DEADLINE_EXCEEDED"}
        assert await world.store.fail_overdue(limit=9) == 0
        await world.check(lease.parent_job_id)

    async def test_a_cancelled_parent_job_stays_cancelled(self, world: World) -> None:
        parent = await world.parent_job(children=many(1500), deadline=world.clock.wall() + SECOND)
        await world.store.cancel_parent_job(parent.id, "no more")
        world.clock.pass_time(SECOND)

        assert await world.store.fail_overdue(limit=9) == 0
        while await world.store.sweep(parent.id, limit=1000):
            pass
        assert await world.state(parent.id) is ParentJobState.CANCELLED

    async def test_it_does_a_bounded_piece(self, world: World) -> None:
        parent = await world.parent_job(children=many(5), deadline=world.clock.wall() + SECOND)
        world.clock.pass_time(SECOND)

        assert [await world.store.fail_overdue(limit=2) for _ in range(4)] == [2, 2, 1, 0]
        assert await world.state(parent.id) is ParentJobState.FAILED

    async def test_nothing_starts_past_the_deadline(self, world: World) -> None:
        worker = await world.worker("a")
        await world.parent_job("a", deadline=world.clock.wall() + SECOND)
        world.clock.pass_time(SECOND)

        assert await worker.acquire() == ()


class TestDelete:
    async def test_a_finished_parent_job_goes_with_all_that_belongs_to_it(self, world: World) -> None:
        worker, lease = await world.lost_lease(labels={"team": "a"}, request_id="r")
        await worker.end(lease)
        await world.store.cancel_parent_job(lease.parent_job_id, "")
        world.hints.clear()

        await world.store.delete_parent_job(lease.parent_job_id)

        with pytest.raises(ParentJobNotFoundError):
            await world.store.parent_job(lease.parent_job_id)
        with pytest.raises(ParentJobNotFoundError):
            await world.store.delete_parent_job(lease.parent_job_id)
        assert world.hints[-1].parents == {lease.parent_job_id}

    async def test_many_children_go_in_pieces(self, world: World) -> None:
        parent = await world.parent_job(children=many(4500))
        await world.store.cancel_parent_job(parent.id, "")
        while await world.store.sweep(parent.id, limit=2000):
            pass

        await world.store.delete_parent_job(parent.id)

        with pytest.raises(ParentJobNotFoundError):
            await world.store.events(parent.id, after=0, limit=1)

    async def test_an_unfinished_one_is_refused(self, world: World) -> None:
        parent = await world.parent_job("a")

        with pytest.raises(WrongStateError, match="is running and cannot be deleted"):
            await world.store.delete_parent_job(parent.id)


class TestRetention:
    async def test_old_parent_jobs_are_pruned_in_bounded_pieces(self, world: World) -> None:
        old = await world.parent_job(children=many(30))
        await world.store.cancel_parent_job(old.id, "")
        await world.live_on(60 * SECOND)
        young = await world.parent_job(children=[])

        pieces = []
        while removed := await world.store.prune(age=30 * SECOND, limit=10):
            pieces.append(removed)

        assert max(pieces) <= 10 + 3
        assert (await world.store.parent_job(young.id)).state is ParentJobState.COMPLETED
        with pytest.raises(ParentJobNotFoundError):
            await world.store.parent_job(old.id)

    async def test_a_half_pruned_parent_job_tells_that_events_are_gone(self, world: World) -> None:
        old = await world.parent_job(children=many(3))
        await world.store.cancel_parent_job(old.id, "")
        await world.live_on(60 * SECOND)

        await world.store.prune(age=SECOND, limit=2)

        page = await world.store.events(old.id, after=0, limit=9)
        assert page.trimmed
        assert [e.sequence for e in page.events] == list(range(3, page.last_sequence + 1))

    async def test_events_beyond_what_is_kept_are_trimmed(self, world: World) -> None:
        worker, lease = await world.running_child_job(operations=("vacuum", "analyze"))
        await worker.end(lease)
        last = (await world.store.parent_job(lease.parent_job_id)).sequence

        trimmed = [await world.store.trim_events(keep=2, limit=1) for _ in range(4)]

        assert trimmed == [1] * (last - 2) + [0] * (4 - last + 2)
        page = await world.store.events(lease.parent_job_id, after=0, limit=9)
        assert (page.trimmed, len(page.events)) == (True, 2)
        assert not (await world.store.events(lease.parent_job_id, after=last - 2, limit=9)).trimmed
        [lease] = await worker.acquire()
        await worker.end(lease)
        assert (await world.store.events(lease.parent_job_id, after=last, limit=9)).final
