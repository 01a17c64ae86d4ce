import asyncio

import structlog

from manager_service.domain.model import SECOND
from manager_service.domain.ports import Upkeep
from manager_service.orchestrator.bells import Bell

log = structlog.get_logger("manager.orchestrator")

_BATCH = 1_000
_LONGEST = 10.0
_SOON = 0.05
_SELDOM = 1.0
_APART = 0.05
_NOTHING_DONE = 0.5


class Timers:
    """Does what falls due: delayed children become claimable, deadlines end children.

    It sleeps until the next due time that the store knows. A commit may bring an earlier one, so it looks again
    soon after one that did, and once a second where commits may have: those of a manager that was killed since.
    Never at once, because then whoever waits for a new child is at work.

    Args:
        store: knows what is due.
    """

    def __init__(self, store: Upkeep) -> None:
        self._store = store
        self._bell = Bell()
        self._ring: asyncio.TimerHandle | None = None

    def look(self, *, soon: bool) -> None:
        """Look for the next due time again, because something changed; soon, if that brought a due time."""
        loop = asyncio.get_running_loop()
        when = loop.time() + (_SOON if soon else _SELDOM)
        if self._ring is not None:
            if self._ring.when() <= when:
                return
            self._ring.cancel()
        self._ring = loop.call_at(when, self._rung)

    def _rung(self) -> None:
        self._ring = None
        self._bell.ring()

    async def turn(self) -> None:
        """Do what is due, then wait for the next due time or a change."""
        done = await self._store.release_due()
        done += await self._fail_overdue()
        due = await self._store.next_available()
        if due is None:
            await self._bell.wait(_LONGEST)
        else:
            # What is due but not done here is another's, such as a lease that ran out.
            least = _APART if done else _NOTHING_DONE
            await self._bell.wait(min(_LONGEST, max(due / SECOND, least if due <= 0 else 0.001)))
        await asyncio.sleep(_APART)

    async def _fail_overdue(self) -> int:
        total = 0
        while failed := await self._store.fail_overdue(limit=_BATCH):
            total += failed
            await asyncio.sleep(0)
        if total:
            log.info("children past the deadline", children=total)
        return total
