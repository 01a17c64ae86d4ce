"""What an inspection says whose selection takes nothing."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.worker_doubles.fake_engine import DONE
from worker_service.domain.inspection import INSPECT, InspectedObject, Inspection, InspectionResult, Selection
from worker_service.domain.operation import Operation
from worker_service.domain.outcome import Outcome, Result, Verdict
from worker_service.domain.selected import unless_nothing_fits, watched

TABLES = ("public.orders", "public.items", "audit.log", "audit.old")
WHOLE = InspectedObject(operations=("vacuum",))


def asked(*include: str, exclude: Sequence[str] = ()) -> Operation:
    selection = Selection(include=include, exclude=tuple(exclude))
    return Operation(name=INSPECT, target="app", inspection=Inspection(selection=selection))


def inspected(
    operation: Operation, tables: Sequence[str] = TABLES, whole: Sequence[InspectedObject] = ()
) -> Result:
    """Return what an engine answers that has these tables, and what comes of it."""
    operation = watched(operation)
    assert operation.inspection is not None
    takes = operation.inspection.selection.takes
    objects = [
        InspectedObject(object=name, operations=("analyze",))
        for name in tables
        if takes(name, name.rpartition(".")[2])
    ]
    found = InspectionResult(objects=(*whole, *objects))
    answer = replace(DONE, verdict=Verdict.EFFECTIVE, reason="found some", inspection=found)
    return unless_nothing_fits(answer, operation.inspection)


class TestSomeFit:
    def test_a_pattern_that_fits_nothing_is_told_with_what_was_found(self) -> None:
        result = inspected(asked("orders", "typo", "audit.*", "no*"))

        assert (result.outcome, result.reason) == (
            Outcome.COMPLETED,
            "found some; nothing fits 'typo', 'no*'",
        )
        assert result.inspection is not None
        assert len(result.inspection.objects) == 3

    def test_one_whose_objects_are_excluded_does_fit(self) -> None:
        result = inspected(asked("orders", "audit.*", exclude=["audit.*"]))

        assert result.reason == "found some"


class TestNothingFits:
    @pytest.mark.parametrize(
        ("include", "reason"),
        [
            (
                ("nosuch.*",),
                "nothing fits 'nosuch.*'; there are audit.log, audit.old, public.items and 1 more",
            ),
            (("ordrs",), "nothing fits 'ordrs'; names like it are public.orders"),
            (("PUBLIC.ITEMS",), "nothing fits 'PUBLIC.ITEMS'; names like it are public.items, public.orders"),
            (("a", "b", "c", "itemz*"), "nothing fits 'a', 'b', 'c' and 1 more; there are "),
            (("audit.x", "logs"), "nothing fits 'audit.x', 'logs'; names like it are audit.old, audit.log"),
        ],
    )
    def test_the_inspection_is_skipped_and_names_what_there_is(
        self, include: tuple[str, ...], reason: str
    ) -> None:
        result = inspected(asked(*include))

        assert (result.outcome, result.verdict, result.inspection) == (Outcome.SKIPPED, None, None)
        assert result.reason.startswith(reason)

    def test_what_is_done_to_the_whole_database_is_skipped_too(self) -> None:
        assert inspected(asked("nosuch"), whole=[WHOLE]).outcome is Outcome.SKIPPED

    def test_where_there_is_nothing_that_is_told(self) -> None:
        result = inspected(asked("nosuch"), tables=())

        assert result.outcome is Outcome.SKIPPED
        assert result.reason == "nothing fits 'nosuch', for there is nothing to choose from"

    def test_what_was_excluded_is_told_as_such(self) -> None:
        result = inspected(asked("audit.*", exclude=["log", "*.old"]))

        assert result.outcome is Outcome.SKIPPED
        assert result.reason == "all that fits 'audit.*' is excluded by 'log', '*.old': audit.log, audit.old"

    def test_of_very_many_names_the_first_are_compared(self) -> None:
        names = [f"t.table_{number:06}" for number in range(50_000)]

        assert inspected(asked("t.tabel_000007"), names).reason.startswith(
            "nothing fits 't.tabel_000007'; names like it are t.table_000007, t.table_"
        )


class TestSomethingFits:
    @pytest.mark.parametrize(
        "operation", [asked("public.*"), asked("orders", "log"), asked(), asked(exclude=["*"])]
    )
    def test_the_result_is_as_the_engine_gave_it(self, operation: Operation) -> None:
        result = inspected(operation)

        assert (result.outcome, result.reason) == (Outcome.COMPLETED, "found some")
        assert result.inspection is not None

    def test_where_no_object_is_looked_at_the_selection_says_nothing(self) -> None:
        assert inspected(asked("nosuch"), tables=(), whole=[WHOLE]).outcome is Outcome.COMPLETED

    def test_a_result_that_is_none_of_an_inspection_stands(self) -> None:
        operation = watched(asked("nosuch"))
        failed = replace(DONE, outcome=Outcome.CANCELLED, verdict=None)

        assert unless_nothing_fits(failed, operation.inspection) == failed
        assert unless_nothing_fits(DONE, None) == DONE
        assert watched(Operation(name="vacuum", target="app")) == Operation(name="vacuum", target="app")
