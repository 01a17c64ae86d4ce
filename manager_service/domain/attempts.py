"""What the end of an attempt makes of its child job. Pure: the store carries the decision out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum, auto
from typing import assert_never

from manager_service.domain.leases import ReleaseReason, Report
from manager_service.domain.model import SECOND, Failure, Instant, RetryPolicy, Span
from manager_service.domain.states import ChildJobState, FailureCategory, Outcome, Verdict

_JITTER = 0.2
_RELEASE_WAIT: Mapping[ReleaseReason, Span] = {
    ReleaseReason.DRAIN: 0,
    ReleaseReason.TARGET_BUSY: 2 * SECOND,
    ReleaseReason.UNSUITABLE: 5 * SECOND,
}


class Stop(StrEnum):
    """Why a live child is asked to stop."""

    CANCEL = auto()
    DEADLINE = auto()


class Loss(StrEnum):
    """How a lease was lost without a report.

    EXPIRED costs the losses budget. The others cost nothing: the worker never began (UNACCEPTED), or said
    itself, by leaving the lease out of its inventory (UNLISTED) or by closing its session (CLOSED), that it
    does not run it.
    """

    EXPIRED = auto()
    UNACCEPTED = auto()
    UNLISTED = auto()
    CLOSED = auto()


_LOSS_TEXT: Mapping[Loss, str] = {
    Loss.EXPIRED: "the worker was lost: its lease expired",
    Loss.UNACCEPTED: "the worker never accepted the lease",
    Loss.UNLISTED: "the worker no longer listed the lease",
    Loss.CLOSED: "the worker closed its session",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a live child has spent in this round, and what stops it."""

    failures: int
    losses: int
    policy: RetryPolicy
    stop: Stop | None = None
    stop_reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What becomes of a child job when its attempt ends.

    ``available_time`` is set when ``state`` is PENDING. ``reason`` explains the state; ``failure`` is the
    attempt's failure, kept on the child.
    """

    state: ChildJobState
    failures: int
    losses: int
    verdict: Verdict | None = None
    reason: str = ""
    failure: Failure | None = None
    before: Mapping[str, float] = field(default_factory=dict)
    after: Mapping[str, float] = field(default_factory=dict)
    available_time: Instant | None = None


def backoff(policy: RetryPolicy, tries: int, *, jitter: float) -> Span:
    """Return the wait after the given number of spent tries; ``jitter`` is a random number from 0 to 1."""
    try:
        wait = policy.initial_backoff * policy.backoff_multiplier ** max(0, tries - 1)
    except OverflowError:
        wait = float(policy.max_backoff)
    return int(min(wait, policy.max_backoff) * (1 - _JITTER + 2 * _JITTER * jitter))


def end_by_report(budget: Budget, report: Report, *, now: Instant, jitter: float) -> Ending:
    """Decide what a report of the live lease makes of the child job."""
    match report.outcome:
        case Outcome.COMPLETED:
            return _final(budget, report, ChildJobState.COMPLETED)
        case Outcome.SKIPPED:
            return _final(budget, report, ChildJobState.SKIPPED)
        case Outcome.CANCELLED:
            return _stopped(budget, report) if budget.stop else _failed(budget, report, now, jitter)
        case Outcome.RELEASED:
            return _stopped(budget, report) if budget.stop else _released(budget, report, now)
        case Outcome.FAILED:
            return _failed(budget, report, now, jitter)
        case _:
            assert_never(report.outcome)


def end_by_loss(budget: Budget, loss: Loss, *, now: Instant, jitter: float) -> Ending:
    """Decide what the loss of the live lease makes of the child job."""
    losses = budget.losses + (loss is Loss.EXPIRED)
    if budget.stop:
        return _stop_ending(budget, losses=losses, detail=_LOSS_TEXT[loss])
    if losses >= budget.policy.max_losses and loss is Loss.EXPIRED:
        failure = Failure(
            reason="WORKER_LOST",
            message=f"{_LOSS_TEXT[loss]}, {losses} times; look at the worker's log, then retry the job",
            category=FailureCategory.WORKER_LOST,
            retryable=True,
        )
        return Ending(
            state=ChildJobState.FAILED,
            failures=budget.failures,
            losses=losses,
            reason=failure.message,
            failure=failure,
        )
    wait = backoff(budget.policy, losses, jitter=jitter) if loss is Loss.EXPIRED else 0
    return Ending(
        state=ChildJobState.PENDING,
        failures=budget.failures,
        losses=losses,
        reason=_LOSS_TEXT[loss],
        available_time=now + wait,
    )


def _final(budget: Budget, report: Report, state: ChildJobState) -> Ending:
    return Ending(
        state=state,
        failures=budget.failures,
        losses=budget.losses,
        verdict=report.verdict,
        reason=report.reason,
        before=report.before,
        after=report.after,
    )


def _stopped(budget: Budget, report: Report) -> Ending:
    ending = _stop_ending(budget, losses=budget.losses, detail=report.reason)
    return Ending(
        state=ending.state,
        failures=budget.failures,
        losses=budget.losses,
        reason=ending.reason,
        failure=ending.failure,
        before=report.before,
        after=report.after,
    )


def _stop_ending(budget: Budget, *, losses: int, detail: str) -> Ending:
    if budget.stop is Stop.DEADLINE:
        failure = deadline_failure()
        return Ending(
            state=ChildJobState.FAILED,
            failures=budget.failures,
            losses=losses,
            reason=failure.message,
            failure=failure,
        )
    text = budget.stop_reason or "cancelled"
    return Ending(
        state=ChildJobState.CANCELLED,
        failures=budget.failures,
        losses=losses,
        reason=f"{text}: {detail}" if detail else text,
    )


def deadline_failure() -> Failure:
    """Return the failure of a child whose parent job's deadline passed."""
    return Failure(
        reason="DEADLINE_EXCEEDED",
        message="the job's deadline passed before the operation ended",
        category=FailureCategory.TIMEOUT,
        retryable=False,
    )


def _released(budget: Budget, report: Report, now: Instant) -> Ending:
    wait = report.retry_after
    if wait is None:
        wait = _RELEASE_WAIT[report.released] if report.released else 0
    return Ending(
        state=ChildJobState.PENDING,
        failures=budget.failures,
        losses=budget.losses,
        reason=report.reason or f"released: {report.released or 'no reason given'}",
        available_time=now + wait,
    )


def _failed(budget: Budget, report: Report, now: Instant, jitter: float) -> Ending:
    failures = budget.failures + 1
    failure = report.failure or Failure(
        reason="CANCELLED_BY_WORKER",
        message=report.reason or "the worker stopped the operation without being asked",
        category=FailureCategory.INTERNAL,
        retryable=True,
    )
    again = failure.retryable and failures < budget.policy.max_failures
    if again and budget.stop:
        return _stop_ending(budget, losses=budget.losses, detail=f"its last attempt failed: {failure.message}")
    wait = report.retry_after
    if wait is None:
        wait = backoff(budget.policy, failures, jitter=jitter)
    return Ending(
        state=ChildJobState.PENDING if again else ChildJobState.FAILED,
        failures=failures,
        losses=budget.losses,
        reason=failure.message,
        failure=failure,
        before=report.before,
        after=report.after,
        available_time=now + wait if again else None,
    )
