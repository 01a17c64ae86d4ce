import pytest

from worker_service.domain.errors import InvalidOperationError, OperationCancelledError, TargetBusyError
from worker_service.domain.outcome import FailureCategory, Outcome, ReleaseReason, Result, Verdict
from worker_service.domain.settlement import BUSY_RETRY_AFTER, StopReason, from_exception, settle

CANCELLED = Result(outcome=Outcome.CANCELLED, before={"pages": 3})
COMPLETED = Result(outcome=Outcome.COMPLETED, verdict=Verdict.EFFECTIVE)


class TestSettle:
    def test_a_timeout_is_a_failure_that_keeps_the_measures(self) -> None:
        result = settle(CANCELLED, StopReason.TIMEOUT)

        assert result.outcome is Outcome.FAILED
        assert result.failure is not None
        assert (result.failure.category, result.failure.retryable) == (FailureCategory.TIMEOUT, False)
        assert result.before == {"pages": 3}

    def test_a_drain_releases(self) -> None:
        result = settle(CANCELLED, StopReason.DRAIN)

        assert (result.outcome, result.release) == (Outcome.RELEASED, ReleaseReason.DRAIN)

    @pytest.mark.parametrize("stop", [StopReason.CANCELLED, StopReason.LOST, None])
    def test_a_cancel_stays_a_cancel_with_a_reason(self, stop: StopReason | None) -> None:
        result = settle(CANCELLED, stop)

        assert result.outcome is Outcome.CANCELLED
        assert result.reason

    @pytest.mark.parametrize("stop", [*StopReason, None])
    def test_what_completed_before_the_stop_stays_completed(self, stop: StopReason | None) -> None:
        assert settle(COMPLETED, stop) == COMPLETED

    def test_what_a_careless_engine_leaves_out_is_filled_in(self) -> None:
        assert settle(Result(outcome=Outcome.COMPLETED), None).verdict is Verdict.UNKNOWN
        assert settle(Result(outcome=Outcome.FAILED), None).failure is not None
        assert settle(Result(outcome=Outcome.RELEASED), None).release is ReleaseReason.UNSUITABLE


class TestFromException:
    def test_a_busy_target_is_released_for_a_while(self) -> None:
        result = from_exception(TargetBusyError("held"))

        assert (result.release, result.retry_after) == (ReleaseReason.TARGET_BUSY, BUSY_RETRY_AFTER)

    def test_an_invalid_operation_fails_for_good(self) -> None:
        failure = from_exception(InvalidOperationError("no such option")).failure

        assert failure is not None
        assert (failure.category, failure.retryable) == (FailureCategory.INVALID, False)

    def test_a_stop_at_a_checkpoint_is_a_cancel(self) -> None:
        assert from_exception(OperationCancelledError("stop")).outcome is Outcome.CANCELLED

    def test_anything_else_names_its_class(self) -> None:
        failure = from_exception(KeyError("x")).failure

        assert failure is not None
        assert "KeyError" in failure.message
