import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from manager_service.domain.errors import SessionSupersededError, SessionUnknownError
from manager_service.domain.fleet import Lock
from manager_service.domain.leases import LeaseDirective, Poll
from manager_service.domain.model import SECOND, PlannedChild
from manager_service.domain.ports import JobStore
from manager_service.domain.states import ChildJobState, FailureMode, FailurePolicy, Outcome
from manager_service.store import acquire as acquiring
from manager_service.store.acquire import Polls
from tests.factories import World, failure, operation, plan, report_of, served_target


class TestAcquire:
    async def test_a_grant_makes_the_child_leased(self, world: World) -> None:
        worker = await world.worker("orders")
        parent = await world.parent_job("orders", timeout=7)

        [lease] = await worker.acquire()

        child, [attempt] = await world.store.child_job(lease.child_job_id)
        assert (lease.target, lease.operation, lease.attempt, lease.timeout) == ("orders", "vacuum", 1, 7)
        assert (child.state, child.worker_name, child.attempts) == (ChildJobState.LEASED, "anna", 1)
        assert (attempt.lease_id, attempt.start_time, attempt.end_time) == (lease.lease_id, None, None)
        assert (await world.store.parent_job(parent.id)).start_time == world.clock.wall()
        await world.check(parent.id)

    async def test_options_and_object_come_with_the_lease(self, world: World) -> None:
        worker = await world.worker("orders")
        child = PlannedChild(target="orders", operation="vacuum", options={"into": "x"}, object="t", lane="a")
        await world.parent_job(children=[child])

        [lease] = await worker.acquire()

        assert (lease.options, lease.object) == ({"into": "x"}, "t")

    async def test_an_equal_poll_answers_the_same_leases(self, world: World) -> None:
        worker = await world.worker("a", "b")
        await world.parent_job("a", "b")
        granted = await world.store.acquire(worker.session_id, Poll(sequence=1, max_leases=1))

        again = await world.store.acquire(worker.session_id, Poll(sequence=1, max_leases=2))

        assert again == granted
        assert len(granted) == 1

    async def test_an_equal_poll_leaves_out_leases_that_ended(self, world: World) -> None:
        worker, lease = await world.leased_child_job()
        await worker.end(lease)

        assert await world.store.acquire(worker.session_id, Poll(sequence=1, max_leases=1)) == ()

    async def test_a_lower_poll_gets_nothing(self, world: World) -> None:
        worker = await world.worker("a", "b")
        await world.parent_job("a", "b")
        await world.store.acquire(worker.session_id, Poll(sequence=5, max_leases=1))

        assert await world.store.acquire(worker.session_id, Poll(sequence=4, max_leases=1)) == ()

    async def test_a_poll_below_an_empty_one_gets_nothing(self, world: World) -> None:
        worker = await world.worker("a")
        assert await world.store.acquire(worker.session_id, Poll(sequence=5, max_leases=1)) == ()
        await world.parent_job("a")

        assert await world.store.acquire(worker.session_id, Poll(sequence=4, max_leases=1)) == ()
        assert len(await world.store.acquire(worker.session_id, Poll(sequence=5, max_leases=1))) == 1

    async def test_live_leases_never_exceed_slots(self, world: World) -> None:
        worker = await world.worker("a", "b", "c", slots=2)
        await world.parent_job("a", "b", "c")

        first, second = await worker.acquire(), await worker.acquire()

        assert (len(first), second) == (2, ())

    async def test_an_unserved_target_is_passed_over(self, world: World) -> None:
        worker = await world.worker("b")
        await world.parent_job("a", "b")

        assert [lease.target for lease in await worker.acquire()] == ["b"]

    async def test_an_operation_that_is_not_offered_is_passed_over(self, world: World) -> None:
        worker = await world.worker(served_target("a", operations=("analyze",)), "b")
        await world.parent_job("a", "b")

        assert [lease.target for lease in await worker.acquire()] == ["b"]

    async def test_an_unknown_session_is_refused(self, store: JobStore) -> None:
        with pytest.raises(SessionUnknownError):
            await store.acquire("none", Poll(sequence=1, max_leases=1))

    async def test_a_superseded_session_is_refused(self, world: World) -> None:
        older = await world.worker("a")
        await world.worker("a")

        with pytest.raises(SessionSupersededError):
            await older.acquire()

    async def test_a_draining_worker_is_granted_nothing(self, world: World) -> None:
        worker = await world.worker("a")
        await worker.beat(draining=True)
        await world.parent_job("a")

        assert await worker.acquire() == ()


