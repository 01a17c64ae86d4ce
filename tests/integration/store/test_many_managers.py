"""Several managers over one job store: whatever they do at once, the invariants hold."""

import asyncio
import random
from collections.abc import Awaitable
from itertools import count
from typing import Any

import pytest

from manager_service.domain.errors import (
    SessionSupersededError,
    TargetIdentityMismatchError,
)
from manager_service.domain.fleet import Lock, SessionState
from manager_service.domain.leases import LeaseDirective, Poll, ReportStatus
from manager_service.domain.model import SECOND
from manager_service.domain.ports import ParentJobFilter
from manager_service.domain.states import (
    FailureMode,
    FailurePolicy,
    Outcome,
    ParentJobState,
)
from tests.factories import World, failure, plan, registration, report_of, served_target
from tests.integration.store.managers import AnyStore, Managers, at_once
from tests.integration.store.test_invariants import Load

ALIAS = Lock(key="one file", exclusive=True)
SHARED, ALONE = Lock(key="one server", exclusive=False), Lock(key="one server", exclusive=True)
FAIL_FAST = FailurePolicy(mode=FailureMode.FAIL_FAST)


async def later(delay: float, call: Awaitable[Any]) -> Any:
    """Make a call after a delay, in seconds."""
    await asyncio.sleep(delay)
    return await call


async def unfinished(world: World) -> list[str]:
    """Return the parent jobs that have not ended."""
    parents = await world.store.parent_jobs(ParentJobFilter(), limit=1000)
    return [parent.id for parent in parents if not parent.state.final]


async def swept(managers: Managers) -> None:
    """Let every manager end what is left of cancelling parent jobs."""
    for parent_id in await managers.worlds[0].store.ending_parent_jobs():
        await at_once(*(world.store.sweep(parent_id, limit=3) for world in managers))


class TestMixedLoad:
    @pytest.mark.parametrize("seed", range(4))
    async def test_the_invariants_hold_while_every_call_goes_to_another_manager(
        self, managers: Managers, seed: int
    ) -> None:
        stores = [world.store for world in managers]
        chance: Any = AnyStore(stores, random.Random(seed))
        load = Load(World(chance, managers.worlds[0].clock, managers.worlds[0].timing), seed)
        await load.begin()
        for step in range(100):
            await load.step()
            if step % 10 == 0:
                await managers.check()

        await load.finish()
        await load.check()
        await managers.check()
        assert len(load.granted) > 50


