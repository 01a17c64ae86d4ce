from dataclasses import replace
from typing import Any

import pytest

from manager_service.domain.errors import InvalidRequestError
from manager_service.domain.fleet import OfferedOperation, OptionSpec, OptionType
from manager_service.domain.lanes import lanes
from manager_service.domain.model import SECOND, RequestedOperation, RetryPolicy, Selection, Threshold
from manager_service.domain.planning import MAX_DRY_RUN_CHILDREN, plan, planned_parent
from manager_service.domain.request import LAST_INSTANT, MAX_TARGETS, JobRequest, RetryWish, request_hash
from manager_service.domain.states import FailureMode, FailurePolicy, ParentJobState, Scope
from tests.unit.manager_doubles import NOW, known, offered, target


def request(**changes: Any) -> JobRequest:
    return replace(JobRequest(targets=("app",)), **changes)


def limited(**limits: Any) -> OfferedOperation:
    """Offer a vacuum whose one option takes few values."""
    option = OptionSpec(**{"name": "opt", "type": OptionType.INTEGER, **limits})
    return OfferedOperation(name="vacuum", options=(option,))


def operations(*names: str, **options: str) -> tuple[RequestedOperation, ...]:
    return tuple(RequestedOperation(name=name, options=options) for name in names)


def refused(asked: JobRequest, *targets: Any) -> dict[str, str]:
    """Plan what is to be refused, and return the descriptions by field."""
    with pytest.raises(InvalidRequestError) as caught:
        plan(asked, known(*(targets or (target("app"),))), NOW)
    return {violation.field: violation.description for violation in caught.value.violations}


