import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from worker_service.domain.errors import OperationCancelledError
from worker_service.domain.operation import Progress
from worker_service.domain.settlement import StopReason

_MESSAGES = {
    StopReason.CANCELLED: "The operation was cancelled.",
    StopReason.TIMEOUT: "The operation ran longer than its timeout.",
    StopReason.DRAIN: "The worker is stopping.",
    StopReason.LOST: "The lease is gone.",
}
_LOOK_AGAIN = 0.5


class LogSink(Protocol):
    """Where an operation's log lines go."""

    def write(self, level: str, message: str) -> None:
        """Take a line, from any thread."""


class LeaseControl:
    """What one running operation may ask of its worker; the side that stops and fences it is the worker's.

    The fence is the moment, on this worker's own clock, until which the lease is certainly its own. Past it
    the operation waits between statements: it goes on when a heartbeat was answered, and ends when the lease
    turns out to be lost. Safe from any thread.

    Between statements it waits as well while the target is held back.

    Args:
        fence: when the lease is first in doubt, on ``clock``.
        clock: monotonic seconds.
        sink: where log lines go.
        held_back: why nothing is to begin on the target just now; the empty text when it may.
    """

    def __init__(
        self,
        *,
        fence: float,
        clock: Callable[[], float],
        sink: LogSink,
        held_back: Callable[[], str] = str,
    ) -> None:
        self._fence = fence
        self._clock = clock
        self._sink = sink
        self._held_back = held_back
        self._stop: StopReason | None = None
        self._progress: Progress | None = None
        self._changed = threading.Condition()

    @property
    def stop_reason(self) -> StopReason | None:
        """Why the operation has to stop; ``None`` while it may go on."""
        return self._stop

    @property
    def fence(self) -> float:
        """When the lease is in doubt."""
        return self._fence

    @property
    def latest_progress(self) -> Progress | None:
        """How far the operation said it is; ``None`` before it said anything."""
        return self._progress

    def checkpoint(self) -> None:
        """Wait while the lease is in doubt or the target is held back.

        Raises:
            OperationCancelledError: the operation has to stop.
        """
        self._wait_for_the_lease()
        if self._held_back():
            self._wait_to_be_let_go()
            self._wait_for_the_lease()

    def _wait_for_the_lease(self) -> None:
        if self._stop is None and self._clock() < self._fence:
            return
        with self._changed:
            while self._stop is None and self._clock() >= self._fence:
                self._changed.wait(_LOOK_AGAIN)
        if self._stop is not None:
            raise OperationCancelledError(_MESSAGES[self._stop])

    def _wait_to_be_let_go(self) -> None:
        """Wait until the target is let go or the operation has to stop, and tell for what."""
        before, began, told = self._progress, self._clock(), ""
        while self._stop is None and (reason := self._held_back()):
            if not told:
                self.log("info", f"waits: {reason}")
            if reason != told:
                self._progress = replace(before or Progress(phase=""), phase=f"held back: {reason}")
                told = reason
            with self._changed:
                if self._stop is None:
                    self._changed.wait(_LOOK_AGAIN)
        if self._stop is None:
            # Without any the manager would keep showing the last that it was told.
            self._progress = before or Progress(phase="goes on")
            self.log("info", f"goes on after {self._clock() - began:.0f} s")

    def progress(self, progress: Progress) -> None:
        """Keep the latest progress for the next heartbeat."""
        self._progress = progress

    def log(self, level: str, message: str) -> None:
        """Append a line to the child job's log."""
        self._sink.write(level, message)

    def renew(self, fence: float) -> None:
        """Move the fence forward, never back, and let a waiting operation go on."""
        with self._changed:
            self._fence = max(self._fence, fence)
            self._changed.notify_all()

    def stop(self, reason: StopReason) -> bool:
        """Tell the operation to stop; the first reason stays, but a lost lease outdoes all.

        Returns:
            Whether it had not been told before.
        """
        with self._changed:
            first = self._stop is None
            if first or reason is StopReason.LOST:
                self._stop = reason
            self._changed.notify_all()
        return first
