"""The seam to the manager: what a worker says and is told, free of the wire."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Protocol

from worker_service.domain.operation import Operation, Progress
from worker_service.domain.outcome import Result
from worker_service.domain.target import Target, TargetDescription


class WorkerState(Enum):
    """How the worker is, as its heartbeats tell."""

    READY = auto()
    DRAINING = auto()


class LeaseDirective(Enum):
    """What the manager wants done with one lease."""

    CONTINUE = auto()
    CANCEL = auto()
    LOST = auto()


class WorkerDirective(Enum):
    """What the manager wants of the worker as a whole."""

    NONE = auto()
    DRAIN = auto()
    TERMINATE = auto()


class ReportStatus(Enum):
    """What became of a report."""

    RECORDED = auto()
    ALREADY_RECORDED = auto()
    STALE = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """Who the worker is and what it serves."""

    worker_name: str
    instance_id: str
    build: str
    host: str
    pid: int
    slots: int
    labels: Mapping[str, str] = field(default_factory=dict)
    targets: tuple[tuple[Target, TargetDescription], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A registration that the manager accepted, and the rhythm it asks for."""

    session_id: str
    heartbeat_interval: timedelta
    lease_duration: timedelta
    poll_window: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to run one attempt; ``lease_id`` is the fencing token."""

    lease_id: str
    operation: Operation
    lease_duration: timedelta
    accept_within: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldLease:
    """A lease as a heartbeat lists it."""

    lease_id: str
    attempt: int
    progress: Progress | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatAnswer:
    """What to do with each listed lease, and with the worker."""

    directives: Mapping[str, LeaseDirective]
    directive: WorkerDirective
    lease_duration: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How one attempt ended; ``report_id`` is made once and repeated by every retry."""

    report_id: str
    lease_id: str
    child_job_id: str
    attempt: int
    result: Result


@dataclass(frozen=True, slots=True, kw_only=True)
class NextPoll:
    """The wish for further leases that travels with a report."""

    sequence: int
    max_leases: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportAnswer:
    """What became of the reports, by ``report_id``, and the next leases."""

    statuses: Mapping[str, ReportStatus]
    leases: tuple[Lease, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """One line of an attempt's log."""

    time: datetime
    level: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LogBatch:
    """Consecutive lines of one attempt's log; ``offset`` is the place of the first, from 0."""

    child_job_id: str
    lease_id: str
    attempt: int
    offset: int
    lines: tuple[LogLine, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogAnswer:
    """Where the attempt's log goes on, or that its lease is gone."""

    next_offset: int
    lost: bool = False


class ManagerPort(Protocol):
    """The manager as the worker sees it.

    Every method may raise ``ManagerUnavailableError``; those that name a session also ``SessionUnknownError``
    and ``RequestRefusedError``. Each is safe to repeat with equal arguments.
    """

    async def register(self, registration: Registration) -> Session:
        """Open the session; raise ``RegistrationRefusedError`` or ``SessionSupersededError``."""

    async def acquire(
        self, session_id: str, *, sequence: int, max_leases: int, wait: timedelta
    ) -> tuple[Lease, ...]:
        """Hang for up to ``wait`` until there are leases; raise ``SessionSupersededError``."""

    async def heartbeat(
        self,
        session_id: str,
        *,
        sequence: int,
        state: WorkerState,
        leases: Sequence[HeldLease],
        held_back: Mapping[str, str],
        wait: timedelta,
    ) -> HeartbeatAnswer:
        """Renew the complete inventory, tell why targets are held back, and hang for up to ``wait`` for news."""

    async def report(self, session_id: str, reports: Sequence[Report], next_poll: NextPoll | None) -> ReportAnswer:
        """Record how attempts ended, and ask for the next leases."""

    async def append_logs(self, session_id: str, batch: LogBatch) -> LogAnswer:
        """Add lines to an attempt's log; raise ``LogGapError`` when lines before them are missing."""

    async def deregister(self, session_id: str) -> None:
        """Close the session."""

    async def close(self) -> None:
        """Give the connections back."""