class TestPlan:
    def test_children_come_by_target_then_by_operation(self) -> None:
        planned = plan(request(targets=("b", "a")), known(target("a"), target("b")), NOW)

        assert [(child.target, child.operation) for child in planned.children] == [
            ("b", "vacuum"),
            ("b", "analyze"),
            ("b", "reindex"),
            ("a", "vacuum"),
            ("a", "analyze"),
            ("a", "reindex"),
        ]

    @pytest.mark.parametrize(
        "changes",
        [{"scope": Scope.TABLE}, {"scope": Scope.INDEX}, {"only_if": (Threshold(condition="rows > 1"),)}],
    )
    def test_what_is_not_known_yet_is_found_out_by_one_child_of_each_target(self, changes: dict[str, Any]) -> None:
        offers = (offered("vacuum"), offered("inspect"))
        asked = request(targets=("b", "a"), operations=operations("vacuum"), dry_run=True, **changes)

        planned = plan(asked, known(target("a", *offers), target("b", *offers)), NOW)

        assert [(child.target, child.operation) for child in planned.children] == [
            ("b", "inspect"),
            ("a", "inspect"),
        ]
        assert planned.spec.inspections == 2
        assert planned.spec.operations == operations("vacuum")
        assert planned.spec.dry_run
        assert planned.spec.only_if == asked.only_if

    def test_databases_of_which_nothing_was_learned_are_taken_for_ordinary_ones(self) -> None:
        names = ("a", "b", "c")
        asked = request(targets=names, operations=operations("vacuum"))

        spans = {("a", "vacuum"): 11 * SECOND, ("b", "vacuum"): 30 * SECOND}
        learned = plan(asked, known(*map(target, names)), NOW, spans)
        unknown = plan(asked, known(*map(target, names)), NOW)

        assert [(child.expected, child.size) for child in learned.children] == [
            (11 * SECOND, 11),
            (30 * SECOND, 30),
            (None, 20),
        ]
        assert [(child.expected, child.size) for child in unknown.children] == [(None, 0)] * 3

    def test_what_takes_a_moment_is_done_in_the_order_of_the_request(self) -> None:
        asked = request(targets=("a", "b"), operations=operations("vacuum"))

        learned = plan(asked, known(target("a"), target("b")), NOW, {("a", "vacuum"): 1, ("b", "vacuum"): 900_000})

        assert [(child.expected, child.size) for child in learned.children] == [(1, 0), (900_000, 0)]

    def test_defaults_are_filled_in(self) -> None:
        spec = plan(request(), known(target("app")), NOW).spec

        assert spec.scope is Scope.DATABASE
        assert spec.retry_policy == RetryPolicy()
        assert spec.failure_policy == FailurePolicy()
        assert spec.name == "vacuum, analyze, reindex on app"

    def test_a_name_is_made_of_the_first_target_and_the_number_of_others(self) -> None:
        planned = plan(request(targets=("a", "b", "c")), known(target("a"), target("b"), target("c")), NOW)

        assert planned.spec.name == "vacuum, analyze, reindex on a and 2 more"

    def test_a_name_that_is_made_is_cut(self) -> None:
        many = tuple(f"operation-{number:03}" for number in range(40))
        offers = [offered(name) for name in many]

        planned = plan(request(operations=operations(*many)), known(target("app", *offers)), NOW)

        assert len(planned.spec.name) == 256
        assert planned.spec.name.endswith("…")

    def test_a_name_that_is_given_is_kept(self) -> None:
        assert plan(request(name="nightly"), known(target("app")), NOW).spec.name == "nightly"

    def test_what_is_set_of_a_retry_policy_replaces_its_defaults(self) -> None:
        wish = RetryWish(max_failures=1, max_backoff=SECOND)

        policy = plan(request(retry=wish), known(target("app")), NOW).spec.retry_policy

        assert policy == RetryPolicy(max_failures=1, max_backoff=SECOND)

    def test_labels_select_the_known_targets(self) -> None:
        asked = JobRequest(target_labels={"env": "prod"}, operations=operations("vacuum"))

        planned = plan(asked, known(target("a"), target("b")), NOW)

        assert [child.target for child in planned.children] == ["a", "b"]

    def test_an_unknown_target_is_planned_unchecked(self) -> None:
        planned = plan(request(operations=operations("polish", "shine")), {}, NOW)

        assert [child.operation for child in planned.children] == ["polish", "shine"]

    def test_a_planned_parent_has_no_id_and_waits(self) -> None:
        parent = planned_parent(plan(request(), known(target("app")), NOW), NOW)

        assert parent.id == ""
        assert parent.state is ParentJobState.RUNNING
        assert parent.counts.pending == 3


class TestLanes:
    def test_children_that_share_a_key_share_a_lane(self) -> None:
        assert lanes([["a"], ["a"], ["b"]]) == ("0", "0", "2")

    def test_children_without_keys_have_lanes_of_their_own(self) -> None:
        assert lanes([[], [], []]) == ("0", "1", "2")

    def test_keys_join_lanes_through_others(self) -> None:
        assert lanes([["a"], ["b"], ["c"], ["a", "b"]]) == ("0", "0", "2", "0")

    def test_lanes_join_over_many_steps(self) -> None:
        assert set(lanes([[str(n), str(n + 1)] for n in range(1_000)])) == {"0"}

    def test_two_names_of_one_file_share_a_lane(self) -> None:
        planned = plan(
            request(targets=("a", "b"), operations=operations("vacuum")),
            known(target("a", key="file:1"), target("b", key="file:1")),
            NOW,
        )

        assert len({child.lane for child in planned.children}) == 1

    def test_shared_keys_order_nothing(self) -> None:
        offers = (offered("check", key="k", exclusive=False), offered("scan", key="k", exclusive=False))

        planned = plan(request(operations=operations("check", "scan")), known(target("app", *offers)), NOW)

        assert len({child.lane for child in planned.children}) == 2

    def test_children_of_an_unknown_target_share_a_lane(self) -> None:
        planned = plan(request(targets=("a", "b")), {}, NOW)

        assert [child.lane for child in planned.children] == ["0", "0", "0", "3", "3", "3"]


