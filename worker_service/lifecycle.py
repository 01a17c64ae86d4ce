import asyncio
from collections.abc import Callable
from enum import IntEnum

import structlog

from worker_service.domain.manager import WorkerDirective, WorkerState

log = structlog.get_logger("worker.lifecycle")


class Stage(IntEnum):
    """How far this worker is on its way to its end; it goes back only from PAUSED."""

    SERVING = 0
    PAUSED = 1
    """Takes nothing new and stays, as the manager asked."""
    FINISHING = 2
    """Ends when what runs has ended, however long that takes."""
    DRAINING = 3
    """Ends when what runs has ended, or when the grace is over."""
    RELEASING = 4
    """Hands back what runs and ends."""


class Lifecycle:
    """Where the worker stands between its start and its end. Used by the event loop alone.

    Args:
        grace: how long running operations may go on after a drain was asked for, in seconds.
        clock: monotonic seconds.
        on_change: called after every change.
    """

    def __init__(self, *, grace: float, clock: Callable[[], float], on_change: Callable[[], None]) -> None:
        self._grace = grace
        self._clock = clock
        self._on_change = on_change
        self._drain_end = 0.0
        self.stage = Stage.SERVING
        self.changed = asyncio.Event()

    @property
    def serving(self) -> bool:
        """Whether new leases are wanted."""
        return self.stage is Stage.SERVING

    @property
    def ending(self) -> bool:
        """Whether this process is on its way to its end."""
        return self.stage >= Stage.FINISHING

    @property
    def state(self) -> WorkerState:
        """What the heartbeats tell."""
        return WorkerState.READY if self.serving else WorkerState.DRAINING

    @property
    def patience(self) -> float | None:
        """How long what runs may still go on, in seconds; ``None`` without limit."""
        if self.stage is Stage.RELEASING:
            return 0.0
        return max(0.0, self._drain_end - self._clock()) if self.stage is Stage.DRAINING else None

    def finish(self) -> None:
        """Take no more leases and end when what runs has ended."""
        self._advance(Stage.FINISHING)

    def drain(self) -> None:
        """Take no more leases and end within the grace; what runs then goes back."""
        if self.stage < Stage.DRAINING:
            self._drain_end = self._clock() + self._grace
        self._advance(Stage.DRAINING)

    def release(self) -> None:
        """Hand back everything now and end."""
        self._advance(Stage.RELEASING)

    def obey(self, directive: WorkerDirective) -> None:
        """Carry out what the manager wants."""
        match directive:
            case WorkerDirective.TERMINATE:
                self.finish()
            case WorkerDirective.DRAIN:
                self._advance(Stage.PAUSED)
            case WorkerDirective.NONE if self.stage is Stage.PAUSED:
                self._enter(Stage.SERVING)
            case _:
                pass

    def _advance(self, stage: Stage) -> None:
        if stage > self.stage:
            self._enter(stage)

    def _enter(self, stage: Stage) -> None:
        log.info("worker stage", stage=stage.name.lower())
        self.stage = stage
        self.changed.set()
        self._on_change()
