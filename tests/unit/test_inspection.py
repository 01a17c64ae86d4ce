"""From what was found on a target to children."""

from dataclasses import replace
from typing import Any

import pytest

from manager_service.domain import inspection
from manager_service.domain.fleet import Lock
from manager_service.domain.inspection import Coverage, InspectedObject, InspectionResult, children_of
from manager_service.domain.model import JobSpec, PlannedChild, RequestedOperation, Threshold
from manager_service.domain.planned import planned
from manager_service.domain.states import FailureCategory, Outcome, Scope, Verdict
from manager_service.domain.thresholds import PlanError, fits
from tests.factories import report_of
from tests.unit.manager_doubles import child_job, lease, parent_job

DATABASE = Lock(key="db", exclusive=False)
COVERED = (Coverage(operation="reindex", by="vacuum", reason="vacuum rebuilds it"),)


def spec(*operations: str, **fields: Any) -> JobSpec:
    asked = tuple(RequestedOperation(name=name, options={"o": name}) for name in operations or ("vacuum",))
    return JobSpec(name="upkeep", operations=asked, scope=Scope.TABLE, **fields)


def table(name: str | None, *operations: str, **fields: Any) -> InspectedObject:
    return InspectedObject(object=name, operations=operations or ("vacuum",), **fields)


def only_if(condition: str, **fields: str) -> Threshold:
    return Threshold(condition=condition, **fields)


def children(asked: JobSpec, *objects: InspectedObject, locks: tuple[Lock, ...] = ()) -> tuple[PlannedChild, ...]:
    return children_of(asked, "app", InspectionResult(objects=objects, locks=locks), {})


