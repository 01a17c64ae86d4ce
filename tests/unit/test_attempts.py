from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager_service.domain.attempts import Budget, Loss, Stop, backoff, end_by_loss, end_by_report
from manager_service.domain.leases import ReleaseReason, Report
from manager_service.domain.model import SECOND, Failure, RetryPolicy
from manager_service.domain.states import ChildJobState, FailureCategory, Outcome, Verdict

NOW = 1_000 * SECOND
FRESH = Budget(failures=0, losses=0, policy=RetryPolicy())
CANCELLED = replace(FRESH, stop=Stop.CANCEL, stop_reason="cancelled by the operator")
OVERDUE = replace(FRESH, stop=Stop.DEADLINE)
LOCKED = Failure(reason="SQLITE_BUSY", message="locked", category=FailureCategory.LOCKED, retryable=True)
CORRUPT = Failure(reason="SQLITE_CORRUPT", message="damaged", category=FailureCategory.CORRUPT, retryable=False)


def report(outcome: Outcome, **changes: Any) -> Report:
    given_report = Report(child_job_id="c", lease_id="l", attempt=1, report_id="r", outcome=outcome)
    return replace(given_report, **changes)


class TestEndByReport:
    def test_a_completed_operation_keeps_its_verdict_and_measures(self) -> None:
        done = report(
            Outcome.COMPLETED, verdict=Verdict.EFFECTIVE, reason="freed", before={"a": 2}, after={"a": 1}
        )

        ending = end_by_report(FRESH, done, now=NOW, jitter=0.5)

        assert ending.state is ChildJobState.COMPLETED
        assert (ending.verdict, ending.reason) == (Verdict.EFFECTIVE, "freed")
        assert (ending.before, ending.after) == ({"a": 2}, {"a": 1})

    def test_work_that_was_done_stays_done_when_a_cancel_came_too_late(self) -> None:
        done = report(Outcome.COMPLETED, verdict=Verdict.EFFECTIVE)

        assert end_by_report(CANCELLED, done, now=NOW, jitter=0).state is ChildJobState.COMPLETED

    def test_a_retryable_failure_waits_for_another_attempt(self) -> None:
        ending = end_by_report(FRESH, report(Outcome.FAILED, failure=LOCKED), now=NOW, jitter=0.5)

        assert (ending.state, ending.failures) == (ChildJobState.PENDING, 1)
        assert ending.available_time == NOW + 10 * SECOND
        assert ending.failure == LOCKED

    def test_the_workers_own_wait_comes_first(self) -> None:
        failed = report(Outcome.FAILED, failure=LOCKED, retry_after=3 * SECOND)

        assert end_by_report(FRESH, failed, now=NOW, jitter=0.5).available_time == NOW + 3 * SECOND

    def test_the_last_failure_of_the_budget_is_final(self) -> None:
        spent = replace(FRESH, failures=2)

        ending = end_by_report(spent, report(Outcome.FAILED, failure=LOCKED), now=NOW, jitter=0.5)

        assert (ending.state, ending.available_time) == (ChildJobState.FAILED, None)

    def test_a_failure_that_no_retry_helps_is_final_at_once(self) -> None:
        ending = end_by_report(FRESH, report(Outcome.FAILED, failure=CORRUPT), now=NOW, jitter=0.5)

        assert (ending.state, ending.reason) == (ChildJobState.FAILED, "damaged")

    def test_a_cancelled_child_is_not_tried_again(self) -> None:
        ending = end_by_report(CANCELLED, report(Outcome.FAILED, failure=LOCKED), now=NOW, jitter=0.5)

        assert ending.state is ChildJobState.CANCELLED
        assert "locked" in ending.reason

    def test_a_cancel_that_was_asked_for_ends_the_child(self) -> None:
        ending = end_by_report(CANCELLED, report(Outcome.CANCELLED, reason="interrupted"), now=NOW, jitter=0.5)

        assert ending.state is ChildJobState.CANCELLED
        assert ending.reason == "cancelled by the operator: interrupted"

    def test_a_cancel_that_nobody_asked_for_is_a_failure(self) -> None:
        ending = end_by_report(FRESH, report(Outcome.CANCELLED), now=NOW, jitter=0.5)

        assert (ending.state, ending.failures) == (ChildJobState.PENDING, 1)
        assert ending.failure is not None
        assert ending.failure.reason == "CANCELLED_BY_WORKER"

    def test_the_deadline_fails_what_it_stopped(self) -> None:
        ending = end_by_report(OVERDUE, report(Outcome.CANCELLED), now=NOW, jitter=0.5)

        assert ending.state is ChildJobState.FAILED
        assert ending.failure is not None
        assert ending.failure.reason == "DEADLINE_EXCEEDED"

    def test_nothing_to_do_is_skipped(self) -> None:
        ending = end_by_report(FRESH, report(Outcome.SKIPPED, reason="empty file"), now=NOW, jitter=0.5)

        assert (ending.state, ending.reason) == (ChildJobState.SKIPPED, "empty file")

    @pytest.mark.parametrize(
        ("released", "wait"),
        [(ReleaseReason.DRAIN, 0), (ReleaseReason.TARGET_BUSY, 2), (ReleaseReason.UNSUITABLE, 5)],
    )
    def test_a_release_costs_no_budget(self, released: ReleaseReason, wait: int) -> None:
        ending = end_by_report(FRESH, report(Outcome.RELEASED, released=released), now=NOW, jitter=0.5)

        assert (ending.state, ending.failures, ending.losses) == (ChildJobState.PENDING, 0, 0)
        assert ending.available_time == NOW + wait * SECOND

    def test_a_release_of_a_cancelled_child_ends_it(self) -> None:
        ending = end_by_report(CANCELLED, report(Outcome.RELEASED), now=NOW, jitter=0.5)

        assert ending.state is ChildJobState.CANCELLED