class TestNeverTwoConflictingLeases:
    async def test_at_most_one_live_lease_per_child(self, world: World) -> None:
        anna, bert = await world.worker("a"), await world.worker("a", worker_name="bert")
        await world.parent_job("a")

        assert [len(await anna.acquire()), len(await bert.acquire())] == [1, 0]

    async def test_two_names_of_one_file_never_run_at_once(self, world: World) -> None:
        lock = Lock(key="file", exclusive=True)
        worker = await world.worker(served_target("a", locks=[lock]), served_target("b", locks=[lock]))
        await world.parent_job("a", "b")

        [first] = await worker.acquire()
        assert await worker.acquire() == ()
        await worker.end(first)
        [second] = await worker.acquire()

        assert {first.target, second.target} == {"a", "b"}

    async def test_shared_keys_run_together_but_exclude_an_exclusive_one(self, world: World) -> None:
        shared, exclusive = Lock(key="k", exclusive=False), Lock(key="k", exclusive=True)
        target = served_target("a", operations=(), max_parallel=5)
        target = type(target)(
            **{
                **{name: getattr(target, name) for name in target.__slots__},
                "operations": (operation("analyze", shared), operation("vacuum", exclusive)),
            }
        )
        worker = await world.worker(target)
        kinds = ("analyze", "vacuum", "analyze")
        children = [PlannedChild(target="a", operation=o, lane=str(n)) for n, o in enumerate(kinds)]
        await world.parent_job(children=children)

        leases = await worker.acquire()
        assert [lease.operation for lease in leases] == ["analyze", "analyze"]
        await worker.end(leases[0])
        assert await worker.acquire() == ()
        await worker.end(leases[1])
        assert [lease.operation for lease in await worker.acquire()] == ["vacuum"]

    async def test_a_key_given_both_ways_counts_as_exclusive(self, world: World) -> None:
        locks = [Lock(key="k", exclusive=True), Lock(key="k", exclusive=False)]
        worker = await world.worker(served_target("a", locks=locks, max_parallel=2))
        children = [PlannedChild(target="a", operation="vacuum", lane=str(n)) for n in range(2)]
        await world.parent_job(children=children)

        assert len(await worker.acquire()) == 1

    @pytest.mark.parametrize("limit", [1, 2])
    async def test_never_more_than_max_parallel_of_a_target(self, world: World, limit: int) -> None:
        worker = await world.worker(served_target("a", locks=[], max_parallel=limit))
        children = [PlannedChild(target="a", operation="vacuum", lane=str(n)) for n in range(3)]
        await world.parent_job(children=children)

        assert [len(await worker.acquire()), len(await worker.acquire())] == [limit, 0]

    async def test_behind_a_parent_job_at_its_limit_the_others_keep_their_order(self, world: World) -> None:
        foreign, names = [f"x{number}" for number in range(20)], [f"t{number}" for number in range(20)]
        worker = await world.worker(*names)
        await world.parent_job(*names, priority=9, max_parallel=1)
        await worker.acquire(1)
        middle = await world.parent_job(*foreign, "t7", priority=5)
        last = await world.parent_job("t8", "t9", priority=1)

        granted = [lease for _ in range(4) for lease in await worker.acquire(1)]

        assert [(lease.parent_job_id, lease.target) for lease in granted] == [
            (middle.id, "t7"),
            (last.id, "t8"),
            (last.id, "t9"),
        ]

    async def test_beside_many_parent_jobs_one_at_its_limit_is_passed_over(self, world: World) -> None:
        worker = await world.worker("a", "b", "c", "d")
        await world.parent_job("a", "b", "c", priority=9, max_parallel=1)
        await worker.acquire(1)
        for number in range(80):
            await world.parent_job(f"x{number}", priority=5)
        await world.parent_job("d")

        assert [lease.target for lease in await worker.acquire(1)] == ["d"]

    async def test_never_more_than_max_parallel_of_a_parent_job(self, world: World) -> None:
        worker = await world.worker("a", "b", "c")
        await world.parent_job("a", "b", "c", max_parallel=2)

        leases = await worker.acquire()
        assert (len(leases), await worker.acquire()) == (2, ())
        await worker.end(leases[0])
        assert len(await worker.acquire()) == 1

    async def test_a_full_parent_job_does_not_hide_the_next_one(self, world: World) -> None:
        names = [f"t{n}" for n in range(120)]
        worker = await world.worker(*names)
        await world.parent_job(*names, max_parallel=1, priority=9)
        await world.parent_job(*names[100:])

        leases = await worker.acquire()

        assert len(leases) == 21