class TestChildren:
    def test_each_object_has_the_operations_in_the_order_of_the_request(self) -> None:
        found = children(
            spec("vacuum", "analyze", "reindex"), table("a", "reindex", "vacuum"), table("b", "analyze")
        )

        assert [(child.target, child.object, child.operation) for child in found] == [
            ("app", "a", "vacuum"),
            ("app", "a", "reindex"),
            ("app", "b", "analyze"),
        ]
        assert [child.options for child in found] == [{"o": "vacuum"}, {"o": "reindex"}, {"o": "analyze"}]
        assert not any(child.skipped for child in found)

    def test_it_holds_the_locks_of_all_and_its_own(self) -> None:
        own = (Lock(key="a", exclusive=True), Lock(key="db", exclusive=False))

        [child] = children(spec(), table("a", locks=own), locks=(DATABASE,))

        assert child.locks == {"db": False, "a": True}

    def test_what_is_exclusive_anywhere_is_exclusive(self) -> None:
        [child] = children(spec(), table("a", locks=(Lock(key="db", exclusive=True),)), locks=(DATABASE,))

        assert child.locks == {"db": True}

    def test_those_of_one_table_are_one_lane(self) -> None:
        locks = {name: (Lock(key=name, exclusive=True),) for name in "ab"}

        found = children(
            spec("vacuum", "reindex"),
            table("a", "vacuum", "reindex", locks=locks["a"]),
            table("a_pkey", "reindex", locks=locks["a"]),
            table("b", locks=locks["b"]),
            locks=(DATABASE,),
        )

        lanes = [child.lane for child in found]
        assert lanes[0] == lanes[1] == lanes[2] != lanes[3]

    def test_those_without_keys_of_their_own_are_one_lane(self) -> None:
        found = children(spec(), table("a"), table("b"))

        assert found[0].lane == found[1].lane
        assert found[0].locks == {}

    def test_an_urgent_one_is_larger_than_the_largest(self) -> None:
        small, large = children(spec(), table("a", urgent=True, size_bytes=1), table("b", size_bytes=1 << 59))

        assert small.size > large.size

    @pytest.mark.parametrize("dry_run", [False, True])
    def test_urgent_ones_keep_their_order_whatever_their_size_and_what_is_done_to_them(
        self, dry_run: bool
    ) -> None:
        found = children(
            spec("vacuum", "analyze", dry_run=dry_run, only_if=(only_if("rows", operation="analyze"),)),
            table(
                "oldest",
                "vacuum",
                urgent=True,
                size_bytes=1,
                measures={"rows": 0},
                locks=(Lock(key="1", exclusive=True),),
            ),
            table(
                "old",
                "vacuum",
                "analyze",
                urgent=True,
                size_bytes=9,
                measures={"rows": 1},
                locks=(Lock(key="2", exclusive=True),),
            ),
            table(
                "less",
                "vacuum",
                urgent=True,
                size_bytes=1 << 50,
                measures={"rows": 0},
                locks=(Lock(key="3", exclusive=True),),
            ),
            table(
                "large", "vacuum", size_bytes=1 << 59, measures={"rows": 1}, locks=(Lock(key="4", exclusive=True),)
            ),
        )

        chosen = [(child.object, child.operation) for child in found if "not worth" not in child.reason]
        assert chosen == [
            ("oldest", "vacuum"),
            ("old", "vacuum"),
            ("old", "analyze"),
            ("less", "vacuum"),
            ("large", "vacuum"),
        ]

    def test_what_is_left_out_is_skipped_for_the_reason(self) -> None:
        [child] = children(spec(only_if=(only_if("rows"),)), table("a", measures={"rows": 1}, left_out="a view"))

        assert (child.skipped, child.reason, child.before) == (True, "left out: a view", {"rows": 1})

    @pytest.mark.parametrize("request_order", [("vacuum", "reindex"), ("reindex", "vacuum")])
    def test_what_another_does_as_well_is_left_out(self, request_order: tuple[str, ...]) -> None:
        found = children(spec(*request_order), table("a", "vacuum", "reindex", covered=COVERED))

        assert {child.operation: (child.skipped, child.reason) for child in found} == {
            "vacuum": (False, ""),
            "reindex": (True, "left out: vacuum rebuilds it"),
        }

    def test_where_the_other_is_not_worth_its_while_it_is_done(self) -> None:
        asked = spec("vacuum", "reindex", only_if=(only_if("rows > 10", operation="vacuum"),))

        found = children(asked, table("a", "vacuum", "reindex", covered=COVERED, measures={"rows": 3}))

        assert [(child.operation, child.skipped) for child in found] == [("vacuum", True), ("reindex", False)]

    def test_what_was_not_asked_for_covers_nothing(self) -> None:
        [child] = children(spec("reindex"), table("a", "vacuum", "reindex", covered=COVERED))

        assert (child.operation, child.skipped) == ("reindex", False)

    def test_what_is_not_to_be_done_to_the_object_covers_nothing(self) -> None:
        found = children(spec("vacuum", "reindex"), table("a", "reindex", covered=COVERED), table("b", "vacuum"))

        assert [(child.object, child.operation, child.skipped) for child in found] == [
            ("a", "reindex", False),
            ("b", "vacuum", False),
        ]

    def test_too_many_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(inspection, "MAX_CHILDREN", 2)

        with pytest.raises(PlanError, match=r"3 children would be made of target 'app'.*at most 2"):
            children(spec("vacuum", "analyze"), table("a", "vacuum", "analyze"), table("b"))


class TestDryRun:
    def test_the_statements_are_the_reason(self) -> None:
        asked = spec("vacuum", "analyze", dry_run=True)

        found = children(asked, table("a", "analyze", "vacuum", previews=("ANALYZE a", "VACUUM a")), table("b"))

        assert [(child.skipped, child.reason) for child in found] == [
            (True, "planned: VACUUM a"),
            (True, "planned: ANALYZE a"),
            (True, "planned"),
        ]

    def test_what_another_does_as_well_is_left_out_there_too(self) -> None:
        found = children(spec("vacuum", "reindex", dry_run=True), table("a", "vacuum", "reindex", covered=COVERED))

        assert [child.reason for child in found] == ["planned", "left out: vacuum rebuilds it"]

    def test_why_it_was_chosen_is_told_too(self) -> None:
        asked = spec(dry_run=True, only_if=(only_if("rows > 1"),))

        chosen, not_chosen = children(
            asked,
            table("a", previews=("VACUUM a",), measures={"rows": 2}),
            table("b", previews=("VACUUM b",), measures={"rows": 1}),
        )

        assert chosen.reason == "planned: VACUUM a: only if rows > 1: rows 2"
        assert not_chosen.reason == "not worth its while, only if rows > 1: rows 1"