class TestEndByLoss:
    def test_an_expired_lease_costs_a_loss_and_no_failure(self) -> None:
        ending = end_by_loss(FRESH, Loss.EXPIRED, now=NOW, jitter=0.5)

        assert (ending.state, ending.failures, ending.losses) == (ChildJobState.PENDING, 0, 1)

    def test_the_last_loss_of_the_budget_is_final(self) -> None:
        ending = end_by_loss(replace(FRESH, losses=2), Loss.EXPIRED, now=NOW, jitter=0.5)

        assert ending.state is ChildJobState.FAILED
        assert ending.failure is not None
        assert ending.failure.category is FailureCategory.WORKER_LOST

    @pytest.mark.parametrize("loss", [Loss.UNACCEPTED, Loss.UNLISTED, Loss.CLOSED])
    def test_other_losses_are_free_however_often(self, loss: Loss) -> None:
        ending = end_by_loss(replace(FRESH, losses=2), loss, now=NOW, jitter=0.5)

        assert (ending.state, ending.losses) == (ChildJobState.PENDING, 2)
        assert ending.available_time == NOW

    def test_a_lost_child_that_was_cancelled_ends(self) -> None:
        assert end_by_loss(CANCELLED, Loss.EXPIRED, now=NOW, jitter=0.5).state is ChildJobState.CANCELLED


class TestBackoff:
    @given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
    def test_it_grows_to_the_longest_wait_and_stays_within_its_jitter(self, tries: int, jitter: float) -> None:
        policy = RetryPolicy()

        wait = backoff(policy, tries, jitter=jitter)

        assert 0.8 * policy.initial_backoff - 1 <= wait <= 1.2 * policy.max_backoff

    def test_it_doubles(self) -> None:
        waits = [backoff(RetryPolicy(), tries, jitter=0.5) // SECOND for tries in (1, 2, 3)]

        assert waits == [10, 20, 40]
