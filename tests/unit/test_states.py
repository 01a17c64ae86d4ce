from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager_service.domain.states import (
    ChildJobState,
    Counts,
    FailureMode,
    FailurePolicy,
    ParentJobState,
    parent_job_state,
)

CONTINUE = FailurePolicy()
FAIL_FAST = FailurePolicy(mode=FailureMode.FAIL_FAST)
TWO_MAY_FAIL = FailurePolicy(mode=FailureMode.MAX_FAILED, max_failed_children=2)

counts = st.builds(Counts, **{field.name: st.integers(0, 3) for field in fields(Counts)})
policies = st.sampled_from([CONTINUE, FAIL_FAST, TWO_MAY_FAIL])


class TestParentJobState:
    def test_a_parent_of_no_children_completes_at_once(self) -> None:
        assert parent_job_state(Counts(), CONTINUE, cancel_requested=False) is ParentJobState.COMPLETED

    @given(counts, policies, st.booleans())
    def test_it_is_final_exactly_when_no_child_is_open(
        self, found: Counts, policy: FailurePolicy, cancel_requested: bool
    ) -> None:
        state = parent_job_state(found, policy, cancel_requested=cancel_requested)

        assert state.final == (found.open == 0)

    @given(counts, policies, st.booleans())
    def test_it_is_completed_only_if_every_child_completed_or_was_skipped(
        self, found: Counts, policy: FailurePolicy, cancel_requested: bool
    ) -> None:
        state = parent_job_state(found, policy, cancel_requested=cancel_requested)

        if state is ParentJobState.COMPLETED:
            assert found.completed + found.skipped == found.total

    @pytest.mark.parametrize(
        ("found", "policy", "cancel_requested", "state"),
        [
            (Counts(pending=1), CONTINUE, False, ParentJobState.RUNNING),
            (Counts(leased=1), CONTINUE, True, ParentJobState.CANCELLING),
            (Counts(running=1, failed=1), FAIL_FAST, False, ParentJobState.CANCELLING),
            (Counts(running=1, failed=2), TWO_MAY_FAIL, False, ParentJobState.RUNNING),
            (Counts(running=1, failed=3), TWO_MAY_FAIL, False, ParentJobState.CANCELLING),
            (Counts(completed=2, failed=1), CONTINUE, False, ParentJobState.PARTIALLY_COMPLETED),
            (Counts(skipped=2, failed=1), CONTINUE, False, ParentJobState.PARTIALLY_COMPLETED),
            (Counts(failed=2), CONTINUE, False, ParentJobState.FAILED),
            (Counts(completed=5, failed=1), FAIL_FAST, False, ParentJobState.FAILED),
            (Counts(completed=5, failed=1, cancelled=1), CONTINUE, True, ParentJobState.CANCELLED),
            (Counts(completed=5), CONTINUE, True, ParentJobState.COMPLETED),
            (Counts(cancelled=2), CONTINUE, False, ParentJobState.CANCELLED),
            (Counts(cancelled=2, completed=1), CONTINUE, False, ParentJobState.PARTIALLY_COMPLETED),
        ],
    )
    def test_it_follows_from_counts_policy_and_cancel(
        self, found: Counts, policy: FailurePolicy, cancel_requested: bool, state: ParentJobState
    ) -> None:
        assert parent_job_state(found, policy, cancel_requested=cancel_requested) is state

    def test_a_job_without_children_yet_is_planning(self) -> None:
        state = parent_job_state(Counts(), CONTINUE, cancel_requested=False, planning=True)

        assert state is ParentJobState.PLANNING


class TestCounts:
    def test_a_move_keeps_the_total(self) -> None:
        before = Counts(pending=3, completed=1)

        after = before.moved({ChildJobState.PENDING: -2, ChildJobState.LEASED: 2})

        assert (after.pending, after.leased, after.total) == (1, 2, before.total)

    @pytest.mark.parametrize("state", ChildJobState)
    def test_every_state_is_moved(self, state: ChildJobState) -> None:
        before = Counts(**{one.value: 5 for one in ChildJobState})

        after = before.moved({state: 2})

        assert {one: getattr(after, one.value) for one in ChildJobState} == {
            one: 7 if one is state else 5 for one in ChildJobState
        }

    def test_every_child_state_is_counted(self) -> None:
        assert {field.name for field in fields(Counts)} == {state.value for state in ChildJobState}

    def test_live_and_final_states_are_told_apart(self) -> None:
        live = {state for state in ChildJobState if state.live}
        final = {state for state in ChildJobState if state.final}

        assert live | final | {ChildJobState.PENDING} == set(ChildJobState)
        assert not live & final
