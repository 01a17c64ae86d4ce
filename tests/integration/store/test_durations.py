"""How long operations take on objects, as a store of each kind learns it."""

from collections.abc import Sequence
from typing import Any

import pytest

from manager_service.domain.durations import Completion, Expectation
from manager_service.domain.fleet import Lock
from manager_service.domain.model import SECOND, ChildJob, PlannedChild
from manager_service.domain.ports import ParentJobFilter
from manager_service.domain.states import ChildJobState, Outcome
from tests.factories import FakeWorker, World, failure, report_of, served_target
from tests.integration.store.managers import Managers, at_once

DAY = 86_400 * SECOND
_ALL = ParentJobFilter()


def vacuum(name: str | None, **fields: Any) -> PlannedChild:
    """Plan a child on a table of a target that lets its tables be worked on side by side."""
    given = {"target": "orders", "operation": "vacuum", "lane": name or "", "locks": {str(name): True}, **fields}
    return PlannedChild(object=name, **given)


async def server(world: World, *names: str, **fields: Any) -> FakeWorker:
    shared = (Lock(key="db", exclusive=False),)
    return await world.worker(
        *(served_target(name, locks=shared, max_parallel=100) for name in names or ("orders",)), **fields
    )


async def done(
    world: World,
    worker: FakeWorker,
    *children: PlannedChild,
    span: int = SECOND,
    outcome: Outcome = Outcome.COMPLETED,
) -> list[Completion]:
    """Run children at once for so long; return what listeners were told of those that completed."""
    await world.parent_job(children=children)
    leases = await worker.acquire()
    assert len(leases) == len(children)
    await world.live_on(span)
    await worker.beat(*leases)
    world.hints.clear()
    ends = {"failure": failure(retryable=False)} if outcome is Outcome.FAILED else {}
    reports = [report_of(lease, outcome, **ends) for lease in leases]
    await world.store.report(worker.session_id, reports, None)
    return [item for hint in world.hints for item in hint.completed]


async def learned(world: World, *spans: int, name: str | None = "a") -> None:
    """Have a table vacuumed so long each time, and that learned."""
    worker = await server(world)
    for span in spans:
        await world.store.learn(await done(world, worker, vacuum(name), span=span))


async def expected(world: World, name: str | None = "a", operation: str = "vacuum") -> Expectation | None:
    return await world.store.expected("orders", name, operation)


class TestTold:
    async def test_a_child_that_completed_is_told_with_its_time_from_the_grant(self, world: World) -> None:
        worker = await server(world)

        [told] = await done(world, worker, vacuum("a"), span=7 * SECOND)

        assert told.span == 7 * SECOND

    @pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.SKIPPED, Outcome.CANCELLED, Outcome.RELEASED])
    async def test_one_that_did_not_is_not(self, world: World, outcome: Outcome) -> None:
        assert await done(world, await server(world), vacuum("a"), outcome=outcome) == []

    async def test_only_the_attempt_that_completed_it_counts(self, world: World) -> None:
        worker = await server(world)
        await done(world, worker, vacuum("a"), span=5 * SECOND, outcome=Outcome.RELEASED)
        [again] = await worker.acquire()
        await world.live_on(2 * SECOND)
        world.hints.clear()

        await worker.end(again)

        assert [item.span for hint in world.hints for item in hint.completed] == [2 * SECOND]

    async def test_a_repeated_report_tells_nothing_again(self, world: World) -> None:
        worker = await server(world)
        await world.parent_job(children=[vacuum("a")])
        [lease] = await worker.acquire()
        report = report_of(lease)
        await world.store.report(worker.session_id, [report], None)
        world.hints.clear()

        await world.store.report(worker.session_id, [report], None)

        assert not any(hint.completed for hint in world.hints)


class TestLearn:
    async def test_of_what_never_completed_nothing_is_known(self, world: World) -> None:
        await learned(world, SECOND)

        assert await expected(world, "b") is None
        assert await expected(world, None) is None
        assert await expected(world, "a", "analyze") is None
        assert await world.store.expected("users", "a", "vacuum") is None

    async def test_the_median_of_the_last_is_expected(self, world: World) -> None:
        await learned(world, 5 * SECOND, 3 * SECOND, 20 * SECOND)

        assert await expected(world) == Expectation(span=5 * SECOND, longest=20 * SECOND, completions=3)

    async def test_the_oldest_are_forgotten(self, world: World) -> None:
        await learned(world, 20 * SECOND, *[SECOND] * 5)

        assert await expected(world) == Expectation(span=SECOND, longest=SECOND, completions=6)

    async def test_the_whole_database_is_an_object_too(self, world: World) -> None:
        await learned(world, 2 * SECOND, name=None)

        found = await expected(world, None)

        assert found is not None
        assert found.span == 2 * SECOND
        assert await expected(world, "") == found

    async def test_a_batch_may_have_several_of_one_object(self, world: World) -> None:
        worker = await server(world)
        batch: list[Completion] = []
        for span in (SECOND, 9 * SECOND, 2 * SECOND):
            batch += await done(world, worker, vacuum("a"), vacuum("b"), span=span)

        assert await world.store.learn(batch) == 2

        for name in ("a", "b"):
            found = await expected(world, name)
            assert found is not None
            assert (found.span, found.completions) == (2 * SECOND, 3)

    async def test_some_are_known_and_others_new(self, world: World) -> None:
        await learned(world, SECOND)
        worker = await server(world)

        batch = await done(world, worker, *(vacuum(name) for name in "abc"), span=3 * SECOND)

        assert await world.store.learn(batch) == 3
        assert [found.completions for name in "abc" if (found := await expected(world, name))] == [2, 1, 1]

    async def test_of_a_child_that_is_gone_nothing_is_learned(self, world: World) -> None:
        batch = await done(world, await server(world), vacuum("a"))
        [parent] = await world.store.parent_jobs(_ALL, limit=9)
        await world.store.delete_parent_job(parent.id)

        assert await world.store.learn(batch) == 0
        assert await expected(world) is None

    async def test_names_are_apart_whatever_is_in_them(self, world: World) -> None:
        names = ['a"b', "a.b", "A", "a", "ü%'", "x" * 500]
        worker = await server(world)
        for place, name in enumerate(names):
            await world.store.learn(await done(world, worker, vacuum(name), span=(place + 1) * SECOND))

        found = await world.store.expected_of_objects("orders", names, ["vacuum"])

        assert found == {("vacuum", name): (place + 1) * SECOND for place, name in enumerate(names)}


