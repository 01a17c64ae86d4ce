from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum, auto

from worker_service.domain.inspection import InspectionResult
from worker_service.domain.lock_waits import LockWaiter

Measures = Mapping[str, float]
"""Named numbers read from the target: bytes, pages, rows, counts. A name ends in its unit if it has one."""


class Outcome(StrEnum):
    """How an attempt ended."""

    COMPLETED = auto()
    FAILED = auto()
    CANCELLED = auto()
    RELEASED = auto()
    SKIPPED = auto()


class Verdict(StrEnum):
    """What a completed operation did, read from the target's state and never from the absence of an error."""

    EFFECTIVE = auto()
    PARTIALLY_EFFECTIVE = auto()
    NO_EFFECT = auto()
    UNKNOWN = auto()


class FailureCategory(StrEnum):
    """What kind of trouble a failure was, so that policies and people can group it."""

    LOCKED = auto()
    DISK_FULL = auto()
    PERMISSION = auto()
    CORRUPT = auto()
    NOT_A_DATABASE = auto()
    SCHEMA = auto()
    IO = auto()
    TIMEOUT = auto()
    UNAVAILABLE = auto()
    INVALID = auto()
    INTERNAL = auto()


class ReleaseReason(StrEnum):
    """Why a lease went back unfinished; none of these costs a budget."""

    DRAIN = auto()
    TARGET_BUSY = auto()
    UNSUITABLE = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an attempt failed.

    ``reason`` is a constant such as ``SQLITE_FULL`` for programs,
    ``message`` a sentence that says what to do.
    """

    reason: str
    message: str
    category: FailureCategory
    retryable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How an attempt ended and what it found.

    ``verdict`` is set for a completed outcome, ``failure`` for a failed one, ``release`` for a released one.
    ``reason`` is a sentence that explains the verdict, the skip or the cancel. ``before`` and ``after`` are
    empty where nothing could be measured. ``retry_after`` asks for a delay before the next attempt. ``inspection``
    is what a completed ``inspect`` found. ``waiters`` are those who waited longest for locks of the operation.
    """

    outcome: Outcome
    verdict: Verdict | None = None
    reason: str = ""
    before: Measures = field(default_factory=dict)
    after: Measures = field(default_factory=dict)
    failure: Failure | None = None
    release: ReleaseReason | None = None
    retry_after: timedelta | None = None
    inspection: InspectionResult | None = None
    waiters: tuple[LockWaiter, ...] = ()
