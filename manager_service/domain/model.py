"""The nouns of the manager. Times are microseconds since the Unix epoch in UTC, spans are microseconds."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from manager_service.domain.states import (
    ChildJobState,
    Counts,
    FailureCategory,
    FailurePolicy,
    Outcome,
    ParentJobState,
    Scope,
    Verdict,
    WaitReason,
)
from manager_service.domain.totals import LockWaiter, Totals

Instant = int
Span = int

MILLISECOND: Span = 1_000
SECOND: Span = 1_000_000

PARENT_JOB_TYPE = "database_maintenance_parent"
CHILD_JOB_TYPE = "database_maintenance_operation"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestedOperation:
    """An operation of a request, with its options as text."""

    name: str
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which objects are meant, by patterns of their names; without any all are."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """When an operation is worth its while; ``operation``, ``target`` and ``object`` are empty for all."""

    condition: str
    operation: str = ""
    target: str = ""
    object: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and when a child job is tried again; the two budgets are counted apart."""

    max_failures: int = 3
    max_losses: int = 3
    initial_backoff: Span = 10 * SECOND
    max_backoff: Span = 600 * SECOND
    backoff_multiplier: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """What a client asked for, with every default filled in. Stored with the parent job.

    ``inspections`` is how many ``inspect`` children were made at first: while there are no others, the parent job
    is planning.
    """

    name: str
    operations: tuple[RequestedOperation, ...]
    scope: Scope = Scope.DATABASE
    retry_policy: RetryPolicy = field(default_factory=RetryPolicy)
    failure_policy: FailurePolicy = field(default_factory=FailurePolicy)
    priority: int = 0
    max_parallel: int = 0
    timeout: Span | None = None
    deadline: Instant | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    selection: Selection = field(default_factory=Selection)
    only_if: tuple[Threshold, ...] = ()
    dry_run: bool = False
    inspections: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedChild:
    """A child job to be made.

    Children with the same ``lane`` share an exclusive lock key: they run one after the other, in the order of
    the plan. ``size`` orders lanes, the largest first: bytes, or a time where durations were learned, the
    same in a whole plan; 0 is unknown. ``expected`` is how long it is expected to take. ``locks`` are the keys it
    holds, each exclusive or not; without any it holds those that are offered for the whole database. One that is
    ``skipped`` ends when it is made, for the ``reason``; of another that tells why it was chosen. ``before`` is
    what was measured.
    """

    target: str
    operation: str
    options: Mapping[str, str] = field(default_factory=dict)
    object: str | None = None
    lane: str
    size: int = 0
    expected: Span | None = None
    locks: Mapping[str, bool] = field(default_factory=dict)
    skipped: bool = False
    reason: str = ""
    before: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A parent job and its children, ready to be stored in one transaction.

    ``request_hash`` is a digest of the request as the client sent it: the same ``request_id`` with another
    digest is refused.
    """

    request_id: str | None
    request_hash: str
    spec: JobSpec
    children: tuple[PlannedChild, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentJob:
    """A parent job as it stands."""

    id: str
    spec: JobSpec
    state: ParentJobState
    counts: Counts
    sequence: int
    paused: bool
    cancel_requested: bool
    round: int
    create_time: Instant
    start_time: Instant | None
    end_time: Instant | None
    totals: Totals = field(default_factory=Totals)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an attempt failed: a constant for programs, a sentence for people."""

    reason: str
    message: str
    category: FailureCategory
    retryable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an operation is; ``done`` and ``total`` are ``None`` where the engine does not tell."""

    phase: str
    done: int | None = None
    total: int | None = None
    unit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningProgress:
    """How far an attempt of a child job is."""

    parent_job_id: str
    child_job_id: str
    attempt: int
    progress: Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildJob:
    """A child job as it stands.

    ``wait_reason`` and ``wait_detail`` are set while it is pending, ``worker_name`` while it is live, ``progress``
    when the worker of the live attempt told it, ``expected`` when it has not ended by an attempt and durations of
    its operation on its object were learned. ``remaining`` is an estimate of how long it still takes, and of no
    store. ``waiters`` are those of the last attempt that ended.
    """

    id: str
    parent_job_id: str
    operation: str
    options: Mapping[str, str]
    target: str
    object: str | None
    state: ChildJobState
    verdict: Verdict | None
    reason: str
    attempts: int
    failures: int
    losses: int
    failure: Failure | None
    before: Mapping[str, float]
    after: Mapping[str, float]
    version: int
    position: int
    wait_reason: WaitReason | None
    wait_detail: str
    available_time: Instant | None
    worker_name: str
    create_time: Instant
    start_time: Instant | None
    end_time: Instant | None
    progress: Progress | None = None
    remaining: Span | None = None
    waiters: tuple[LockWaiter, ...] = ()
    expected: Span | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StaleReport:
    """A report that came after its lease was gone; kept for audit."""

    report_id: str
    outcome: Outcome
    reason: str
    create_time: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try of a child job; ``outcome`` is ``None`` while it is live or when its worker was lost."""

    attempt: int
    worker_name: str
    lease_id: str
    outcome: Outcome | None
    failure: Failure | None
    reason: str
    create_time: Instant
    start_time: Instant | None
    end_time: Instant | None
    stale_reports: tuple[StaleReport, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """A line of an attempt's log; ``time`` is the worker's clock, for people only."""

    time: Instant
    level: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPage:
    """Some entries of an attempt's log; ``finished`` tells that the attempt has ended, so no more will come."""

    attempt: int
    offset: int
    entries: tuple[LogEntry, ...]
    finished: bool
