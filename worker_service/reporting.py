import asyncio
from collections.abc import Callable, Sequence

import structlog

from worker_service.domain.errors import (
    LogGapError,
    RequestRefusedError,
    SessionClosedError,
    SessionSupersededError,
)
from worker_service.domain.manager import LogAnswer, ManagerPort, NextPoll, ReportAnswer, ReportStatus, Session
from worker_service.domain.outcome import FailureCategory
from worker_service.domain.settlement import failed
from worker_service.execution import Execution
from worker_service.inventory import Inventory
from worker_service.polling import Accept, PollTurn
from worker_service.sessions import Sessions

log = structlog.get_logger("worker.report")

LINGER = 0.0005
LINGERS_FOR = 4
"""So many others have to be under way: that one of fewer ends in the same moment is not likely."""
BATCH = 1_000
SHIP_EVERY = 0.25


class LogShipper:
    """Sends the log lines of what is held, often while it runs and all before it is reported.

    Args:
        manager: the far side.
        sessions: this process's registration.
        inventory: what is held.
    """

    def __init__(self, *, manager: ManagerPort, sessions: Sessions, inventory: Inventory) -> None:
        self._manager = manager
        self._sessions = sessions
        self._inventory = inventory

    async def ship(self) -> None:
        """Send once what is waiting."""
        await asyncio.sleep(SHIP_EVERY)
        for execution in self._inventory:
            if execution.logs.pending:
                await self._send(execution)

    async def flush(self, execution: Execution) -> None:
        """Send all that the attempt wrote."""
        while execution.logs.pending or execution.logs.sending.locked():
            await self._send(execution)

    async def _send(self, execution: Execution) -> None:
        logs = execution.logs
        # One call per attempt at a time: offsets must not cross.
        async with logs.sending:
            batch = logs.batch()
            if batch is None:
                return

            async def send(session: Session) -> LogAnswer:
                return await self._manager.append_logs(session.session_id, batch)

            try:
                logs.stored(batch, await self._sessions.call(send))
            except LogGapError as gap:
                execution.log.warning("manager misses log lines", next_offset=gap.next_offset)
                logs.resume_at(gap.next_offset)
            except (RequestRefusedError, SessionClosedError, SessionSupersededError) as error:
                execution.log.warning("log lines dropped", error=str(error))
                logs.close()


class Reporter:
    """Reports how attempts ended, together when they end together, and asks for the next leases meanwhile.

    A report is repeated until it is answered; until then its lease stays in the inventory and its slot full.

    Args:
        manager: the far side.
        sessions: this process's registration.
        inventory: the slots.
        turn: shared with the poller.
        accept: takes leases and the time their request was sent.
        wants_leases: whether this worker takes leases now.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        manager: ManagerPort,
        sessions: Sessions,
        inventory: Inventory,
        turn: PollTurn,
        accept: Accept,
        wants_leases: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self._manager = manager
        self._sessions = sessions
        self._inventory = inventory
        self._turn = turn
        self._accept = accept
        self._wants_leases = wants_leases
        self._clock = clock
        self._queue: list[Execution] = []
        self._waiting = asyncio.Event()
        self._enough = asyncio.Event()

    def put(self, execution: Execution) -> None:
        """Take an ended attempt for the next report."""
        self._queue.append(execution)
        self._waiting.set()
        if len(self._queue) >= len(self._inventory):
            self._enough.set()

    async def report(self) -> None:
        """Wait for ended attempts and report them."""
        await self._waiting.wait()
        await self._linger()
        batch, self._queue = self._queue[:BATCH], self._queue[BATCH:]
        if not self._queue:
            self._waiting.clear()
        self._enough.clear()
        await self._deliver(batch)

    async def _linger(self) -> None:
        """Give others that are about to end the chance to share the call."""
        if len(self._inventory) - len(self._queue) < LINGERS_FOR:
            return
        loop = asyncio.get_running_loop()
        timer = loop.call_later(LINGER, self._enough.set)
        try:
            await self._enough.wait()
        finally:
            timer.cancel()

    async def _deliver(self, batch: list[Execution]) -> None:
        try:
            await self._send(batch, self._next_poll(len(batch)))
        except SessionClosedError:
            log.error("reports dropped: the session is gone", reports=len(batch))  # noqa: TRY400 - foreseen
        except (RequestRefusedError, SessionSupersededError) as error:
            await self._deliver_apart(batch, error)
        finally:
            self._inventory.remove(batch)

    async def _send(self, batch: Sequence[Execution], next_poll: NextPoll | None) -> None:
        reports = [execution.report for execution in batch if execution.report is not None]
        sent = self._clock()

        async def send(session: Session) -> ReportAnswer:
            nonlocal sent
            sent = self._clock()
            return await self._manager.report(session.session_id, reports, next_poll)

        try:
            answer = await self._sessions.call(send)
            self._inventory.remove(batch)
            if answer.leases:
                self._accept(answer.leases, sent)
        finally:
            if next_poll is not None:
                self._turn.give_back()
        for execution in batch:
            _log_status(execution, answer)

    def _next_poll(self, ended: int) -> NextPoll | None:
        if not self._wants_leases() or (sequence := self._turn.try_take()) is None:
            return None
        return NextPoll(sequence=sequence, max_leases=self._inventory.free + ended)

    async def _deliver_apart(self, batch: list[Execution], error: Exception) -> None:
        """Report one by one after a refusal, so that a bad result harms no other."""
        for execution in batch:
            if len(batch) == 1:
                execution.log.error("report refused", error=str(error))
                message = f"The manager refused the report of this attempt: {error}"
                execution.replace_result(failed("REPORT_REFUSED", message, FailureCategory.INTERNAL))
            try:
                await self._send([execution], None)
            except SessionClosedError:
                return
            except (RequestRefusedError, SessionSupersededError) as again:
                if len(batch) > 1:
                    await self._deliver_apart([execution], again)
                else:
                    execution.log.error("report dropped", error=str(again))  # noqa: TRY400 - foreseen


def _log_status(execution: Execution, answer: ReportAnswer) -> None:
    report = execution.report
    status = answer.statuses.get(report.report_id) if report else None
    if status is ReportStatus.STALE:
        execution.log.warning("report came too late: the lease was gone")
