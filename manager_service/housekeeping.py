"""What the manager does by itself, again and again, and the one shape of every loop."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

import structlog

from manager_service.domain.errors import ManagerError, StoreUnavailableError
from manager_service.domain.fleet import Timing
from manager_service.domain.model import SECOND, Span
from manager_service.domain.ports import Upkeep

log = structlog.get_logger("manager.housekeeping")

LOOK_EVERY: Span = 2 * SECOND
RETAIN_EVERY: Span = 60 * SECOND
EVENTS_KEPT = 10_000
SESSIONS_KEPT: Span = 86_400 * SECOND
# Longer than a year, for there are jobs that run once in one.
DURATIONS_KEPT: Span = 400 * 86_400 * SECOND

_BATCH = 1_000
_BATCHES_PER_TURN = 200
_LONGEST_BACKOFF = 30.0

Body = Callable[[], Awaitable[None]]


class Loop:
    """A body that is repeated until it is stopped, and whose failures do not end it.

    Args:
        name: what the loop is called in logs.
        body: one turn; it may wait by itself.
        every: the pause between two turns.
    """

    def __init__(self, name: str, body: Body, *, every: Span = 0) -> None:
        self.name = name
        self._body = body
        self._every = every
        self._failures = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to turn, in the running event loop."""
        self._task = asyncio.create_task(self._run(), name=self.name)

    async def stop(self) -> None:
        """End the turn under way and wait until it has ended; harmless when it never began."""
        if self._task is None:
            return
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._task = None

    async def _run(self) -> None:
        while True:
            await self._turn()
            backoff = min(_LONGEST_BACKOFF, 0.1 * 2 ** min(self._failures, 10)) if self._failures else 0.0
            await asyncio.sleep(max(self._every / SECOND, backoff))

    async def _turn(self) -> None:
        try:
            await self._body()
        except ManagerError as error:
            self._failures += 1
            log.warning("loop turn failed", loop=self.name, why=str(error), failures=self._failures)
        except Exception:
            self._failures += 1
            log.exception("loop turn failed", loop=self.name, failures=self._failures)
        else:
            self._failures = 0


class Housekeeping:
    """Runs loops: the upkeep of the store, and those that others hand in.

    Args:
        store: what is kept.
        timing: the store takes two heartbeat intervals without a mark for an outage, so marks come more often.
        retention: how long finished parent jobs are kept.
        loops: further loops, run alike.
        tell: hears whether the store can be written to, when that changes; at first it can.
    """

    def __init__(
        self,
        store: Upkeep,
        *,
        timing: Timing,
        retention: Span,
        loops: Sequence[Loop] = (),
        tell: Callable[[bool], Awaitable[None]] | None = None,
    ) -> None:
        self._store = store
        self._retention = retention
        self._tell = tell
        self._store_is_there = True
        often = min(LOOK_EVERY, timing.heartbeat_interval // 2)
        self._loops = (
            Loop("mark_alive", self._mark_alive, every=often),
            Loop("expire_leases", self._expire_leases, every=often),
            Loop("retention", self._retain, every=RETAIN_EVERY),
            *loops,
        )

    def start(self) -> None:
        """Start every loop."""
        for loop in self._loops:
            loop.start()

    async def stop(self) -> None:
        """Stop every loop and wait until all have ended."""
        await asyncio.gather(*(loop.stop() for loop in self._loops))

    async def _mark_alive(self) -> None:
        """Write the mark; whether that can be done is the health of the store, looked at without any backoff."""
        try:
            await self._store.mark_alive()
        except StoreUnavailableError as error:
            await self._note(there=False, why=str(error))
        else:
            await self._note(there=True)

    async def _note(self, *, there: bool, why: str = "") -> None:
        if there == self._store_is_there:
            return
        self._store_is_there = there
        if there:
            log.info("the job store is back")
        else:
            log.warning("the job store is away; no leases are granted", why=why)
        if self._tell is not None:
            await self._tell(there)

    async def _expire_leases(self) -> None:
        await self._drain("leases expired", lambda: self._store.expire_leases(limit=_BATCH))

    async def _retain(self) -> None:
        age = self._retention
        await self._drain("parent jobs pruned", lambda: self._store.prune(age=age, limit=_BATCH))
        await self._drain("events trimmed", lambda: self._store.trim_events(keep=EVENTS_KEPT, limit=_BATCH))
        await self._store.prune_sessions(age=SESSIONS_KEPT)
        await self._drain(
            "durations pruned", lambda: self._store.prune_durations(age=DURATIONS_KEPT, limit=_BATCH)
        )

    async def _drain(self, event: str, piece: Callable[[], Awaitable[int]]) -> None:
        """Do piece after piece until nothing is left, or for so many that the rest can wait for the next turn."""
        total = 0
        for _ in range(_BATCHES_PER_TURN):
            done = await piece()
            total += done
            if done < _BATCH:
                break
            await asyncio.sleep(0)
        if total:
            log.info(event, rows=total)