class TestClaims:
    async def test_nothing_is_granted_twice_and_no_limit_is_exceeded(self, managers: Managers) -> None:
        served = [
            served_target("a1", locks=[ALIAS]),
            served_target("a2", locks=[ALIAS]),
            served_target("s1", locks=[SHARED], max_parallel=2),
            served_target("s2", locks=[SHARED], max_parallel=2),
            served_target("s3", locks=[ALONE]),
            served_target("w1", locks=[], max_parallel=3),
            served_target("w2", locks=[], max_parallel=3),
        ]
        names = [target.name for target in served]
        workers = [
            await world.worker(*served, worker_name=f"w{n}{m}", slots=3)
            for n, world in enumerate(managers)
            for m in range(2)
        ]
        for most in (0, 2, 3):
            for _ in range(4):
                await managers.worlds[0].parent_job(*names, operations=("vacuum", "analyze"), max_parallel=most)
        granted: list[tuple[str, int]] = []
        together = 0

        for _ in range(300):
            if not await unfinished(managers.worlds[0]):
                break
            answers = await at_once(*(worker.acquire(3) for worker in workers))
            await managers.check()
            granted += [(lease.child_job_id, lease.attempt) for leases in answers for lease in leases]
            together = max(together, sum(map(len, answers)))
            await at_once(*(w.end(lease) for w, leases in zip(workers, answers, strict=True) for lease in leases))
            await managers.check()

        assert len(granted) == len(set(granted)) == 12 * 14
        assert together >= 5
        for parent in await managers.worlds[0].store.parent_jobs(ParentJobFilter(), limit=100):
            assert parent.state is ParentJobState.COMPLETED
            await managers.worlds[1].check(parent.id)

    async def test_the_slots_of_a_session_are_its_own_wherever_it_polls(self, managers: Managers) -> None:
        names = [f"t{n}" for n in range(12)]
        worker = await managers.worlds[0].worker(*names, slots=3)
        await managers.worlds[0].parent_job(*names, operations=("vacuum", "analyze"))
        numbers = count(1)
        for _ in range(25):
            number = next(numbers)
            polls = [Poll(sequence=number, max_leases=2)] * 3 + [Poll(sequence=next(numbers), max_leases=2)]
            answers = await at_once(
                *(world.store.acquire(worker.session_id, poll) for poll in polls for world in managers)
            )
            await managers.check()
            leases = {lease.lease_id: lease for answer in answers for lease in answer}
            await at_once(*(worker.end(lease) for lease in leases.values()))

        [parent] = await managers.worlds[0].store.parent_jobs(ParentJobFilter(), limit=9)
        assert parent.state is ParentJobState.COMPLETED

    async def test_an_equal_poll_has_one_answer(self, managers: Managers) -> None:
        names = [f"t{n}" for n in range(30)]
        worker = await managers.worlds[0].worker(*names, slots=30)
        await managers.worlds[0].parent_job(*names)
        for number in range(1, 16):
            poll = Poll(sequence=number, max_leases=2)
            answers = await at_once(*(world.store.acquire(worker.session_id, poll) for world in managers))

            assert all(answer == answers[0] for answer in answers)
            assert len(answers[0]) == 2

    async def test_a_lower_poll_that_was_granted_something_later_is_answered_with_nothing(
        self, managers: Managers
    ) -> None:
        one, other, _ = managers
        worker = await one.worker("a", "b")
        await one.parent_job("a", "b")
        await other.store.acquire(worker.session_id, Poll(sequence=5, max_leases=1))

        assert await one.store.acquire(worker.session_id, Poll(sequence=4, max_leases=1)) == ()


