import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import structlog
import uuid_utils

from worker_service.control import LeaseControl
from worker_service.domain.manager import HeldLease, Lease, Report
from worker_service.domain.operation import Progress
from worker_service.domain.outcome import Result
from worker_service.domain.ports import Engine
from worker_service.domain.settlement import StopReason, settle
from worker_service.domain.target import Target
from worker_service.logs import LogStream
from worker_service.maintenance import MaintenanceWorker

log = structlog.get_logger("worker.execution")

INTERRUPT_EVERY = 0.1
TEXT_LIMIT = 4_000


def _now() -> datetime:
    return datetime.now(UTC)


class Execution:
    """One attempt, from its grant until its report was answered.

    The operation runs in a thread; the event loop lists, renews, stops and reports it.

    Args:
        lease: the right to run it.
        fence: when the lease is first in doubt, on ``clock``.
        accept_by: when a heartbeat has to have named the lease, on ``clock``.
        clock: monotonic seconds.
        redact: masks what must not leave the process.
        held_back: why nothing is to begin on the lease's target just now.
    """

    def __init__(
        self,
        lease: Lease,
        *,
        fence: float,
        accept_by: float,
        clock: Callable[[], float],
        redact: Callable[[str], str] = str,
        held_back: Callable[[], str] = str,
    ) -> None:
        operation = lease.operation
        self.lease = lease
        self.accept_by = accept_by
        self.accepted = False
        self.report: Report | None = None
        self.logs = LogStream(
            child_job_id=operation.child_job_id,
            lease_id=lease.lease_id,
            attempt=operation.attempt,
            now=_now,
            redact=redact,
        )
        self.control = LeaseControl(fence=fence, clock=clock, sink=self.logs, held_back=held_back)
        self.log = log.bind(
            parent_job_id=operation.parent_job_id,
            child_job_id=operation.child_job_id,
            attempt=operation.attempt,
            lease_id=lease.lease_id,
            target=operation.target,
            operation=operation.name,
        )
        self._redact = redact
        self._clock = clock
        self._began = self._ended = clock()
        self._listed: Progress | None = None
        self._worker: MaintenanceWorker | None = None
        self._returned = threading.Event()
        self._interrupter: threading.Thread | None = None

    @property
    def lost(self) -> bool:
        """Whether the manager said that the lease is gone."""
        return self.control.stop_reason is StopReason.LOST

    @property
    def has_news(self) -> bool:
        """Whether there is progress that no heartbeat told yet."""
        return self.control.latest_progress is not self._listed

    def listed(self) -> HeldLease:
        """Return the lease as a heartbeat names it now."""
        self._listed = self.control.latest_progress
        return HeldLease(lease_id=self.lease.lease_id, attempt=self.lease.operation.attempt, progress=self._listed)

    def run(self, engine: Engine, target: Target) -> Result:
        """Run the operation to its end, in the calling thread, and say how it ended."""
        self._worker = MaintenanceWorker(engine=engine, target=target, control=self.control, log=self.log)
        try:
            return self._worker.execute(self.lease.operation)
        finally:
            self._returned.set()

    def stop(self, reason: StopReason) -> None:
        """Tell the operation to stop and interrupt it until it has ended; harmless when it has."""
        first = self.control.stop(reason)
        if not first or self.report is not None or self._returned.is_set():
            return
        self.log.info("operation told to stop", stop=reason.name.lower())
        self._interrupter = threading.Thread(target=self._interrupt, name="interrupt", daemon=True)
        self._interrupter.start()

    def settle(self, result: Result) -> None:
        """Fix what is reported; once, when the attempt has ended or was given up."""
        self._ended = self._clock()
        operation = self.lease.operation
        self.report = Report(
            report_id=str(uuid_utils.uuid4()),
            lease_id=self.lease.lease_id,
            child_job_id=operation.child_job_id,
            attempt=operation.attempt,
            result=self._clean(settle(result, self.control.stop_reason)),
        )

    def replace_result(self, result: Result) -> None:
        """Report something else under the same report_id, after the manager refused the first."""
        if self.report is not None:
            self.report = replace(self.report, result=result)

    def log_begin(self) -> None:
        """Log that the attempt runs."""
        self.log.info("operation runs", seconds=self._seconds(self._clock()))

    def log_end(self) -> None:
        """Log how the attempt ended, once it is settled."""
        if self.report is None:
            return
        result, failure = self.report.result, self.report.result.failure
        tell = self.log.warning if failure else self.log.info
        tell(
            "operation ended",
            outcome=result.outcome.value,
            seconds=self._seconds(self._ended),
            **({"verdict": result.verdict.value} if result.verdict else {}),
            **({"reason": result.reason} if result.reason and not failure else {}),
            **({"failure": failure.reason, "message": failure.message} if failure else {}),
        )

    def _seconds(self, now: float) -> float:
        return round(now - self._began, 3)

    def _interrupt(self) -> None:
        # An interrupt between two statements hits nothing, so it is repeated until the thread is out.
        while not self._returned.is_set():
            try:
                if self._worker is not None:
                    self._worker.interrupt()
            except Exception:
                self.log.exception("interrupt failed")
            self._returned.wait(INTERRUPT_EVERY)

    def _clean(self, result: Result) -> Result:
        reason = self._redact(result.reason)[:TEXT_LIMIT]
        if reason == result.reason and result.failure is None:
            return result
        failure = result.failure and replace(
            result.failure, message=self._redact(result.failure.message)[:TEXT_LIMIT]
        )
        return replace(result, reason=reason, failure=failure)