class TestDispatchOrder:
    async def test_priority_comes_first(self, world: World) -> None:
        worker = await world.worker("a", "b", "c")
        await world.parent_job("a")
        await world.parent_job("b", priority=5)
        await world.parent_job("c", priority=-5)

        assert [lease.target for lease in await worker.acquire()] == ["b", "a", "c"]

    async def test_parent_jobs_share_fairly(self, world: World) -> None:
        names = [f"t{n}" for n in range(40)]
        worker = await world.worker(*names, slots=1)
        big = await world.parent_job(*names[:30])
        for _ in range(4):
            [lease] = await worker.acquire()
            await worker.end(lease)
        small = await world.parent_job(*names[30:])

        order = []
        for _ in range(8):
            [lease] = await worker.acquire()
            order.append(lease.parent_job_id)
            await worker.end(lease)

        assert order.count(big.id) == order.count(small.id) == 4

    async def test_ever_newer_parent_jobs_do_not_overtake_an_older_one_for_ever(self, world: World) -> None:
        old_targets = [f"old{n}" for n in range(5)]
        worker = await world.worker(*old_targets, "busy", slots=1)
        old = await world.parent_job(*old_targets)

        order = []
        for _ in range(20):
            await world.parent_job("busy")
            [lease] = await worker.acquire()
            order.append(lease.parent_job_id)
            await worker.end(lease)

        # Each turn of the older one comes after those only who were there when the turn before it began.
        assert [place for place, parent_job_id in enumerate(order) if parent_job_id == old.id] == [0, 2, 5, 9, 14]

    async def test_the_largest_lane_goes_first_then_the_order_of_the_request(self, world: World) -> None:
        worker = await world.worker("a", "b", "c", "d")
        await world.parent_job("a", "b", "c", "d", sizes={"b": 5, "d": 9})

        assert [lease.target for lease in await worker.acquire()] == ["d", "b", "a", "c"]

    async def test_targets_of_a_parent_job_go_round(self, world: World) -> None:
        worker = await world.worker("a", "b", slots=1)
        await world.parent_job("a", "b", operations=("vacuum", "analyze"))

        order = []
        for _ in range(4):
            [lease] = await worker.acquire()
            order.append((lease.target, lease.operation))
            await worker.end(lease)

        assert order == [("a", "vacuum"), ("b", "vacuum"), ("a", "analyze"), ("b", "analyze")]


class TestLanes:
    async def test_children_of_a_lane_run_one_after_the_other(self, world: World) -> None:
        worker = await world.worker(served_target("a", locks=[], max_parallel=9))
        parent = await world.parent_job("a", operations=("vacuum", "analyze", "reindex"))

        seen = []
        while leases := await worker.acquire():
            [lease] = leases
            seen.append(lease.operation)
            await worker.end(lease)

        assert seen == ["vacuum", "analyze", "reindex"]
        await world.check(parent.id)

    @pytest.mark.parametrize("outcome", [Outcome.SKIPPED, Outcome.COMPLETED])
    async def test_a_successor_follows_whatever_the_end(self, world: World, outcome: Outcome) -> None:
        worker, lease = await world.leased_child_job(operations=("vacuum", "analyze"))
        await worker.end(lease, outcome)

        assert [lease.operation for lease in await worker.acquire()] == ["analyze"]

    async def test_a_successor_follows_a_failed_child(self, world: World) -> None:
        worker, lease = await world.leased_child_job(operations=("vacuum", "analyze"))
        await worker.end(lease, Outcome.FAILED, failure=failure(retryable=False))

        assert [lease.operation for lease in await worker.acquire()] == ["analyze"]

    async def test_a_tripped_failure_policy_stops_the_lane_in_the_same_call(self, world: World) -> None:
        policy = FailurePolicy(mode=FailureMode.FAIL_FAST)
        worker, lease = await world.leased_child_job(operations=("vacuum", "analyze"), failure_policy=policy)
        report = report_of(lease, Outcome.FAILED, failure=failure(retryable=False))

        answer = await world.store.report(worker.session_id, [report], worker.poll())

        assert answer.leases == ()
        assert world.hints[-1].ending == {lease.parent_job_id}