class TestRequestHash:
    def test_the_request_id_is_no_part_of_it(self) -> None:
        assert request_hash(request(request_id="a")) == request_hash(request(request_id="b"))

    def test_the_order_of_labels_is_no_part_of_it(self) -> None:
        one, other = {"a": "1", "b": "2"}, {"b": "2", "a": "1"}

        assert request_hash(request(labels=one)) == request_hash(request(labels=other))

    @pytest.mark.parametrize(
        "changes",
        [
            {"name": "x"},
            {"targets": ("app", "b")},
            {"operations": operations("vacuum")},
            {"operations": operations("vacuum", into="x")},
            {"retry": RetryWish(max_failures=3)},
            {"failure_policy": FailurePolicy(mode=FailureMode.FAIL_FAST)},
            {"priority": 1},
            {"timeout": SECOND},
            {"deadline": NOW + 1},
        ],
    )
    def test_every_other_field_is_a_part_of_it(self, changes: dict[str, Any]) -> None:
        assert request_hash(request(**changes)) != request_hash(request())

    def test_a_request_of_an_older_release_has_the_same_digest(self) -> None:
        # Written down before there were selections and thresholds.
        asked = JobRequest(targets=("app",), operations=operations("vacuum"), labels={"team": "a"})

        assert request_hash(asked) == "a21397accba1eea4e518c6745c961d81924408e0ef5b66337269c3d964d4b79f"


