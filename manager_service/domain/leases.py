"""What crosses the seam between the lease calls and the store."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum, auto

from manager_service.domain.fleet import WorkerDirective
from manager_service.domain.inspection import Inspection, InspectionResult
from manager_service.domain.model import Failure, LogEntry, PlannedChild, Progress, Span
from manager_service.domain.states import Outcome, Verdict
from manager_service.domain.totals import LockWaiter


class ReleaseReason(StrEnum):
    """Why a lease went back unfinished."""

    DRAIN = auto()
    TARGET_BUSY = auto()
    UNSUITABLE = auto()


class ReportStatus(StrEnum):
    """What became of a report."""

    RECORDED = auto()
    ALREADY_RECORDED = auto()
    STALE = auto()


class LeaseDirective(StrEnum):
    """What to do with a lease."""

    CONTINUE = auto()
    CANCEL = auto()
    LOST = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to run one attempt of one child job; ``lease_id`` is its fencing token.

    ``inspection`` is set with the operation ``inspect``.
    """

    lease_id: str
    attempt: int
    child_job_id: str
    parent_job_id: str
    operation: str
    options: Mapping[str, str]
    target: str
    object: str | None
    timeout: Span | None
    inspection: Inspection | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """A wish for leases; ``sequence`` rises over every poll of a session."""

    sequence: int
    max_leases: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldLease:
    """A lease that a worker says it holds."""

    lease_id: str
    attempt: int
    progress: Progress | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """A worker's sign of life with its complete inventory.

    ``held_back`` says by name why the worker wants nothing to begin on a target, of each that it holds back.
    """

    session_id: str
    sequence: int
    draining: bool
    leases: tuple[HeldLease, ...] = ()
    held_back: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatAnswer:
    """One directive per held lease, in their order, and one for the worker.

    ``accepted`` names the live leases of the inventory as (parent job id, child job id, lease id), so that
    progress can be published under the child. ``back`` is the name of a worker that was told to be lost before.
    """

    leases: tuple[LeaseDirective, ...]
    directive: WorkerDirective
    accepted: tuple[tuple[str, str, str], ...] = ()
    back: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How one attempt ended, as its worker says.

    ``inspection`` is what a completed ``inspect`` found, ``planned`` the children that come of it; ``waiters`` are
    who waited longest for locks of the operation.
    """

    child_job_id: str
    lease_id: str
    attempt: int
    report_id: str
    outcome: Outcome
    verdict: Verdict | None = None
    reason: str = ""
    before: Mapping[str, float] = field(default_factory=dict)
    after: Mapping[str, float] = field(default_factory=dict)
    failure: Failure | None = None
    released: ReleaseReason | None = None
    retry_after: Span | None = None
    inspection: InspectionResult | None = None
    planned: tuple[PlannedChild, ...] | None = None
    waiters: tuple[LockWaiter, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportAnswer:
    """One status per report, in their order, and the next leases."""

    statuses: tuple[ReportStatus, ...]
    leases: tuple[Lease, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LogBatch:
    """Lines for an attempt's log; ``offset`` is the place of the first one, from 0."""

    session_id: str
    child_job_id: str
    lease_id: str
    attempt: int
    offset: int
    entries: tuple[LogEntry, ...]