class TestNothingStartsInAStoppingParentJob:
    async def test_not_in_the_call_that_trips_its_policy(self, world: World) -> None:
        worker = await world.worker("a", "b")
        policy = FailurePolicy(mode=FailureMode.FAIL_FAST)
        await world.parent_job("a", "b", failure_policy=policy)
        [lease] = await worker.acquire(1)
        report = report_of(lease, Outcome.FAILED, failure=failure(retryable=False))

        answer = await world.store.report(worker.session_id, [report], worker.poll())

        assert answer.leases == ()

    async def test_not_in_the_transaction_that_cancels_it(self, world: World) -> None:
        worker = await world.worker("t0")
        children = [PlannedChild(target="t0", operation="vacuum", lane=str(n)) for n in range(1500)]
        parent = await world.parent_job(children=children)

        _, leases = await asyncio.gather(world.store.cancel_parent_job(parent.id, ""), worker.acquire())

        # Over several connections the claim may come first; then its worker is told.
        if leases:
            assert set((await worker.beat(*leases)).leases) == {LeaseDirective.CANCEL}
        assert await worker.acquire() == ()


class TestWakeUps:
    async def test_a_freed_target_wakes_a_waiter(self, world: World) -> None:
        worker, lease = await world.leased_child_job()
        await world.parent_job("orders")
        world.ready_hints()

        await worker.end(lease)

        assert world.ready_hints() == {"orders": 1}

    async def test_what_is_granted_at_once_wakes_nobody(self, world: World) -> None:
        worker, lease = await world.leased_child_job(operations=("vacuum", "analyze"))
        world.ready_hints()

        await world.store.report(worker.session_id, [report_of(lease)], worker.poll())

        assert world.ready_hints() == {}

    async def test_room_in_a_limited_parent_job_wakes_a_waiter(self, world: World) -> None:
        worker = await world.worker("a", "b")
        await world.parent_job("a", "b", max_parallel=1)
        [lease] = await worker.acquire()
        world.ready_hints()

        await worker.end(lease)

        assert world.ready_hints() == {"b": 1}

    async def test_a_newly_served_target_wakes_a_waiter(self, world: World) -> None:
        await world.store.create_parent_job(plan("a"))
        world.ready_hints()

        worker = await world.worker("a")
        assert world.ready_hints() == {"a": 1}
        await worker.register_again()
        assert world.ready_hints() == {}