class TestRefusedFields:
    @pytest.mark.parametrize(
        ("changes", "field", "says"),
        [
            ({"targets": ()}, "targets", "at least one"),
            ({"target_labels": {"a": "b"}}, "target_labels", "exclusive"),
            ({"targets": ("app", "app")}, "targets[1]", "twice"),
            ({"targets": ("",)}, "targets[0]", "empty"),
            ({"targets": ("  ",)}, "targets[0]", "empty"),
            ({"targets": ("a\x00b",)}, "targets[0]", "printed"),
            ({"targets": ("a" * 129,)}, "targets[0]", "129"),
            ({"request_id": ""}, "request_id", "empty"),
            ({"request_id": "a" * 129}, "request_id", "129"),
            ({"request_id": "a\n"}, "request_id", "printed"),
            ({"name": "a" * 257}, "name", "257"),
            ({"name": "\x1b[31m"}, "name", "printed"),
            ({"labels": {"a": "b" * 257}}, "labels[a]", "257"),
            ({"labels": {"": "b"}}, "labels[]", "empty"),
            ({"labels": {str(n): "" for n in range(65)}}, "labels", "65"),
            ({"operations": operations("vacuum", "vacuum")}, "operations[1].name", "twice"),
            ({"operations": operations("")}, "operations[0].name", "empty"),
            ({"operations": operations("vacuum", **{"": "x"})}, "operations[0].options[]", "empty"),
            ({"scope": Scope.TABLE}, "scope", "target 'app' cannot be inspected by its worker"),
            ({"only_if": (Threshold(condition="a"),)}, "only_if", "cannot be inspected"),
            ({"operations": operations("inspect")}, "operations[0].name", "comes by itself"),
            ({"selection": Selection(include=("a",))}, "selection", "does not go with the scope database"),
            ({"selection": Selection(include=("",))}, "selection.include[0]", "empty"),
            ({"selection": Selection(exclude=("a",) * 101)}, "selection.exclude", "at most 100"),
            ({"only_if": (Threshold(condition="a ="),)}, "only_if[0].condition", "no condition"),
            (
                {"only_if": (Threshold(condition="a", object="o"),)},
                "only_if[0].object",
                "does not go with the scope database",
            ),
            ({"only_if": (Threshold(condition="a", target="b"),)}, "only_if[0].target", "not among the targets"),
            (
                {"only_if": (Threshold(condition="a", operation="vacum"),)},
                "only_if[0].operation",
                "not among the operations; did you mean vacuum?",
            ),
            (
                {"only_if": (Threshold(condition="a", operation="b"),), "operations": operations("vacuum")},
                "only_if[0].operation",
                "not among the operations",
            ),
            ({"only_if": (Threshold(condition="a"),) * 101}, "only_if", "at most 100"),
            ({"priority": 101}, "priority", "from -100 to 100"),
            ({"priority": -101}, "priority", "from -100 to 100"),
            ({"max_parallel": -1}, "max_parallel", "from 0"),
            ({"timeout": 0}, "timeout", "0.001 s"),
            ({"timeout": -SECOND}, "timeout", "-1 s"),
            ({"timeout": 315_576_000_000 * SECOND}, "timeout", "ten years"),
            ({"deadline": NOW}, "deadline", "past"),
            ({"deadline": LAST_INSTANT + 1}, "deadline", "9999"),
            ({"retry": RetryWish(max_failures=0)}, "retry_policy.max_failures", "from 1 to 100"),
            ({"retry": RetryWish(max_losses=101)}, "retry_policy.max_losses", "from 1 to 100"),
            ({"retry": RetryWish(backoff_multiplier=0.5)}, "retry_policy.backoff_multiplier", "from 1 to 10"),
            ({"retry": RetryWish(backoff_multiplier=float("nan"))}, "retry_policy.backoff_multiplier", "nan"),
            ({"retry": RetryWish(initial_backoff=-1)}, "retry_policy.initial_backoff", "from 0"),
            ({"retry": RetryWish(max_backoff=10**18)}, "retry_policy.max_backoff", "ten years"),
            (
                {"failure_policy": FailurePolicy(mode=FailureMode.MAX_FAILED, max_failed_children=-1)},
                "failure_policy.max_failed_children",
                "from 0",
            ),
        ],
    )
    def test_each_is_named(self, changes: dict[str, Any], field: str, says: str) -> None:
        assert says in refused(request(**changes))[field]

    def test_all_are_told_at_once(self) -> None:
        assert set(refused(request(priority=200, max_parallel=-1, name="\n"))) == {
            "priority",
            "max_parallel",
            "name",
        }

    def test_too_many_targets_are_counted_alone(self) -> None:
        asked = request(targets=tuple(str(number) for number in range(MAX_TARGETS + 1)))

        assert list(refused(asked)) == ["targets"]

    def test_beyond_a_hundred_they_are_counted(self) -> None:
        violations = refused(request(targets=tuple("\n" + str(number) for number in range(150))))

        assert violations["request"] == "50 more fields are wrong"


