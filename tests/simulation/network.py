"""The network between processes: it loses, doubles, delays and reorders what the real stubs and servicers say."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc

from manager_service.api.errors import Status, refused
from manager_service.api.server import Services
from manager_service.domain.errors import ManagerError
from tests.simulation.virtual_loop import OUTSIDE, Process

_ANSWER_LOST_UNNOTICED = 0.5


@dataclass(slots=True, kw_only=True)
class Weather:
    """How likely what happens to a message; ``cut`` links carry nothing at all."""

    lost: float = 0.0
    doubled: float = 0.0
    slow: float = 0.0
    slowest: float = 5.0
    cut: set[str] = field(default_factory=set)


class Call:
    """One call of a client, with the handlers that its copies started and the future of its answer."""

    def __init__(
        self, sender: Process, method: str, request: Any, answer: asyncio.Future[Any], end: float
    ) -> None:
        self.sender = sender
        self.method = method
        self.request = request
        self.answer = answer
        self.end = end
        self.handlers: list[asyncio.Task[None]] = []

    def succeed(self, response: Any) -> None:
        if not self.answer.done():
            self.answer.set_result(response)

    def fail(self, code: grpc.StatusCode, status: Status | None = None) -> None:
        if self.answer.done():
            return
        metadata = grpc.aio.Metadata(*(status.trailing_metadata if status else ()))
        text = status.details if status else "simulated"
        self.answer.set_exception(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), metadata, details=text))
        self.answer.exception()


class SimulatedContext:
    """What a servicer is told of a call: how long its client waits."""

    def __init__(self, loop: asyncio.AbstractEventLoop, end: float) -> None:
        self._loop = loop
        self._end = end

    def time_remaining(self) -> float:
        return max(0.0, self._end - self._loop.time())


class Network:
    """Carries calls to whichever manager is up.

    Args:
        loop: the virtual loop.
        chance: decides what happens to messages.
        on_served: told of every answer as the manager gives it.
        on_answer: told of every answer as it reaches its client.
        on_defect: told of every error of a handler that is not a refusal.
        trace: told what happens.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        chance: random.Random,
        *,
        on_served: Callable[[Any], None],
        on_answer: Callable[[Call, Any], None],
        on_defect: Callable[[str, BaseException], None],
        trace: Callable[..., None],
    ) -> None:
        self._loop = loop
        self._chance = chance
        self._on_served = on_served
        self._on_answer = on_answer
        self._on_defect = on_defect
        self._trace = trace
        self._manager: Process | None = None
        self._services: dict[str, Any] = {}
        self._open: dict[Call, None] = {}
        self.weather = Weather()

    def open(self, manager: Process, services: Services) -> None:
        """Let a manager be found."""
        self._manager = manager
        self._services = {
            "LeaseService": services.leases,
            "JobService": services.jobs,
            "FleetService": services.fleet,
        }

    def close(self) -> None:
        """Let the manager be gone; whoever waits for it learns so soon, or by waiting in vain."""
        self._manager = None
        for call in tuple(self._open):
            if self._chance.random() < _ANSWER_LOST_UNNOTICED:
                self._later(self._delay(call), call.fail, grpc.StatusCode.UNAVAILABLE)

    async def idle(self) -> None:
        """Wait until the manager has answered what it was asked."""
        handlers = [task for call in self._open for task in call.handlers if not task.done()]
        if handlers:
            await asyncio.wait(handlers, timeout=5)

    async def call(self, sender: Process, method: str, request: Any, timeout: float) -> Any:  # noqa: ASYNC109 -- gRPC's
        """Send a request and wait for its answer, as a stub does."""
        if not sender.alive:
            raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata())
        call = Call(sender, method, request, self._loop.create_future(), self._loop.time() + timeout)
        self._open[call] = None
        deadline = self._loop.call_later(timeout, call.fail, grpc.StatusCode.DEADLINE_EXCEEDED)
        self._send(call)
        try:
            response = await call.answer
        finally:
            deadline.cancel()
            self._open.pop(call, None)
            if any(not handler.done() for handler in call.handlers):
                self._later(self._delay(call), self._abandon, call)
        self._on_answer(call, response)
        return response

    def _send(self, call: Call) -> None:
        if self._lost(call):
            self._trace("request lost", call.sender.name, call.method)
            return
        self._later(self._delay(call), self._arrive, call)
        if self._chance.random() < self.weather.doubled:
            # A copy may come long after the call is over: so a fence is put to the test.
            self._later(self.weather.slowest * self._chance.random(), self._arrive, call)

    def _arrive(self, call: Call) -> None:
        if self._manager is None:
            call.fail(grpc.StatusCode.UNAVAILABLE)
        else:
            call.handlers.append(self._manager.spawn(self._serve(call)))

    async def _serve(self, call: Call) -> None:
        service, method = call.method.split("/")
        handler: Callable[..., Awaitable[Any]] = getattr(self._services[service], method)
        try:
            response = await handler(call.request, SimulatedContext(self._loop, call.end))
        except ManagerError as error:
            self._trace("refused", call.sender.name, call.method, error)
            status = refused(error)
            self._answer(call, call.fail, status.code, status)
        except Exception as error:  # noqa: BLE001 -- what the interceptor would call a defect
            self._on_defect(f"{call.method} failed", error)
            self._answer(call, call.fail, grpc.StatusCode.INTERNAL)
        else:
            self._on_served(response)
            self._answer(call, call.succeed, response)

    def _answer(self, call: Call, tell: Callable[..., None], *args: Any) -> None:
        if not self._lost(call):
            self._later(self._delay(call), tell, *args)
            return
        self._trace("answer lost", call.sender.name, call.method)

    def _lost(self, call: Call) -> bool:
        """Decide whether a message is lost; its client may learn so by a broken connection."""
        if call.sender.name not in self.weather.cut and self._chance.random() >= self.weather.lost:
            return False
        if self._chance.random() >= _ANSWER_LOST_UNNOTICED:
            self._later(self._delay(call), call.fail, grpc.StatusCode.UNAVAILABLE)
        return True

    def _abandon(self, call: Call) -> None:
        """Cancel the handlers of a call that its client gave up."""
        for handler in call.handlers:
            handler.cancel()

    def _delay(self, call: Call) -> float:
        if self._chance.random() < self.weather.slow:
            return self._chance.random() * self.weather.slowest
        return 0.0005 + 0.01 * self._chance.random()

    def _later(self, delay: float, callback: Callable[..., Any], *args: Any) -> None:
        """Do something on the network's own account: packets travel on whoever is paused or dead."""
        self._loop.call_later(delay, callback, *args, context=OUTSIDE)


class Channel:
    """A gRPC channel of a process, as the real stubs use it."""

    def __init__(self, network: Network, process: Process) -> None:
        self._network = network
        self._process = process

    def unary_unary(self, path: str, **_: Any) -> Callable[..., Awaitable[Any]]:
        method = path.removeprefix("/overhaul.v1.")

        def send(request: Any, *, timeout: float = 10.0) -> Awaitable[Any]:
            return self._network.call(self._process, method, request, timeout)

        return send

    def unary_stream(self, path: str, **_: Any) -> None:
        """Make nothing: nobody in the simulation opens a stream."""

    async def close(self) -> None:
        """Close nothing."""