class TestThresholds:
    def test_one_that_is_not_met_skips_with_the_measure(self) -> None:
        asked = spec(only_if=(only_if("dead > 10"),))

        yes, no = children(asked, table("a", measures={"dead": 11}), table("b", measures={"dead": 10}))

        assert (yes.skipped, yes.reason, yes.before) == (False, "only if dead > 10: dead 11", {"dead": 11})
        assert (no.skipped, no.reason) == (True, "not worth its while, only if dead > 10: dead 10")
        assert no.before == {"dead": 10}

    def test_one_that_is_not_known_is_not_met(self) -> None:
        asked = spec(only_if=(only_if("age > 10"),))

        _, no = children(asked, table("a", measures={"age": 11}), table("b"))

        assert (no.skipped, no.reason) == (True, "not worth its while, only if age > 10: age not known")

    def test_a_name_that_nothing_is_measured_by_is_refused(self) -> None:
        asked = spec(only_if=(only_if("dead_ration > 1", operation="analyze"),))

        with pytest.raises(
            PlanError, match=r"'dead_ration', which .*; did you mean dead_ratio\? There are: dead_ratio, x$"
        ):
            children(asked, table("a", measures={"dead_ratio": 1}), table("b", measures={"x": 1}))

    def test_a_name_that_is_like_none_is_refused_too(self) -> None:
        with pytest.raises(PlanError, match="'zzz', which no object has a measure of; there are: none"):
            children(spec(only_if=(only_if("zzz"),)), table("a"))

    def test_a_name_that_only_these_have_no_measure_of_is_not_met(self) -> None:
        found = InspectionResult(objects=(table("a"),), measures=frozenset({"age"}))

        [child] = children_of(spec(only_if=(only_if("age > 1"),)), "app", found, {})

        assert child.skipped

    def test_where_there_is_nothing_nothing_is_refused(self) -> None:
        assert children(spec(only_if=(only_if("x > 1"),))) == ()

    @pytest.mark.parametrize(
        ("thresholds", "chosen"),
        [
            ([only_if("no"), only_if("yes")], True),
            ([only_if("yes"), only_if("no")], False),
            ([only_if("yes", operation="vacuum"), only_if("no")], True),
            ([only_if("yes", target="app"), only_if("no", operation="vacuum")], True),
            ([only_if("yes", object="pub*"), only_if("no", operation="vacuum", target="app")], True),
            ([only_if("yes", object="a", target="app"), only_if("no", object="a")], True),
            ([only_if("no", object="a", operation="vacuum"), only_if("yes", object="a")], False),
            ([only_if("no", operation="analyze")], True),
            ([only_if("no", object="b")], True),
            ([only_if("no", target="other")], True),
            ([], True),
        ],
    )
    def test_the_most_specific_counts(self, thresholds: list[Threshold], chosen: bool) -> None:
        [child] = children(spec(only_if=tuple(thresholds)), table("public.a", measures={"yes": 1, "no": 0}))

        assert child.skipped is not chosen