class TestRefusedOperations:
    def test_labels_that_match_nothing(self) -> None:
        with pytest.raises(InvalidRequestError, match="target_labels: no known target"):
            plan(JobRequest(target_labels={"a": "b"}), {}, NOW)

    def test_an_unknown_operation_is_told_with_the_nearest(self) -> None:
        assert "did you mean vacuum" in refused(request(operations=operations("vacum")))["operations[0].name"]

    def test_an_operation_unlike_any_is_told_with_all(self) -> None:
        text = refused(request(operations=operations("zzz")))["operations[0].name"]

        assert "there are analyze, reindex, vacuum" in text

    def test_a_target_that_does_not_offer_it_is_named(self) -> None:
        other = target("b", offered("analyze"))

        text = refused(request(targets=("app", "b"), operations=operations("vacuum")), target("app"), other)

        assert "target 'b' does not offer 'vacuum'" in text["operations[0].name"]

    def test_of_many_targets_three_are_named(self) -> None:
        others = [target(f"b{number}", offered("analyze")) for number in range(5)]
        names = ("app", *(item.name for item in others))

        text = refused(request(targets=names, operations=operations("vacuum")), target("app"), *others)

        assert "'b0', 'b1', 'b2' and 2 more" in text["operations[0].name"]

    def test_an_unknown_option_is_told_with_the_nearest(self) -> None:
        offers = offered("vacuum", options={"into": OptionType.STRING})

        text = refused(request(operations=operations("vacuum", intro="x")), target("app", offers))

        assert "did you mean into" in text["operations[0].options[intro]"]

    def test_an_option_where_there_is_none(self) -> None:
        text = refused(request(operations=operations("vacuum", full="true")))

        assert text["operations[0].options[full]"].endswith("target 'app'")

    @pytest.mark.parametrize(
        ("kind", "text", "says"),
        [
            (OptionType.BOOLEAN, "yes", "true or false"),
            (OptionType.BOOLEAN, "True", "true or false"),
            (OptionType.INTEGER, "1.5", "whole number"),
            (OptionType.INTEGER, "٣", "whole number"),
            (OptionType.INTEGER, "", "whole number"),
        ],
    )
    def test_a_mistyped_option(self, kind: OptionType, text: str, says: str) -> None:
        offers = offered("vacuum", options={"opt": kind})

        found = refused(request(operations=operations("vacuum", opt=text)), target("app", offers))

        assert says in found["operations[0].options[opt]"]

    @pytest.mark.parametrize(
        ("kind", "text"),
        [(OptionType.BOOLEAN, "false"), (OptionType.INTEGER, "-12"), (OptionType.STRING, "any thing")],
    )
    def test_a_well_typed_option_is_taken(self, kind: OptionType, text: str) -> None:
        offers = offered("vacuum", options={"opt": kind})

        planned = plan(request(operations=operations("vacuum", opt=text)), known(target("app", offers)), NOW)

        assert planned.children[0].options == {"opt": text}

    @pytest.mark.parametrize(
        ("limits", "text", "says"),
        [
            ({"minimum": 0, "maximum": 9}, "-1", "is '-1', which is not a whole number from 0 to 9"),
            ({"minimum": 0, "maximum": 9}, "10", "is '10', which is not a whole number from 0 to 9"),
            ({"minimum": 0, "maximum": 9}, "9" * 30, "not a whole number from 0 to 9"),
            ({"minimum": 1}, "0", "not a whole number of at least 1"),
            ({"maximum": 9}, "10", "not a whole number of at most 9"),
            ({"type": OptionType.STRING, "values": ("full", "passive")}, "none", "not one of full, passive"),
        ],
    )
    def test_a_value_that_an_option_does_not_take(self, limits: dict[str, Any], text: str, says: str) -> None:
        found = refused(request(operations=operations("vacuum", opt=text)), target("app", limited(**limits)))

        assert found["operations[0].options[opt]"].endswith(says)

    @pytest.mark.parametrize(
        ("limits", "text"),
        [
            ({"minimum": 0, "maximum": 9}, "0"),
            ({"minimum": 0, "maximum": 9}, "9"),
            ({"minimum": -9}, "-9"),
            ({"type": OptionType.STRING, "values": ("full", "passive")}, "FULL"),
        ],
    )
    def test_a_value_that_an_option_takes(self, limits: dict[str, Any], text: str) -> None:
        asked = request(operations=operations("vacuum", opt=text))

        planned = plan(asked, known(target("app", limited(**limits))), NOW)

        assert planned.children[0].options == {"opt": text}

    def test_more_than_a_million_children(self) -> None:
        many = operations(*(f"o{number}" for number in range(21)))
        asked = request(targets=tuple(f"t{number}" for number in range(50_000)), operations=many)

        with pytest.raises(InvalidRequestError, match="1050000 children; a parent job has at most 1000000"):
            plan(asked, {}, NOW)

    def test_a_dry_run_of_very_many_children(self) -> None:
        asked = request(targets=tuple(f"t{number}" for number in range(40_000)), dry_run=True)

        with pytest.raises(InvalidRequestError, match=f"at most {MAX_DRY_RUN_CHILDREN}"):
            plan(asked, {}, NOW)
