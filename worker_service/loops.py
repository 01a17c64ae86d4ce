import asyncio
from collections.abc import Awaitable, Callable

import structlog

from worker_service.backoff import Backoff

_STOP_AGAIN = 0.5

log = structlog.get_logger("worker.loop")


class Loop:
    """A body that is repeated until it is stopped, and whose failures do not end it.

    A failure of the body is a defect: it is logged under the loop's name, and the next turn comes after a
    pause that grows. Expected troubles are the body's own business.

    Args:
        name: what the loop is called in logs.
        body: one turn; it waits by itself until there is something to do.
        backoff: the pauses after failures.
    """

    def __init__(self, name: str, body: Callable[[], Awaitable[None]], *, backoff: Backoff | None = None) -> None:
        self.name = name
        self._body = body
        self._backoff = backoff or Backoff()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to turn, in the running event loop; harmless when it does already."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=self.name)

    async def stop(self) -> None:
        """Cancel the turn under way and wait for its end; harmless when it never began."""
        task, self._task = self._task, None
        while task is not None and not task.done():
            # Repeated, because a library that swallows a cancel must not hold up the process's end.
            task.cancel()
            await asyncio.wait({task}, timeout=_STOP_AGAIN)

    async def _run(self) -> None:
        while True:
            try:
                await self._body()
            except Exception:
                log.exception("loop turn failed", loop=self.name)
                await self._backoff.pause()
            else:
                self._backoff.reset()