class TestRead:
    async def test_those_of_a_target_are_read_at_once(self, world: World) -> None:
        worker = await server(world, "orders", "users")
        children = [
            vacuum("a"),
            vacuum("b", operation="analyze"),
            vacuum(None, operation="reindex"),
            vacuum("a", target="users", lane="of users", locks={"users": True}),
        ]
        await world.store.learn(await done(world, worker, *children))

        found = await world.store.expected_of_objects(
            "orders", [None, "a", "c"], ["vacuum", "reindex", "optimize"]
        )

        assert found == {("vacuum", "a"): SECOND, ("reindex", None): SECOND}
        assert await world.store.expected_of_objects("nobody", ["a"], ["vacuum"]) == {}

    async def test_those_of_whole_databases_too(self, world: World) -> None:
        names = ("orders", "users", "visits")
        worker = await server(world, *names)
        children = [vacuum(None, target=name, lane=name, locks={name: True}) for name in names]
        await world.store.learn(await done(world, worker, *children, vacuum("a"), span=4 * SECOND))

        found = await world.store.expected_of_databases(["orders", "users", "nobody"], ["vacuum", "analyze"])

        assert found == {("orders", "vacuum"): 4 * SECOND, ("users", "vacuum"): 4 * SECOND}

    async def test_a_child_that_has_not_run_tells_it(self, world: World) -> None:
        await learned(world, 3 * SECOND)
        worker = await server(world)
        later = await world.parent_job(children=[vacuum("a"), vacuum("b"), vacuum("a", skipped=True)])

        waiting = await world.children(later)
        [lease, other] = await worker.acquire()
        leased = await world.children(later)
        await worker.beat(lease, other)
        running = await world.children(later)
        await worker.end(lease)
        await worker.end(other)
        ended = await world.children(later)

        assert [child.expected for child in waiting] == [3 * SECOND, None, 3 * SECOND]
        assert (leased[0].state, leased[0].expected) == (ChildJobState.LEASED, 3 * SECOND)
        assert (running[0].state, running[0].expected) == (ChildJobState.RUNNING, 3 * SECOND)
        assert (ended[0].state, ended[0].expected) == (ChildJobState.COMPLETED, None)
        assert await _alone(world, waiting[1]) is None
        assert await _alone(world, waiting[2]) == 3 * SECOND

    async def test_one_that_failed_for_good_does_not(self, world: World) -> None:
        await learned(world, 3 * SECOND)
        worker = await server(world)
        await done(world, worker, vacuum("a"), outcome=Outcome.FAILED)

        [parent, *_] = await world.store.parent_jobs(_ALL, limit=9)

        assert [child.expected for child in await world.children(parent)] == [None]


class TestForget:
    async def test_a_forgotten_target_takes_it_along(self, world: World) -> None:
        await learned(world, SECOND)
        worker = await server(world)
        batch = await done(world, worker, vacuum("a"))
        for one in await world.store.workers(include_gone=False, limit=9):
            await world.store.deregister(one.session_id)

        await world.store.forget_target("orders")

        assert await expected(world) is None
        assert await world.store.learn(batch) == 0
        assert await expected(world) is None

    async def test_what_was_not_added_to_for_long_is_deleted_in_pieces(self, world: World) -> None:
        worker = await server(world)
        await world.store.learn(await done(world, worker, *(vacuum(name) for name in "abc")))
        await world.live_on(20 * SECOND)
        await world.store.learn(await done(world, worker, vacuum("c")))

        age = 10 * SECOND
        assert [await world.store.prune_durations(age=age, limit=1) for _ in range(3)] == [1, 1, 0]
        found = await world.store.expected_of_objects("orders", ["a", "b", "c"], ["vacuum"])
        assert found == {("vacuum", "c"): SECOND}
        assert await world.store.prune_durations(age=DAY, limit=9) == 0


class TestManyManagers:
    async def test_they_learn_of_the_same_objects_at_once(self, managers: Managers) -> None:
        names = [f"t{number}" for number in range(20)]
        worlds = list(managers)
        worker = await server(worlds[0])
        batches: list[Sequence[Completion]] = []
        for place in range(9):
            order = names[place:] + names[:place]
            batches.append(await done(worlds[0], worker, *(vacuum(name) for name in order)))

        answers = await at_once(
            *(worlds[place % 3].store.learn(batch) for place, batch in enumerate(batches)),
            *(world.store.prune_durations(age=DAY, limit=100) for world in worlds),
        )

        assert answers == [20] * 9 + [0] * 3
        found = await worlds[1].store.expected_of_objects("orders", names, ["vacuum"])
        assert found == {("vacuum", name): SECOND for name in names}
        assert {(await _completions(worlds[2], name)) for name in names} == {9}


async def _completions(world: World, name: str) -> int:
    found = await expected(world, name)
    return 0 if found is None else found.completions


async def _alone(world: World, child: ChildJob) -> int | None:
    read, _ = await world.store.child_job(child.id)
    return read.expected