class TestEnds:
    async def test_the_last_children_end_at_once_and_the_parent_job_once(self, managers: Managers) -> None:
        workers = [await w.worker(f"t{n}", worker_name=f"w{n}") for n, w in enumerate(managers)]
        for _ in range(25):
            parent = await managers.worlds[0].parent_job("t0", "t1", "t2")
            leases = [(await worker.acquire(1))[0] for worker in workers]

            statuses = await at_once(*(w.end(lease) for w, lease in zip(workers, leases, strict=True)))

            assert statuses == [ReportStatus.RECORDED] * 3
            assert await managers.worlds[0].state(parent.id) is ParentJobState.COMPLETED
            await managers.worlds[1].check(parent.id)
        await managers.check()

    async def test_one_fails_fast_while_others_grant(self, managers: Managers) -> None:
        names = [f"t{n}" for n in range(9)]
        workers = [await w.worker(*names, worker_name=f"w{n}") for n, w in enumerate(managers)]
        for _ in range(12):
            parent = await managers.worlds[0].parent_job(*names, failure_policy=FAIL_FAST)
            [lease] = await workers[0].acquire(1)

            answers = await at_once(
                workers[0].end(lease, Outcome.FAILED, failure=failure(retryable=False)),
                workers[1].acquire(2),
                workers[2].acquire(2),
            )
            await swept(managers)
            await managers.check()
            for worker, leases in zip(workers[1:], answers[1:], strict=True):
                await at_once(*(worker.end(one, Outcome.RELEASED) for one in leases))
            await swept(managers)

            assert await managers.worlds[0].state(parent.id) in (
                ParentJobState.FAILED,
                ParentJobState.PARTIALLY_COMPLETED,
            )
            await managers.worlds[0].check(parent.id)
            await managers.check()

    async def test_a_cancel_meets_grants_and_reports(self, managers: Managers) -> None:
        names = [f"t{n}" for n in range(6)]
        workers = [await w.worker(*names, worker_name=f"w{n}") for n, w in enumerate(managers)]
        for _ in range(15):
            parent = await managers.worlds[0].parent_job(*names, operations=("vacuum", "analyze"))
            held = await workers[0].acquire(2)

            answers = await at_once(
                workers[1].acquire(2),
                managers.worlds[2].store.cancel_parent_job(parent.id, "enough"),
                workers[2].acquire(2),
                *(workers[0].end(lease, outcome) for lease, outcome in zip(held, Outcome, strict=False)),
            )
            await managers.check()
            for worker, leases in ((workers[1], answers[0]), (workers[2], answers[2])):
                beat = await worker.beat(*leases)
                assert set(beat.leases) <= {LeaseDirective.CANCEL}
                await at_once(*(worker.end(lease, Outcome.CANCELLED) for lease in leases))
            await swept(managers)

            assert await managers.worlds[1].state(parent.id) is ParentJobState.CANCELLED
            await managers.worlds[1].check(parent.id)

    @pytest.mark.parametrize("seed", range(3))
    async def test_steering_meets_reports(self, managers: Managers, seed: int) -> None:
        chance = random.Random(seed)
        names = [f"t{n}" for n in range(5)]
        workers = [await w.worker(*names, worker_name=f"w{n}") for n, w in enumerate(managers)]
        parents = [(await w.parent_job(*names, operations=("vacuum", "analyze"))).id for w in managers]
        for _ in range(25):
            verbs = ["pause", "resume", "resume", "retry", "delete", "sweep", "fail_overdue", "prune", "trim"]
            calls = [self.steer(chance.choice(managers.worlds), verb, chance.choice(parents)) for verb in verbs]
            for worker in workers:
                leases = await worker.acquire(2)
                outcome = chance.choice([Outcome.COMPLETED, Outcome.FAILED, Outcome.RELEASED])
                told = {"failure": failure(retryable=False)} if outcome is Outcome.FAILED else {}
                calls += [worker.end(lease, outcome, **told) for lease in leases]
            chance.shuffle(calls)
            await at_once(*calls)
            await managers.check()

    async def steer(self, world: World, verb: str, parent_id: str) -> None:
        match verb:
            case "sweep":
                await world.store.sweep(parent_id, limit=2)
            case "fail_overdue":
                await world.store.fail_overdue(limit=2)
            case "prune":
                await world.store.prune(age=-SECOND, limit=7)
            case "trim":
                await world.store.trim_events(keep=10**6, limit=3)
            case _:
                await getattr(world.store, f"{verb}_parent_job")(parent_id)


class TestExpiry:
    async def test_two_managers_a_heartbeat_and_a_late_report_meet(self, managers: Managers) -> None:
        names = [f"t{n}" for n in range(6)]
        one, other, third = managers
        worker = await one.worker(*names)
        taken_back = kept = 0
        for number in range(12):
            parent = await one.parent_job(*names)
            leases = await worker.acquire(6)
            await worker.beat(*leases)
            await one.live_on(one.timing.lease_duration + 1)

            delay = 0.001 * (number % 4)
            answers = await at_once(
                *(later(delay, world.store.expire_leases(limit=100)) for world in managers),
                other.store.heartbeat(worker.heartbeat(*leases[:3])),
                *(third.store.report(worker.session_id, [report_of(lease)], None) for lease in leases[3:]),
            )
            await managers.check()

            lost = answers[3].leases.count(LeaseDirective.LOST)
            late = [answer.statuses[0] for answer in answers[4:]].count(ReportStatus.STALE)
            assert sum(answers[:3]) == lost + late
            taken_back, kept = taken_back + lost + late, kept + 6 - lost - late
            await one.store.cancel_parent_job(parent.id, "enough")
            await at_once(*(worker.end(lease, Outcome.CANCELLED) for lease in leases))
            assert await one.state(parent.id) is ParentJobState.CANCELLED
            await one.check(parent.id)
        assert taken_back
        assert kept

    async def test_an_outage_is_made_up_once(self, managers: Managers) -> None:
        one = managers.worlds[0]
        worker, lease = await one.running_child_job()
        [before] = await one.store.workers(include_gone=True, limit=9)
        gap = 3600 * SECOND
        one.clock.pass_time(gap)

        expired = await at_once(
            *(world.store.expire_leases(limit=100) for world in managers),
            *(world.store.mark_alive() for world in managers),
            *(world.store.release_due() for world in managers),
        )
        [after] = await one.store.workers(include_gone=True, limit=9)

        assert expired[:3] == [0, 0, 0]
        assert after.heartbeat_time - before.heartbeat_time == gap
        grace = 2 * one.timing.heartbeat_interval
        assert await one.store.next_available() == one.timing.lease_duration + grace + 1
        assert await worker.end(lease) is ReportStatus.RECORDED


