"""A worker without a program: it speaks the lease protocol, and its operations are spans of virtual time."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from manager_service.domain.errors import SessionUnknownError
from manager_service.domain.fleet import Registration, Timing
from manager_service.domain.leases import (
    Heartbeat,
    HeartbeatAnswer,
    Lease,
    LeaseDirective,
    Poll,
    Report,
    ReportStatus,
)
from manager_service.domain.model import SECOND
from manager_service.domain.ports import IdSource
from manager_service.domain.states import Outcome
from tests.simulation.fleet.says import Held, log_of, report_of
from tests.simulation.fleet.wire import UnreachableError, Verb, Wire
from worker_service.backoff import Backoff

T = TypeVar("T")
_SOON = 0.5
_NO_NEWS_PAUSE = 0.2
_PROTOCOL = 1
_SLACK = 5 * SECOND


class Listener(Protocol):
    """Hears what workers do."""

    def granted(self, worker: "StandIn", lease: Lease) -> None:
        """Hear that a worker got a lease."""

    def answered(self, worker: "StandIn", lease: Lease, status: ReportStatus) -> None:
        """Hear what became of a worker's report."""


class StandIn:
    """Registers, polls, beats and reports as a worker does, and tries again as one does.

    Args:
        registration: who it is.
        wire: the way to the manager.
        chance: draws its pauses.
        ids: makes the ids of its reports.
        timing: what it would be told at its registration.
        span: draws how long an operation lasts, in seconds.
        listener: hears what it does.
        outcome: draws how an operation ends.
        talks: whether it tells progress and logs.
    """

    def __init__(
        self,
        registration: Registration,
        *,
        wire: Wire,
        chance: random.Random,
        ids: IdSource,
        timing: Timing,
        span: Callable[[], float],
        listener: Listener,
        outcome: Callable[[], Outcome] = lambda: Outcome.COMPLETED,
        talks: bool = False,
    ) -> None:
        self.registration = registration
        self.name = registration.worker_name
        self.alive = False
        self.session = ""
        self.registered = asyncio.Event()
        self.held: dict[str, Held] = {}
        self._wire = wire
        self._chance = chance
        self._ids = ids
        self._timing = timing
        self._span = span
        self._listener = listener
        self._outcome = outcome
        self._talks = talks
        self._silent = False
        self._polling = self._leaving = False
        self._sequence = 0
        self._beats = 0
        self._changed = asyncio.Event()
        self._tasks: dict[asyncio.Task[None], None] = {}

    def start(self) -> None:
        """Begin to serve."""
        self.alive = True
        self._spawn(self._live())

    def die(self, *, silent: bool) -> None:
        """End as kill -9 does, or as a machine does that loses its power: then nobody hears of it."""
        self.alive, self._silent = False, silent
        for held in self.held.values():
            held.timer.cancel()
        for task in tuple(self._tasks):
            task.cancel()

    async def leave(self) -> None:
        """Stop taking leases, see what runs to its end, and say goodbye."""
        self._leaving = True
        while self.held:
            self._changed.clear()
            await self._changed.wait()
        session = self.session
        await self._ask(lambda wire: wire.desk.deregister(session))
        self.die(silent=False)

    async def _live(self) -> None:
        await self._register()
        self._spawn(self._beat_on())
        await self._poll_on()

    async def _register(self) -> None:
        self.session = await self._ask(
            lambda wire: wire.desk.register(self.registration, protocol_version=_PROTOCOL)
        )
        self.registered.set()

    async def _ask(self, verb: Verb[T]) -> T:
        """Send a call until it is answered, with a worker's pauses."""
        backoff = self._backoff()
        while True:
            try:
                return await self._wire.ask(verb, abandon=lambda: not self._silent)
            except UnreachableError:
                await backoff.pause()
            except SessionUnknownError:
                await self._register()
                await backoff.pause()

    async def _poll_on(self) -> None:
        loop, backoff = asyncio.get_running_loop(), self._backoff(base=0.02, cap=1.0)
        while True:
            while self._polling or self._leaving or not self._free:
                self._changed.clear()
                await self._changed.wait()
            sent, poll = loop.time(), self._next_poll()
            try:
                leases = await self._acquire(poll)
            finally:
                self._polling = False
            self._begin(leases)
            if not leases and loop.time() - sent < _SOON:
                await backoff.pause()
            else:
                backoff.reset()

    @property
    def _free(self) -> int:
        return self.registration.slots - len(self.held)

    def _next_poll(self, ended: int = 0) -> Poll:
        self._polling = True
        self._sequence += 1
        return Poll(sequence=self._sequence, max_leases=self._free + ended)

    async def _acquire(self, poll: Poll) -> tuple[Lease, ...]:
        wait = self._timing.poll_window
        return await self._ask(
            lambda wire: wire.desk.polls.acquire(self.session, poll, wait=wait, remaining=wait + _SLACK)
        )

    def _begin(self, leases: tuple[Lease, ...]) -> None:
        loop = asyncio.get_running_loop()
        for lease in leases:
            self._listener.granted(self, lease)
            held = Held(lease, loop.time(), loop.call_later(self._span(), self._end, lease.lease_id))
            self.held[lease.lease_id] = held
            if self._talks:
                self._spawn(self._log(lease))

    async def _log(self, lease: Lease) -> None:
        await self._ask(lambda wire: wire.desk.append_logs(log_of(lease, self.session)))

    def _end(self, lease_id: str, outcome: Outcome | None = None) -> None:
        held = self.held[lease_id]
        held.reporting = True
        held.timer.cancel()
        report = report_of(held.lease, outcome or self._outcome(), report_id=self._ids.new_id())
        self._spawn(self._report(held, report))

    async def _report(self, held: Held, report: Report) -> None:
        """Report an end, and ask for the next lease unless a poll is under way."""
        poll = None if self._polling or self._leaving else self._next_poll(ended=1)
        try:
            answer = await self._ask(lambda wire: wire.desk.report(self.session, [report], poll))
        finally:
            if poll is not None:
                self._polling = False
        self.held.pop(held.lease.lease_id, None)
        self._listener.answered(self, held.lease, answer.statuses[0])
        self._begin(answer.leases)
        self._changed.set()

    async def _beat_on(self) -> None:
        loop, backoff = asyncio.get_running_loop(), self._backoff()
        while True:
            sent, held = loop.time(), tuple(self.held.values())
            try:
                answer = await self._beat(held)
            except UnreachableError:
                await backoff.pause()
                continue
            except SessionUnknownError:
                await self._register()
                continue
            backoff.reset()
            for one, directive in zip(held, answer.leases, strict=True):
                self._obey(one, directive)
            if loop.time() - sent < _SOON:
                await asyncio.sleep(_NO_NEWS_PAUSE)

    async def _beat(self, held: tuple[Held, ...]) -> HeartbeatAnswer:
        self._beats += 1
        wait = self._timing.heartbeat_interval
        now = asyncio.get_running_loop().time() if self._talks else None
        leases = tuple(one.listed(now) for one in held)
        beat = Heartbeat(session_id=self.session, sequence=self._beats, draining=False, leases=leases)
        return await self._wire.ask(
            lambda wire: wire.desk.heartbeats.beat(beat, wait=wait, remaining=wait + _SLACK),
            abandon=lambda: not self._silent,
        )

    def _obey(self, held: Held, directive: LeaseDirective) -> None:
        if held.reporting or directive is LeaseDirective.CONTINUE:
            return
        if directive is LeaseDirective.CANCEL:
            self._end(held.lease.lease_id, Outcome.CANCELLED)
        else:
            held.timer.cancel()
            self.held.pop(held.lease.lease_id, None)
            self._changed.set()

    def _backoff(self, *, base: float = 0.1, cap: float = 5.0) -> Backoff:
        return Backoff(base=base, cap=cap, draw=self._chance.random)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)
