"""Operations that take virtual time: what the threads of a worker would run."""

import asyncio
import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

from tests.simulation.virtual_loop import OWNER
from worker_service.catalogue import Served
from worker_service.domain.lock import Lock
from worker_service.domain.operation import Operation, OperationSpec
from worker_service.domain.outcome import Failure, FailureCategory, Outcome, ReleaseReason, Result, Verdict
from worker_service.domain.ports import Control, OperationWorker
from worker_service.domain.target import Target, TargetDescription
from worker_service.execution import Execution

NAMES = ("vacuum", "analyze", "reindex")
_LOOK_AGAIN = 0.5


class SimulatedEngine:
    """An engine whose operations are never called: ``VirtualThreads`` runs them."""

    name = "simulated"
    schemes = frozenset({"simulated"})

    def check(self, target: Target) -> None:
        """Accept any target."""

    def describe(self, target: Target) -> TargetDescription:
        """Describe a target by its URL: its identity, then the keys of its locks; a shared one begins with ~."""
        keys = target.url.split("|")
        locks = tuple(Lock(key=key.removeprefix("~"), exclusive=not key.startswith("~")) for key in keys[1:])
        specs = tuple(OperationSpec(name=name, description=name, locks=locks) for name in NAMES)
        return TargetDescription(engine_version="1", identity=keys[0], operations=specs)

    def worker(self, target: Target, control: Control) -> OperationWorker:
        raise NotImplementedError

    def plan(self, target: Target, operation: Operation) -> tuple[str, ...]:
        raise NotImplementedError


class VirtualThreads:
    """Stands in for a runner's pool of threads."""

    def __init__(self, chance: random.Random, trace: Callable[..., None], *, longest: Callable[[], float]) -> None:
        self._chance = chance
        self._trace = trace
        self._longest = longest

    def submit(
        self, run: Any, loop: asyncio.AbstractEventLoop, execution: Execution, served: Served
    ) -> "SimulatedOperation":
        """Begin an operation; ``run`` is the runner's method that a thread would execute."""
        operation = SimulatedOperation(self._chance, loop, execution, run.__self__._returned, self._longest())
        cast("Any", execution).simulated = operation
        owner = OWNER.get()
        lease = execution.lease
        self._trace("begins", owner and owner.name, lease.operation.child_job_id[-3:], lease.operation.attempt)
        return operation

    def shutdown(self, *, wait: bool, cancel_futures: bool) -> None:
        """End nothing: operations that still run are left to themselves."""


class SimulatedOperation:
    """A few statements one after the other, each waiting for the fence as the real ones do."""

    def __init__(
        self,
        chance: random.Random,
        loop: asyncio.AbstractEventLoop,
        execution: Execution,
        returned: Callable[[Execution, Result], None],
        longest: float,
    ) -> None:
        self._chance = chance
        self._loop = loop
        self._execution = execution
        self._returned = returned
        self._left = [longest * chance.random() ** 3 for _ in range(chance.randint(1, 3))]
        self._deaf = chance.random() < 0.1
        self._over = False
        self._loop.call_soon(self._next)

    def interrupt(self) -> None:
        """Stop the statement that runs, soon; a deaf one does not listen."""
        if not self._deaf:
            self._loop.call_later(0.2 * self._chance.random(), self._end, Result(outcome=Outcome.CANCELLED))

    def _next(self) -> None:
        control = self._execution.control
        if self._over:
            return
        if control.stop_reason is not None:
            self._end(Result(outcome=Outcome.CANCELLED))
        elif self._loop.time() >= control.fence:
            self._loop.call_later(_LOOK_AGAIN, self._next)
        elif self._left:
            control.checkpoint()
            if self._chance.random() < 0.3:
                control.log("info", "a statement begins")
            self._loop.call_later(self._left.pop(), self._next)
        else:
            self._end(result(self._chance))

    def _end(self, ended: Result) -> None:
        if not self._over:
            self._over = True
            self._execution._returned.set()
            self._returned(self._execution, ended)


def result(chance: random.Random) -> Result:
    """Draw how an operation ends."""
    kind = chance.random()
    if kind < 0.4:
        return Result(outcome=Outcome.COMPLETED, verdict=Verdict.EFFECTIVE)
    if kind < 0.75:
        failure = Failure(
            reason="SIMULATED",
            message="it failed",
            category=FailureCategory.LOCKED,
            retryable=chance.random() < 0.7,
        )
        return Result(outcome=Outcome.FAILED, failure=failure)
    if kind < 0.95:
        wait = timedelta(seconds=chance.choice([0, 0, 1]))
        return Result(outcome=Outcome.RELEASED, release=ReleaseReason.TARGET_BUSY, retry_after=wait)
    return Result(outcome=chance.choice([Outcome.SKIPPED, Outcome.CANCELLED]))
