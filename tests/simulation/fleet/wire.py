"""The way between a fleet and its manager: short, and narrow, for a manager does one thing after the other."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from manager_service.api.job_service import JobService
from manager_service.api.server import Services
from manager_service.domain.errors import ManagerError
from manager_service.leasing import LeaseDesk
from tests.simulation.virtual_loop import OUTSIDE, Process

T = TypeVar("T")
Verb = Callable[["Wire"], Coroutine[Any, Any, T]]

COST = 0.000_3
_TENTHS = 10


class UnreachableError(Exception):
    """No manager answered."""


class Wire:
    """Carries calls to the manager that is up, past its gRPC edge; a manager that dies fails them all at once.

    Args:
        loop: the virtual loop.
        chance: draws how long a call is on its way.
        cost: the seconds that each call keeps a manager busy, so that a crowd has to queue.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, chance: random.Random, *, cost: float = COST) -> None:
        self._loop = loop
        self._chance = chance
        self._cost = cost
        self._busy_until = 0.0
        self._manager: Process | None = None
        self._open: dict[asyncio.Future[Any], asyncio.Task[Any] | None] = {}
        self.calls: Counter[int] = Counter()
        self.defects: list[BaseException] = []
        self.desk: LeaseDesk
        self.jobs: JobService

    @property
    def up(self) -> bool:
        """Whether a manager serves."""
        return self._manager is not None

    def open(self, manager: Process, services: Services) -> None:
        """Let a manager be found."""
        self._manager = manager
        self.desk, self.jobs = services.leases._desk, services.jobs
        self._busy_until = self._loop.time()

    def close(self) -> None:
        """Let the manager be gone; whoever waits for it learns so at once."""
        self._manager = None
        for answer in self._open:
            _fail(answer)

    async def idle(self) -> None:
        """Wait until the manager has answered what it was asked."""
        if tasks := [task for task in self._open.values() if task is not None and not task.done()]:
            await asyncio.wait(tasks, timeout=5)

    async def ask(self, verb: Verb[T], *, abandon: Callable[[], bool] = lambda: True) -> T:
        """Send a call and wait for its answer.

        Args:
            verb: what the manager does.
            abandon: whether the manager learns that a caller is gone; one that was cut off says nothing.

        Raises:
            UnreachableError: no manager answered.
            ManagerError: it refused.
        """
        self.calls[int(self._loop.time() * _TENTHS)] += 1
        answer: asyncio.Future[T] = self._loop.create_future()
        self._open[answer] = None
        self._loop.call_at(self._turn(), self._arrive, verb, answer, context=OUTSIDE)
        try:
            return await answer
        finally:
            task = self._open.pop(answer)
            if task is not None and not task.done() and abandon():
                task.cancel()

    def peak(self, begin: float, end: float, *, tenths: int = _TENTHS) -> int:
        """Return the most calls that were sent within so many tenths of a second of a span of time."""
        first, last = int(begin * _TENTHS), int(end * _TENTHS)
        return max(sum(self.calls[at + more] for more in range(tenths)) for at in range(first, last + 1))

    def _turn(self) -> float:
        """Return when the manager comes to a call that is sent now."""
        arrival = self._loop.time() + 0.0005 + 0.01 * self._chance.random()
        if self._manager is None:
            return arrival
        begin = max(arrival, self._busy_until)
        self._busy_until = begin + self._cost
        return begin

    def _arrive(self, verb: Verb[Any], answer: asyncio.Future[Any]) -> None:
        if self._manager is None:
            _fail(answer)
        elif answer in self._open and not answer.done():
            task = self._open[answer] = self._manager.spawn(verb(self))
            task.add_done_callback(partial(self._answered, answer), context=OUTSIDE)

    def _answered(self, answer: asyncio.Future[Any], task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and not isinstance(error, ManagerError):
            self.defects.append(error)
        if answer.done():
            return
        if error is None:
            answer.set_result(task.result())
        else:
            answer.set_exception(error)


def _fail(answer: asyncio.Future[Any]) -> None:
    if not answer.done():
        answer.set_exception(UnreachableError())
        answer.exception()
