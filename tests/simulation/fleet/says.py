"""What a worker says of a lease that it holds."""

import asyncio
from dataclasses import dataclass

from manager_service.domain.leases import HeldLease, Lease, LogBatch, Report
from manager_service.domain.model import Failure, LogEntry, Progress
from manager_service.domain.states import FailureCategory, Outcome, Verdict


@dataclass(slots=True, eq=False)
class Held:
    """A lease that a worker holds until its report is answered."""

    lease: Lease
    begin: float
    timer: asyncio.TimerHandle
    reporting: bool = False

    def listed(self, now: float | None) -> HeldLease:
        """Return the lease as a heartbeat names it; with the time, how far its operation is."""
        progress = None if now is None else Progress(phase="pages", done=int(now - self.begin), unit="pages")
        return HeldLease(lease_id=self.lease.lease_id, attempt=self.lease.attempt, progress=progress)


def report_of(lease: Lease, outcome: Outcome, *, report_id: str) -> Report:
    """Return the report of an attempt that ended."""
    failure = Failure(reason="SIMULATED", message="it failed", category=FailureCategory.LOCKED, retryable=True)
    return Report(
        child_job_id=lease.child_job_id,
        lease_id=lease.lease_id,
        attempt=lease.attempt,
        report_id=report_id,
        outcome=outcome,
        verdict=Verdict.EFFECTIVE if outcome is Outcome.COMPLETED else None,
        failure=failure if outcome is Outcome.FAILED else None,
    )


def log_of(lease: Lease, session_id: str) -> LogBatch:
    """Return the log of an attempt that has begun."""
    return LogBatch(
        session_id=session_id,
        child_job_id=lease.child_job_id,
        lease_id=lease.lease_id,
        attempt=lease.attempt,
        offset=0,
        entries=(LogEntry(time=0, level="info", message="a statement begins"),),
    )
