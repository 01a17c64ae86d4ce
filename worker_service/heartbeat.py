import asyncio
import math
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import structlog

from worker_service.backoff import Backoff
from worker_service.domain.errors import (
    ManagerUnavailableError,
    SessionClosedError,
    SessionSupersededError,
    SessionUnknownError,
)
from worker_service.domain.manager import (
    HeartbeatAnswer,
    LeaseDirective,
    ManagerPort,
    Session,
    WorkerDirective,
    WorkerState,
)
from worker_service.domain.settlement import StopReason
from worker_service.execution import Execution
from worker_service.inventory import Inventory
from worker_service.sessions import Sessions

log = structlog.get_logger("worker.heartbeat")

PROGRESS_EVERY = 1.0
_NO_NEWS_PAUSE = 0.2


class Heart:
    """Tells the manager that this worker lives and all that it holds; hears what to cancel.

    A beat hangs at the manager, so that news arrive in milliseconds. It is replaced when a lease has to be
    accepted or progress has to be told before it would end; the replacing beat is answered at once, so that
    replacing can never keep the leases from being renewed.

    Args:
        manager: the far side, over a connection of its own.
        sessions: this process's registration.
        inventory: what is held.
        state: how the worker is now.
        obey: carries out what the manager wants of the worker as a whole.
        clock: monotonic seconds.
        held_back: why targets are held back, by name.
        backoff: the pauses between failed beats.
    """

    def __init__(
        self,
        *,
        manager: ManagerPort,
        sessions: Sessions,
        inventory: Inventory,
        state: Callable[[], WorkerState],
        obey: Callable[[WorkerDirective], None],
        clock: Callable[[], float],
        held_back: Callable[[], Mapping[str, str]] = dict,
        backoff: Backoff | None = None,
    ) -> None:
        self._held_back = held_back
        self._manager = manager
        self._sessions = sessions
        self._inventory = inventory
        self._state = state
        self._obey = obey
        self._clock = clock
        self._backoff = backoff or Backoff()
        self._sequence = 0
        self._hurried = False
        self._planned = -math.inf
        self._wake = asyncio.Event()
        self._directive = WorkerDirective.NONE

    def hurry(self) -> None:
        """Send a beat now that is answered at once."""
        self._hurried = True
        self._wake.set()

    def look(self, accept_by: float) -> None:
        """Take care that a lease just taken in is named by then; cheap where it will be anyhow."""
        if accept_by < self._planned:
            self._wake.set()

    async def beat(self) -> None:
        """Send one beat and carry out its answer."""
        try:
            session = self._sessions.current
        except SessionClosedError:
            self._lose_all()
            await asyncio.sleep(_NO_NEWS_PAUSE)
            return
        try:
            await self._beat(session)
        except ManagerUnavailableError as error:
            self._sessions.unreachable(error)
            self._hurried = True
            # A manager that is back gives live leases two intervals to be named again.
            await self._backoff.pause(at_most=session.heartbeat_interval.total_seconds())
        except SessionUnknownError:
            self._hurried = True
            await self._renew(session)
            await self._backoff.pause()
        except SessionSupersededError:
            self._sessions.superseded()
            await self._backoff.pause()

    async def _beat(self, session: Session) -> None:
        wait = self._wait(session)
        sent = self._clock()
        answer = await self._exchange(session, wait)
        if answer is None:
            self._hurried = True
            return
        self._sessions.reached()
        self._backoff.reset()
        unnamed = any(not execution.accepted for execution in self._inventory)
        news = self._carry_out(answer, sent)
        if wait and not news and self._clock() - sent < wait / 2:
            await self._hear_why(unnamed=unnamed)

    def _wait(self, session: Session) -> float:
        hurried, self._hurried = self._hurried, False
        self._wake.clear()
        if hurried:
            return 0.0
        interval = session.heartbeat_interval.total_seconds()
        tells = any(e.control.latest_progress is not None and e.report is None for e in self._inventory)
        return min(interval, PROGRESS_EVERY) if tells else interval

    async def _exchange(self, session: Session, wait: float) -> HeartbeatAnswer | None:
        """Return the answer, or ``None`` when a new beat is due before it came."""
        self._sequence += 1
        call = asyncio.ensure_future(
            self._manager.heartbeat(
                session.session_id,
                sequence=self._sequence,
                state=self._state(),
                leases=self._inventory.listing(),
                held_back=self._held_back(),
                wait=timedelta(seconds=wait),
            )
        )
        try:
            if wait and not await self._answered(call, self._clock(), wait):
                return None
            return await call
        finally:
            if not call.done():
                # Not awaited: a cancel of this loop that arrived meanwhile would be swallowed with the call's own.
                call.cancel()

    async def _answered(self, call: asyncio.Future[HeartbeatAnswer], sent: float, wait: float) -> bool:
        while not call.done():
            now = self._clock()
            if self._hurried or self._due(sent, wait) <= now:
                return False
            self._wake.clear()
            patience = self._patience(now)
            self._planned = math.inf if patience is None else now + patience
            waker = asyncio.ensure_future(self._wake.wait())
            waiting: set[asyncio.Future[Any]] = {call, waker}
            try:
                await asyncio.wait(waiting, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self._planned = -math.inf
                waker.cancel()
        return True

    def _patience(self, now: float) -> float | None:
        """Return after how long to look again whether a new beat is due; ``None`` to wait for a sign."""
        if not len(self._inventory):
            return None
        return max(0.0, min(PROGRESS_EVERY, self._accept_due() - now))

    def _due(self, sent: float, wait: float) -> float:
        """Return when the hanging beat has to be replaced."""
        tells = wait > PROGRESS_EVERY and any(e.has_news for e in self._inventory if e.report is None)
        return min(self._accept_due(), sent + PROGRESS_EVERY if tells else math.inf)

    def _accept_due(self) -> float:
        return min((e.accept_by for e in self._inventory if not e.accepted), default=math.inf)

    def _carry_out(self, answer: HeartbeatAnswer, sent: float) -> bool:
        """Apply the answer; tell whether it said anything new."""
        fence = sent + answer.lease_duration.total_seconds()
        held = [(self._inventory.get(lease_id), told) for lease_id, told in answer.directives.items()]
        news = [self._apply(execution, told, fence) for execution, told in held if execution is not None]
        changed = answer.directive is not self._directive
        self._directive = answer.directive
        if changed:
            log.info("manager directs", directive=answer.directive.name.lower())
        self._obey(answer.directive)
        return changed or any(news)

    def _apply(self, execution: Execution, directive: LeaseDirective, fence: float) -> bool:
        before = execution.control.stop_reason
        execution.accepted = True
        if directive is LeaseDirective.LOST:
            execution.stop(StopReason.LOST)
        else:
            execution.control.renew(fence)
            if directive is LeaseDirective.CANCEL:
                execution.stop(StopReason.CANCELLED)
        return execution.control.stop_reason is not before

    async def _hear_why(self, *, unnamed: bool) -> None:
        """Go on after an answer that came early and said nothing: it may be about a lease not named yet."""
        if unnamed:
            self._hurried = True
        else:
            await self._pause()

    async def _pause(self) -> None:
        # An answer that came early and says nothing new (a cancel that still takes effect) must not spin. A lease
        # that comes meanwhile ends the pause: a cancel could not reach it before it is named.
        self._planned = math.inf
        try:
            async with asyncio.timeout(_NO_NEWS_PAUSE):
                await self._wake.wait()
        except TimeoutError:
            return
        finally:
            self._planned = -math.inf

    async def _renew(self, stale: Session) -> None:
        try:
            await self._sessions.renew(stale)
        except SessionClosedError:
            self._lose_all()

    def _lose_all(self) -> None:
        for execution in self._inventory:
            execution.stop(StopReason.LOST)
