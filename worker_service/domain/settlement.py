"""How an attempt is reported, decided from what the operation returned and why it was stopped."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from enum import Enum, auto

from worker_service.domain.errors import InvalidOperationError, OperationCancelledError, TargetBusyError
from worker_service.domain.lock_waits import LockWaits
from worker_service.domain.outcome import Failure, FailureCategory, Outcome, ReleaseReason, Result, Verdict

BUSY_RETRY_AFTER = timedelta(seconds=2)


class StopReason(Enum):
    """Why a running operation was told to stop."""

    CANCELLED = auto()
    TIMEOUT = auto()
    DRAIN = auto()
    LOST = auto()


def failed(reason: str, message: str, category: FailureCategory) -> Result:
    """Return the result of an attempt that failed and that another attempt would not help."""
    failure = Failure(reason=reason, message=message, category=category, retryable=False)
    return Result(outcome=Outcome.FAILED, failure=failure)


def released(release: ReleaseReason, reason: str, retry_after: timedelta | None = None) -> Result:
    """Return the result of an attempt that goes back unfinished."""
    return Result(outcome=Outcome.RELEASED, release=release, reason=reason, retry_after=retry_after)


def from_exception(error: Exception) -> Result:
    """Return the result for what escaped from an operation; anything unforeseen is a defect of its engine."""
    match error:
        case InvalidOperationError():
            return failed("INVALID_OPERATION", str(error), FailureCategory.INVALID)
        case TargetBusyError():
            return released(ReleaseReason.TARGET_BUSY, str(error), BUSY_RETRY_AFTER)
        case OperationCancelledError():
            return Result(outcome=Outcome.CANCELLED, reason=str(error))
        case _:
            message = f"The operation ended with an unexpected {type(error).__name__}: {error}"
            return failed("INTERNAL", message, FailureCategory.INTERNAL)


def settle(result: Result, stop: StopReason | None) -> Result:
    """Return what is reported: a cancelled operation is told by the reason it was stopped for.

    What completed before the stop took hold stays completed. A result that lacks what its outcome requires
    is filled in, so that a careless engine cannot make a report that the manager refuses.
    """
    if result.outcome is Outcome.CANCELLED:
        return _stopped(result, stop)
    if result.outcome is Outcome.COMPLETED and result.verdict is None:
        return replace(result, verdict=Verdict.UNKNOWN, reason=result.reason or "The engine gave no verdict.")
    if result.outcome is Outcome.FAILED and result.failure is None:
        defect = failed("INTERNAL", "The engine gave no failure.", FailureCategory.INTERNAL)
        return replace(result, failure=defect.failure)
    if result.outcome is Outcome.RELEASED and result.release is None:
        return replace(result, release=ReleaseReason.UNSUITABLE)
    return result


def with_waits(result: Result, waits: LockWaits, log: Callable[[str, str], None]) -> Result:
    """Add what was seen of waits for locks to what an operation measured, and write it to the log."""
    if not waits.watched:
        return result
    waits.tell(log)
    return replace(result, after={**result.after, **waits.measures()}, waiters=waits.waiters())


def _stopped(result: Result, stop: StopReason | None) -> Result:
    match stop:
        case StopReason.TIMEOUT:
            message = "The operation ran longer than its timeout and was interrupted."
            failure = failed("TIMEOUT", message, FailureCategory.TIMEOUT).failure
            return replace(result, outcome=Outcome.FAILED, failure=failure)
        case StopReason.DRAIN:
            reason = "The worker is stopping."
            return replace(result, outcome=Outcome.RELEASED, release=ReleaseReason.DRAIN, reason=reason)
        case _:
            return replace(result, reason=result.reason or "The operation was cancelled.")