class TestOwnThresholds:
    """Those that a target's worker is set to."""

    def judged(self, asked: list[Threshold], own: list[Threshold]) -> PlannedChild:
        found = InspectionResult(
            objects=(table("public.a", measures={"yes": 1.0, "no": 0.0}),), only_if=tuple(own)
        )
        [child] = children_of(spec(only_if=tuple(asked)), "app", found, {})
        return child

    @pytest.mark.parametrize(
        ("asked", "own", "chosen"),
        [
            ([], [only_if("no")], False),
            ([], [only_if("no"), only_if("yes", operation="vacuum")], True),
            ([], [only_if("no", object="a"), only_if("yes", operation="vacuum")], False),
            ([], [only_if("no", operation="vacuum", object="b*")], True),
            ([], [only_if("yes"), only_if("no")], False),
            ([only_if("yes")], [only_if("no", operation="vacuum", object="public.a")], True),
            ([only_if("1")], [only_if("no")], True),
            ([only_if("no")], [only_if("yes", object="a")], False),
            ([only_if("yes", operation="analyze")], [only_if("no")], False),
            ([only_if("yes", target="other")], [only_if("no")], False),
        ],
    )
    def test_what_the_job_asks_counts_before_them_and_of_them_the_most_specific(
        self, asked: list[Threshold], own: list[Threshold], chosen: bool
    ) -> None:
        assert self.judged(asked, own).skipped is not chosen

    def test_whose_they_are_is_told(self) -> None:
        child = self.judged([], [only_if("yes > 1")])

        assert child.reason == "not worth its while, only if yes > 1 (as the target's worker is set): yes 1"

    def test_one_that_weighs_nothing_is_no_reason(self) -> None:
        chosen, skipped = self.judged([only_if("1")], []), self.judged([only_if("1 > 2")], [])

        assert (chosen.skipped, chosen.reason) == (False, "")
        assert (skipped.skipped, skipped.reason) == (True, "not worth its while, only if 1 > 2")

    @pytest.mark.parametrize(
        ("condition", "word"),
        [("yess > 1", "did you mean yes"), ("yes >", "is no condition"), ("yes in no", "use names")],
    )
    def test_a_wrong_one_that_counts_says_where_it_stands(self, condition: str, word: str) -> None:
        with pytest.raises(PlanError, match=f"only_if of the target in its worker's file .*{word}"):
            self.judged([], [only_if(condition)])

    @pytest.mark.parametrize("fields", [{"operation": "reindex"}, {"object": "other"}])
    def test_one_that_is_for_others_is_not_looked_at(self, fields: dict[str, str]) -> None:
        assert not self.judged([], [only_if("fragmentation > 1", **fields)]).skipped


class TestFits:
    @pytest.mark.parametrize(
        ("pattern", "name", "fitting"),
        [
            ("", None, True),
            ("", "a", True),
            ("a", None, False),
            ("a", "public.a", True),
            ("public.*", "public.a", True),
            ("A", "public.a", False),
            ("p*", "audit.a", False),
            ("my.table", 'public."my.table"', True),
            ("public.my.table", 'public."my.table"', True),
            ('public."my*', 'public."my.table"', True),
            ("table", 'public."my.table"', False),
            ('a"b', '"s.x"."a""b"', True),
            ('s.x.a"b', '"s.x"."a""b"', True),
            ("*", ".", True),
            ('"', '"', True),
        ],
    )
    def test_a_pattern_fits_the_whole_or_what_follows_the_last_dot(
        self, pattern: str, name: str | None, fitting: bool
    ) -> None:
        assert fits(pattern, name) is fitting


class TestPlanned:
    def report(self, **fields: Any) -> Any:
        found = InspectionResult(objects=(table("a", measures={"x": 1}),))
        return report_of(lease(), **{"inspection": found, **fields})

    def test_a_report_brings_the_children(self) -> None:
        parent = replace(parent_job(), spec=spec())

        report = planned(self.report(), replace(child_job(), operation="inspect", target="app"), parent, {})

        assert report.planned is not None
        assert [child.object for child in report.planned] == ["a"]
        assert (report.outcome, report.verdict, report.inspection) == (Outcome.COMPLETED, Verdict.EFFECTIVE, None)

    def test_one_that_cannot_be_planned_is_a_failure(self) -> None:
        parent = replace(parent_job(), spec=spec(only_if=(only_if("y"),)))

        report = planned(self.report(), replace(child_job(), operation="inspect"), parent, {})

        assert (report.outcome, report.verdict, report.planned) == (Outcome.FAILED, None, None)
        assert report.failure is not None
        assert (report.failure.reason, report.failure.category) == ("CANNOT_PLAN", FailureCategory.INVALID)
        assert not report.failure.retryable

    @pytest.mark.parametrize(
        ("operation", "fields"),
        [("vacuum", {}), ("inspect", {"outcome": Outcome.SKIPPED}), ("inspect", {"inspection": None})],
    )
    def test_others_bring_none(self, operation: str, fields: dict[str, Any]) -> None:
        report = planned(self.report(**fields), replace(child_job(), operation=operation), parent_job(), {})

        assert (report.planned, report.inspection) == (None, None)
