import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import structlog

from worker_service.catalogue import Catalogue, Served
from worker_service.domain.manager import Lease
from worker_service.domain.outcome import FailureCategory, ReleaseReason, Result
from worker_service.domain.settlement import StopReason, failed, released
from worker_service.execution import Execution
from worker_service.inventory import Inventory
from worker_service.reporting import LogShipper, Reporter
from worker_service.throttling import Throttles

log = structlog.get_logger("worker.runner")

LISTED_AFTER = 0.1
"""A cancel reaches only what a heartbeat listed, so what is not over by then is listed; what is costs no beat."""

TOLD_AFTER = 1.0
"""The log tells the beginning of operations that last longer than this many seconds, and the end of all."""


class Runner:
    """Turns leases into running operations and their ends into reports.

    Args:
        slots: how many operations may run at once, each in a thread.
        catalogue: the targets.
        inventory: the slots.
        shipper: sends an attempt's log before its report.
        reporter: takes what ended.
        takes_leases: whether this worker takes leases now; what comes otherwise is handed back.
        clock: monotonic seconds.
        redact: masks what must not leave the process.
        throttles: tells which targets are held back.
    """

    def __init__(
        self,
        *,
        slots: int,
        catalogue: Catalogue,
        inventory: Inventory,
        shipper: LogShipper,
        reporter: Reporter,
        takes_leases: Callable[[], bool],
        clock: Callable[[], float],
        redact: Callable[[str], str] = str,
        throttles: Throttles | None = None,
    ) -> None:
        self._throttles = throttles
        self._catalogue = catalogue
        self._inventory = inventory
        self._shipper = shipper
        self._reporter = reporter
        self._takes_leases = takes_leases
        self._clock = clock
        self._redact = redact
        self._pool = ThreadPoolExecutor(slots, thread_name_prefix="operation")
        self._threads = 0
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._beginnings: dict[str, asyncio.TimerHandle] = {}
        self._flushing: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> bool:
        """Whether a thread still runs an operation."""
        return self._threads > 0

    def begin(self, lease: Lease, sent: float) -> Execution | None:
        """Begin what a lease grants; ``None`` when it is held already, as after a replayed poll.

        Args:
            lease: the lease.
            sent: when the request was sent that it answers: from then on it may be counting.
        """
        if lease.lease_id in self._inventory:
            return None
        execution = Execution(
            lease,
            fence=sent + lease.lease_duration.total_seconds(),
            accept_by=self._clock() + min(lease.accept_within.total_seconds() / 2, LISTED_AFTER),
            clock=self._clock,
            redact=self._redact,
            held_back=partial(self._throttles.reason, lease.operation.target) if self._throttles else str,
        )
        self._inventory.add(execution)
        served = self._catalogue.find(lease.operation.target)
        if not self._takes_leases():
            self._finish(execution, released(ReleaseReason.DRAIN, "The worker is stopping."))
        elif served is None:
            reason = f"This worker does not serve the target {lease.operation.target!r}."
            self._finish(execution, released(ReleaseReason.UNSUITABLE, reason))
        elif self._throttles and (why := self._throttles.known_reason(lease.operation.target)):
            # Granted before the manager was told: another worker may run it, or this one later.
            self._finish(execution, released(ReleaseReason.UNSUITABLE, why))
        else:
            self._start(execution, served)
        return execution

    def abandon(self) -> None:
        """Hand back what still runs although it was told to stop; its threads are left to themselves."""
        for execution in self._inventory:
            if execution.report is None:
                execution.log.error("operation does not stop; its lease is handed back")
                execution.logs.close()
                self._finish(execution, released(ReleaseReason.DRAIN, "The worker is stopping."))

    def stop_all(self, reason: StopReason) -> None:
        """Tell everything that runs to stop."""
        for execution in self._inventory:
            if execution.report is None:
                execution.stop(reason)

    def close(self) -> None:
        """Take no more; threads that still run are not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for timer in (*self._timers.values(), *self._beginnings.values()):
            timer.cancel()
        for task in self._flushing:
            task.cancel()

    def _start(self, execution: Execution, served: Served) -> None:
        loop = asyncio.get_running_loop()
        timeout = execution.lease.operation.timeout
        if timeout is not None:
            self._timers[execution.lease.lease_id] = loop.call_later(
                timeout.total_seconds(), execution.stop, StopReason.TIMEOUT
            )
        # Most operations are over before anybody could read that they began.
        self._beginnings[execution.lease.lease_id] = loop.call_later(TOLD_AFTER, execution.log_begin)
        self._threads += 1
        self._pool.submit(self._run, loop, execution, served)

    def _run(self, loop: asyncio.AbstractEventLoop, execution: Execution, served: Served) -> None:
        try:
            result = execution.run(served.engine, served.target)
        except BaseException as error:  # a plugin that calls sys.exit must not empty a slot for ever
            message = f"The operation ended its thread with {type(error).__name__}."
            result = failed("INTERNAL", message, FailureCategory.INTERNAL)
            execution.log.exception("operation ended its thread")
        try:
            loop.call_soon_threadsafe(self._returned, execution, result)
        except RuntimeError:
            execution.log.warning("operation ended after the worker", outcome=result.outcome.value)

    def _returned(self, execution: Execution, result: Result) -> None:
        self._threads -= 1
        self._finish(execution, result)

    def _finish(self, execution: Execution, result: Result) -> None:
        for timers in (self._timers, self._beginnings):
            if timer := timers.pop(execution.lease.lease_id, None):
                timer.cancel()
        if execution.report is not None:
            return
        execution.settle(result)
        if execution.lost:
            execution.logs.close()
            self._inventory.remove([execution])
        elif execution.logs.pending or execution.logs.sending.locked():
            task = asyncio.ensure_future(self._flush(execution))
            self._flushing.add(task)
            task.add_done_callback(self._flushing.discard)
        else:
            self._reporter.put(execution)
        # Behind the report: a line takes longer to write than many an operation to run.
        asyncio.get_running_loop().call_soon(execution.log_end)

    async def _flush(self, execution: Execution) -> None:
        try:
            await self._shipper.flush(execution)
        finally:
            self._reporter.put(execution)