class TestAClaimPastManyThatMayNotGo:
    async def test_behind_many_heads_of_others_the_best_of_the_served_targets_come_first(
        self, world: World
    ) -> None:
        worker = await world.worker("a", "b", "c", "d", slots=4)
        await world.parent_job(*(f"foreign{number}" for number in range(100)), priority=9)
        for target, priority in (("a", 1), ("b", 3), ("c", 2), ("d", 4)):
            await world.parent_job(target, priority=priority)

        granted = [lease.target for _ in range(4) for lease in await worker.acquire(1)]

        assert granted == ["d", "b", "c", "a"]

    async def test_behind_many_heads_of_others_the_best_of_an_operation_come_first(self, world: World) -> None:
        key = Lock(key="key", exclusive=True)
        offers = (operation("vacuum", key), operation("analyze"))
        keeper = await world.worker(
            replace(served_target("keeper"), operations=(operation("vacuum", key),)), worker_name="keeper"
        )
        await world.parent_job("keeper")
        assert len(await keeper.acquire(1)) == 1
        worker = await world.worker(replace(served_target("orders", max_parallel=10), operations=offers), slots=4)
        await world.parent_job(*(f"foreign{number}" for number in range(100)), priority=9)
        await world.parent_job(children=[PlannedChild(target="orders", operation="vacuum", lane="a")], priority=5)
        analyze = PlannedChild(target="orders", operation="analyze", lane="b")
        parents = [(await world.parent_job(children=[analyze], priority=priority)).id for priority in (1, 3, 2)]

        granted = [lease.parent_job_id for _ in range(3) for lease in await worker.acquire(1)]

        assert granted == [parents[1], parents[2], parents[0]]

    async def test_a_paused_target_stays_paused_beside_a_parent_job_at_its_limit(self, world: World) -> None:
        names = [f"t{number}" for number in range(40)]
        worker = await world.worker(*names, "calm", slots=4)
        await world.parent_job(*names, priority=9, max_parallel=1)
        await worker.acquire(1)
        await world.parent_job("calm")
        await world.store.pause_target("calm", paused=True)
        assert await worker.acquire(1) == ()

        await world.store.pause_target("calm", paused=False)
        assert [lease.target for lease in await worker.acquire(1)] == ["calm"]

    async def test_parent_jobs_past_their_deadline_do_not_hide_another(self, world: World) -> None:
        worker = await world.worker("a")
        for _ in range(80):
            await world.parent_job("a", priority=9, deadline=world.clock.wall() + SECOND)
        healthy = await world.parent_job("a")
        world.clock.pass_time(SECOND)

        assert [lease.parent_job_id for lease in await worker.acquire(1)] == [healthy.id]

    async def test_many_parent_jobs_at_their_limit_do_not_hide_another_on_the_same_target(
        self, world: World
    ) -> None:
        worker = await world.worker(served_target("a", locks=(), max_parallel=100), slots=200)
        for number in range(70):
            await world.parent_job(f"x{number}", priority=9)
        for _ in range(20):
            children = [PlannedChild(target="a", operation="vacuum", lane=str(n)) for n in range(2)]
            await world.parent_job(children=children, priority=5, max_parallel=1)
        assert sum([len(await worker.acquire(20)) for _ in range(4)]) == 20
        free = await world.parent_job("a")

        assert [lease.parent_job_id for lease in await worker.acquire(1)] == [free.id]

    async def test_heads_of_an_operation_that_is_not_offered_do_not_hide_another(self, world: World) -> None:
        worker = await world.worker(served_target("orders", operations=("analyze",)))
        for _ in range(80):
            await world.parent_job(children=[PlannedChild(target="orders", operation="vacuum", lane="a")])
        await world.parent_job(children=[PlannedChild(target="orders", operation="analyze", lane="a")])

        [lease] = await worker.acquire()

        assert lease.operation == "analyze"

    async def test_heads_whose_key_is_held_do_not_hide_one_whose_key_is_free(self, world: World) -> None:
        target = served_target("orders", operations=(), max_parallel=20)
        held, free = (
            operation(name, Lock(key=f"orders:{name}", exclusive=True)) for name in ("vacuum", "analyze")
        )
        worker = await world.worker(replace(target, operations=(held, free)))
        for _ in range(80):
            await world.parent_job(children=[PlannedChild(target="orders", operation="vacuum", lane="a")])
        await world.parent_job(children=[PlannedChild(target="orders", operation="analyze", lane="b")])

        granted = [lease.operation for lease in await worker.acquire()]

        assert sorted(granted) == ["analyze", "vacuum"]

    async def test_a_lower_poll_gets_nothing_also_after_a_restart(
        self, world: World, open_again: Callable[[], JobStore]
    ) -> None:
        worker = await world.worker("a", "b")
        await world.parent_job("a", "b")
        await world.store.acquire(worker.session_id, Poll(sequence=5, max_leases=1))

        await world.store.close()
        again = open_again()
        late = await again.acquire(worker.session_id, Poll(sequence=4, max_leases=1))
        await again.close()

        assert late == ()


class TestPollsThatAreRemembered:
    def test_of_sessions_that_are_never_heard_of_again_the_oldest_is_forgotten(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(acquiring, "_SESSIONS_REMEMBERED", 2)
        polls = Polls()
        for session_id in ("a", "b", "a", "c"):
            assert polls.see(session_id, 7)

        assert not polls.see("a", 6)
        assert polls.see("b", 6)