class TestRegistrations:
    async def test_one_worker_name_has_one_session(self, managers: Managers) -> None:
        for _ in range(10):
            answers = await at_once(*(world.store.register(registration("orders")) for world in managers))
            await managers.check()

            sessions = [answer for answer in answers if isinstance(answer, str)]
            assert len(set(sessions)) == len(sessions) == 3
            polls = await at_once(
                *(managers.worlds[0].store.acquire(one, Poll(sequence=1, max_leases=1)) for one in sessions)
            )
            assert [isinstance(poll, SessionSupersededError) for poll in polls].count(False) == 1

    async def test_one_instance_has_one_session(self, managers: Managers) -> None:
        for _ in range(10):
            known = registration("orders")
            sessions = await at_once(*(world.store.register(known) for world in managers))

            assert len(set(sessions)) == 1
            await managers.check()

    async def test_an_instance_under_two_names_has_one_session(self, managers: Managers) -> None:
        for number in range(10):
            known = [
                registration("orders", worker_name=name, instance_id=f"instance {number}")
                for name in ("x", "y", "z")
            ]
            sessions = await at_once(*(w.store.register(k) for w, k in zip(managers, known, strict=True)))

            assert len(set(sessions)) == 1
            await managers.check()

    async def test_one_target_name_with_two_identities_is_refused_to_one(self, managers: Managers) -> None:
        for number in range(10):
            known = [
                registration(served_target(f"new{number}", identity=f"file {n}"), worker_name=f"w{n}")
                for n in range(3)
            ]
            answers = await at_once(*(w.store.register(k) for w, k in zip(managers, known, strict=True)))

            refused = [answer for answer in answers if isinstance(answer, TargetIdentityMismatchError)]
            assert len(refused) == 2
            await managers.check()

    async def test_a_session_closes_while_it_is_renewed_superseded_drained_and_forgotten(
        self, managers: Managers
    ) -> None:
        one, other, third = managers
        for _ in range(15):
            worker = await one.worker("orders")
            await at_once(
                other.store.register(worker.registration),
                third.store.register(registration("orders")),
                one.store.deregister(worker.session_id),
                third.store.drain_worker("anna", terminate=False),
                other.store.prune_sessions(age=3600 * SECOND),
                one.store.forget_target("orders"),
            )
            await managers.check()
            for row in await one.store.workers(include_gone=True, limit=9):
                assert row.state is not SessionState.LOST

    async def test_one_request_makes_one_parent_job(self, managers: Managers) -> None:
        for number in range(15):
            wanted = plan("a", "b", request_id=f"request {number}")
            created = await at_once(*(world.store.create_parent_job(wanted) for world in managers))

            assert len({one.parent_job.id for one in created}) == 1
            assert sorted(one.existing for one in created) == [False, True, True]
        await managers.check()
