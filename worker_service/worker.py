import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from worker_service import throttling
from worker_service.catalogue import Catalogue, Served
from worker_service.domain.errors import (
    ManagerError,
    ManagerTooOldError,
    ManagerUnavailableError,
    RegistrationRefusedError,
    SessionClosedError,
    SessionSupersededError,
)
from worker_service.domain.manager import Lease, ManagerPort, Session
from worker_service.domain.settlement import StopReason
from worker_service.heartbeat import Heart
from worker_service.inventory import Inventory
from worker_service.lifecycle import Lifecycle, Stage
from worker_service.loops import Loop
from worker_service.polling import Poller, PollTurn
from worker_service.reporting import LogShipper, Reporter
from worker_service.runner import Runner
from worker_service.sessions import Sessions

log = structlog.get_logger("worker")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long the worker waits for what, in seconds.

    Attributes:
        drain_grace: how long running operations may go on after a drain was asked for.
        stop_patience: how long interrupted operations may take to end.
        report_patience: how long the last reports may take.
        recheck: how often targets that were unavailable are asked again.
        throttle: how long to wait between two looks at what a target's owner throttles.
        connect_timeout: how long to look for the manager at the start; ``None`` for ever.
    """

    drain_grace: float = 30.0
    stop_patience: float = 5.0
    report_patience: float = 2.0
    recheck: float = 30.0
    throttle: float = throttling.EVERY
    connect_timeout: float | None = None


# Unlike CLOCK_MONOTONIC it goes on while the machine sleeps, as the lease does at the manager.
_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def steady_seconds() -> float:
    """Return seconds since the machine started; never falls, goes on while it sleeps."""
    return time.clock_gettime(_STEADY)


class Worker:
    """Serves leases from its registration until it is told to end.

    Args:
        manager: the far side.
        catalogue: the targets.
        slots: how many operations may run at once.
        timing: how long to wait for what.
        clock: monotonic seconds.
        redact: masks what must not leave the process.
    """

    def __init__(
        self,
        *,
        manager: ManagerPort,
        catalogue: Catalogue,
        slots: int,
        timing: Timing | None = None,
        clock: Callable[[], float] = steady_seconds,
        redact: Callable[[str], str] = str,
    ) -> None:
        self._manager = manager
        self._catalogue = catalogue
        self._timing = timing or Timing()
        self._clock = clock
        self.inventory = Inventory(slots)
        self._idle = self.inventory.watch()
        self.lifecycle = Lifecycle(grace=self._timing.drain_grace, clock=clock, on_change=self._on_change)
        self._sessions = Sessions(
            manager=manager, registration=catalogue.registration, on_superseded=self.lifecycle.finish
        )
        self._wire(slots, redact)

    def _wire(self, slots: int, redact: Callable[[str], str]) -> None:
        self._throttles = throttling.Throttles(
            catalogue=self._catalogue,
            wanted=lambda: self.lifecycle.serving or bool(len(self.inventory)),
            on_change=self._on_change,
            redact=redact,
            every=self._timing.throttle,
        )
        turn = PollTurn()
        shipper = LogShipper(manager=self._manager, sessions=self._sessions, inventory=self.inventory)
        reporter = Reporter(
            manager=self._manager,
            sessions=self._sessions,
            inventory=self.inventory,
            turn=turn,
            accept=self._accept,
            wants_leases=lambda: self.lifecycle.serving,
            clock=self._clock,
        )
        self._runner = Runner(
            slots=slots,
            catalogue=self._catalogue,
            inventory=self.inventory,
            shipper=shipper,
            reporter=reporter,
            takes_leases=lambda: not self.lifecycle.ending,
            clock=self._clock,
            redact=redact,
            throttles=self._throttles,
        )
        self._heart = Heart(
            manager=self._manager,
            sessions=self._sessions,
            inventory=self.inventory,
            state=lambda: self.lifecycle.state,
            obey=self.lifecycle.obey,
            clock=self._clock,
            held_back=self._throttles.held_back,
        )
        poller = Poller(
            manager=self._manager,
            sessions=self._sessions,
            inventory=self.inventory,
            turn=turn,
            accept=self._accept,
            clock=self._clock,
        )
        self._polls = Loop("poll", poller.poll)
        self._loops = (
            Loop("heartbeat", self._heart.beat),
            Loop("report", reporter.report),
            Loop("logs", shipper.ship),
            Loop("targets", self._recheck_targets),
            Loop("throttles", self._throttles.look),
        )

    async def run(self, on_ready: Callable[[Session], None]) -> bool:
        """Serve until told to end.

        Args:
            on_ready: called once, when the manager knows this worker.

        Returns:
            Whether every attempt was reported.

        Raises:
            ManagerUnavailableError: no manager answered within the connect timeout.
            RegistrationRefusedError: the manager does not take this worker as it is.
        """
        session = await self._open()
        if session is None:
            return True
        on_ready(session)
        try:
            await self._serve()
            return await self._wind_down()
        finally:
            await self._close()

    async def retarget(self, served: Sequence[Served]) -> None:
        """Serve these targets from now on; what runs goes on to its end, also on those that are no more.

        Raises:
            RegistrationRefusedError: the manager does not take them; those before are served on.
            SessionClosedError: this worker is stopping.
        """
        undo = self._catalogue.serve(served)
        try:
            await self._sessions.update()
        except (RegistrationRefusedError, SessionClosedError):
            undo()
            raise

    @property
    def stuck(self) -> bool:
        """Whether an operation was left to itself and its thread would hold up the process's end."""
        return self._runner.busy

    async def _open(self) -> Session | None:
        """Register; ``None`` when the worker was told to end before that."""
        opening = asyncio.ensure_future(self._sessions.open())
        ending = asyncio.ensure_future(self._until_ending())
        try:
            await asyncio.wait(
                {opening, ending}, timeout=self._timing.connect_timeout, return_when=asyncio.FIRST_COMPLETED
            )
            if opening.done():
                return opening.result()
            if ending.done():
                return None
            if isinstance(trouble := self._sessions.trouble, ManagerTooOldError):
                raise trouble
            raise ManagerUnavailableError("No manager answered within the connect timeout.")
        except SessionSupersededError:
            self._sessions.superseded()
            return None
        finally:
            for task in (opening, ending):
                task.cancel()
            await asyncio.wait({opening, ending})

    async def _until_ending(self) -> None:
        while not self.lifecycle.ending:
            self.lifecycle.changed.clear()
            await self.lifecycle.changed.wait()

    async def _serve(self) -> None:
        for loop in self._loops:
            loop.start()
        while not self.lifecycle.ending:
            self.lifecycle.changed.clear()
            if self.lifecycle.serving:
                self._polls.start()
            else:
                await self._polls.stop()
            await self.lifecycle.changed.wait()

    async def _wind_down(self) -> bool:
        """Stop taking leases, see what runs to its end, hand back the rest; tell whether all was reported."""
        self._sessions.close()
        await self._polls.stop()
        await self._until_drained()
        if not len(self.inventory):
            return True
        released_now = self.lifecycle.stage is Stage.RELEASING
        self._runner.stop_all(StopReason.DRAIN)
        patience = min(self._timing.stop_patience, self._timing.report_patience if released_now else 1e9)
        await self._until_empty(patience)
        self._runner.abandon()
        await self._until_empty(self._timing.report_patience)
        unreported = [execution for execution in self.inventory if not execution.lost]
        for execution in unreported:
            execution.log.error("attempt ends unreported")
        return not unreported

    async def _until_drained(self) -> None:
        """Wait until nothing is held, or what runs may not go on any longer."""
        while len(self.inventory) and (patience := self.lifecycle.patience) != 0:
            await self._wait_for_change(patience)

    async def _until_empty(self, patience: float) -> None:
        end = self._clock() + patience
        while len(self.inventory) and (left := end - self._clock()) > 0:
            await self._wait_for_change(left)

    async def _wait_for_change(self, patience: float | None) -> None:
        self._idle.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._idle.wait()

    async def _close(self) -> None:
        for loop in (self._polls, *self._loops):
            await loop.stop()
        self._throttles.close()
        self._runner.close()
        try:
            await self._manager.deregister(self._sessions.current.session_id)
        except Exception as error:  # noqa: BLE001 - the process ends; the manager finds out by itself
            log.warning("not deregistered", error=str(error))

    def _accept(self, leases: tuple[Lease, ...], sent: float) -> None:
        for lease in leases:
            execution = self._runner.begin(lease, sent)
            if execution is None:
                continue
            self._heart.look(execution.accept_by)
            if execution.control.fence - self._clock() < lease.lease_duration.total_seconds() / 2:
                # A poll that hung for long says little about when the lease began: ask at once.
                self._heart.hurry()

    def _on_change(self) -> None:
        self.inventory.notify()
        self._heart.hurry()

    async def _recheck_targets(self) -> None:
        await asyncio.sleep(self._timing.recheck)
        if not self._catalogue.complete and await self._catalogue.describe_missing():
            with contextlib.suppress(ManagerError):
                await self._sessions.refresh()
