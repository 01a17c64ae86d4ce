"""What was learned of durations, what it orders, and how it is collected."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from manager_service.domain.durations import (
    KEPT,
    Completion,
    Doing,
    expectation,
    largest_first,
    learned,
    weights,
)
from manager_service.domain.errors import StoreUnavailableError
from manager_service.domain.fleet import Lock
from manager_service.domain.inspection import InspectedObject, InspectionResult, children_of
from manager_service.domain.model import SECOND, JobSpec, PlannedChild, RequestedOperation, Span, Threshold
from manager_service.domain.states import Scope
from manager_service.orchestrator import Durations


def table(name: str, size: int, **fields: Any) -> InspectedObject:
    own = Lock(key=name, exclusive=True)
    return InspectedObject(object=name, operations=("vacuum",), size_bytes=size, locks=(own,), **fields)


def planned(
    expected: Mapping[Doing, Span], *objects: InspectedObject, **fields: Any
) -> list[tuple[str | None, int]]:
    """Return the objects in the order of their plan, and how much there is to do to each."""
    operations = (RequestedOperation(name="vacuum"),)
    spec = JobSpec(name="upkeep", operations=operations, scope=Scope.TABLE, **fields)
    children = children_of(spec, "app", InspectionResult(objects=objects), expected)
    return [(child.object, child.size) for child in children]


class TestLearned:
    def test_the_last_few_are_kept(self) -> None:
        kept: Sequence[int] = ()
        for span in range(10):
            kept = learned(kept, [span])

        assert kept == tuple(range(10 - KEPT, 10))

    def test_one_that_was_out_of_the_ordinary_does_not_count(self) -> None:
        told = expectation([10, 11, 36_000, 9, 10], 7)

        assert (told.span, told.longest, told.completions) == (10, 36_000, 7)

    def test_the_third_of_a_new_kind_does(self) -> None:
        two = learned([10] * KEPT, [50, 50])

        assert expectation(two, 7).span == 10
        assert expectation(learned(two, [50]), 8).span == 50

    def test_of_two_the_longer_counts(self) -> None:
        assert expectation([9, 3], 2).span == 9


class TestWeights:
    def test_where_nothing_was_learned_it_is_the_size(self) -> None:
        sizes: dict[Doing, int] = {("vacuum", "a"): 7, ("vacuum", "b"): 0}

        assert weights(sizes, {("vacuum", "c"): 5}) == sizes

    def test_where_all_was_learned_it_is_the_time(self) -> None:
        expected: dict[Doing, Span] = {("vacuum", "a"): 50, ("vacuum", "b"): 60}

        assert weights({("vacuum", "a"): 7, ("vacuum", "b"): 1}, expected) == expected

    def test_what_is_new_takes_as_long_for_each_byte_as_the_others(self) -> None:
        sizes: dict[Doing, int] = {("vacuum", "a"): 10, ("vacuum", "b"): 30, ("vacuum", "new"): 20}

        assert weights(sizes, {("vacuum", "a"): 100, ("vacuum", "b"): 100})["vacuum", "new"] == 100

    def test_by_the_same_operation_if_that_was_learned(self) -> None:
        sizes: dict[Doing, int] = {
            (operation, name): 10 for operation in ("vacuum", "analyze", "reindex") for name in ("a", "b")
        }

        found = weights(sizes, {("vacuum", "a"): 100, ("analyze", "a"): 20})

        assert (found["vacuum", "b"], found["analyze", "b"], found["reindex", "b"]) == (100, 20, 60)

    def test_without_any_size_what_is_new_weighs_nothing(self) -> None:
        assert weights({("vacuum", "a"): 0, ("vacuum", "b"): 0}, {("vacuum", "a"): 9})["vacuum", "b"] == 0


class TestOrder:
    def test_the_lane_with_most_to_do_comes_first_and_keeps_its_order(self) -> None:
        lanes = [("a", "vacuum", 3), ("b", "vacuum", 1), ("b", "analyze", 3), ("c", "vacuum", 2)]
        children = [
            PlannedChild(target="app", operation=operation, lane=lane, size=size)
            for lane, operation, size in lanes
        ]

        assert [(child.lane, child.operation) for child in largest_first(children)] == [
            ("b", "vacuum"),
            ("b", "analyze"),
            ("a", "vacuum"),
            ("c", "vacuum"),
        ]

    def test_tables_are_planned_by_size_until_durations_were_learned(self) -> None:
        tables = table("a", 10), table("b", 1_000)

        assert planned({}, *tables) == [("b", 1_000), ("a", 10)]
        assert planned({("vacuum", "a"): 9, ("vacuum", "b"): 5}, *tables) == [("a", 9), ("b", 5)]

    def test_an_urgent_one_still_comes_first(self) -> None:
        [(first, _), _] = planned({("vacuum", "a"): 3_600 * SECOND}, table("a", 9), table("b", 1, urgent=True))

        assert first == "b"

    def test_however_long_a_new_one_may_take(self) -> None:
        slow = table("a", 1), table("new", 1 << 40), table("b", 1, urgent=True)

        found = planned({("vacuum", "a"): 3_600 * SECOND, ("vacuum", "b"): 1}, *slow)

        assert [name for name, _ in found] == ["b", "new", "a"]
        assert max(size for _, size in found) < 1 << 63

    def test_what_is_left_out_takes_no_place(self) -> None:
        asked = Threshold(condition="rows")
        tables = (
            table("a", 9, measures={"rows": 0}),
            table("b", 1, measures={"rows": 1}),
            table("c", 2, measures={"rows": 1}),
        )

        assert planned({}, *tables, only_if=(asked,)) == [("c", 2), ("b", 1), ("a", 0)]

    def test_a_dry_run_has_the_same_order(self) -> None:
        tables = table("a", 10), table("b", 1_000)

        assert planned({("vacuum", "a"): 9, ("vacuum", "b"): 5}, *tables, dry_run=True) == [("a", 9), ("b", 5)]


class Learner:
    """Keeps what it is given, unless it is away."""

    def __init__(self, error: Exception | None = None) -> None:
        self.batches: list[list[str]] = []
        self.error = error

    async def learn(self, completions: Sequence[Completion]) -> int:
        if self.error:
            raise self.error
        self.batches.append([item.child_job_id for item in completions])
        return len(completions)


def collector(learner: Learner) -> Durations:
    store: Any = learner
    return Durations(store)


def completions(number: int, span: Span) -> list[Completion]:
    return [Completion(child_job_id=f"{span} {place}", span=span) for place in range(number)]


class TestCollecting:
    async def test_nothing_is_written_where_nothing_completed(self) -> None:
        learner = Learner()

        await collector(learner).turn()

        assert learner.batches == []

    async def test_what_completed_is_learned_once_and_in_batches(self) -> None:
        learner = Learner()
        durations = collector(learner)
        durations.note(completions(201, SECOND))

        await durations.turn()
        await durations.turn()

        assert [len(batch) for batch in learner.batches] == [200, 1]

    async def test_of_very_many_quick_ones_few_are_learned_and_of_others_all(self) -> None:
        learner = Learner()
        durations = collector(learner)
        durations.note([*completions(2_000, 1), *completions(700, SECOND)])
        await durations.turn()
        durations.note(completions(2_000, 1))
        await durations.turn()
        for _ in range(20):
            await durations.turn()
        durations.note(completions(2_000, 1))
        await durations.turn()

        learned_of = [child.split()[0] for batch in learner.batches for child in batch]
        assert (learned_of.count("1"), learned_of.count(str(SECOND))) == (500 + 100 + 500, 700)

    async def test_it_keeps_no_more_than_so_many(self) -> None:
        learner = Learner()
        durations = collector(learner)
        durations.note(completions(12_000, SECOND))

        await durations.turn()

        assert sum(len(batch) for batch in learner.batches) == 10_000
        assert learner.batches[-1][-1] == f"{SECOND} 11999"

    async def test_the_last_are_learned_at_the_end(self) -> None:
        learner = Learner()
        durations = collector(learner)
        durations.note(completions(1, SECOND))

        await durations.finish()

        assert learner.batches == [[f"{SECOND} 0"]]

    async def test_a_store_that_is_away_does_not_keep_it_from_ending(self) -> None:
        durations = collector(Learner(StoreUnavailableError("no server")))
        durations.note(completions(1, SECOND))

        with capture_logs() as logs:
            await durations.finish()

        assert [entry["event"] for entry in logs] == ["the last durations are lost"]
        assert "no server" in logs[0]["why"]

    async def test_a_turn_that_fails_is_told_to_its_loop(self) -> None:
        durations = collector(Learner(StoreUnavailableError("no server")))
        durations.note(completions(1, SECOND))

        with pytest.raises(StoreUnavailableError):
            await durations.turn()
