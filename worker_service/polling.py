import asyncio
from collections.abc import Callable

import structlog

from worker_service.backoff import Backoff
from worker_service.domain.errors import SessionClosedError, SessionSupersededError
from worker_service.domain.manager import Lease, ManagerPort, Session
from worker_service.inventory import Inventory
from worker_service.sessions import Sessions

log = structlog.get_logger("worker.poll")

Accept = Callable[[tuple[Lease, ...], float], None]
_SOON = 0.5


class PollTurn:
    """The right to ask for leases, and the sequence that orders the asking.

    A sequence lower than one the manager has seen is granted nothing, so there is never more than one poll
    under way, be it hanging or travelling with a report; a retry repeats its sequence within the same turn.
    """

    def __init__(self) -> None:
        self._taken = False
        self._given_back = asyncio.Event()
        self._sequence = 0

    async def take(self) -> int:
        """Wait for the turn and return the new poll's sequence. For one waiter."""
        while (sequence := self.try_take()) is None:
            self._given_back.clear()
            await self._given_back.wait()
        return sequence

    def try_take(self) -> int | None:
        """Return the new poll's sequence, ``None`` when another poll is under way."""
        if self._taken:
            return None
        self._taken = True
        self._sequence += 1
        return self._sequence

    def give_back(self) -> None:
        """End the turn."""
        self._taken = False
        self._given_back.set()


class Poller:
    """Hangs at the manager for leases whenever slots are free and no report asks for them.

    A poll that hangs is not replaced when more slots become free: it is answered as soon as there is
    anything to do, and the next one asks for the rest.

    Args:
        manager: the far side.
        sessions: this process's registration.
        inventory: the slots.
        turn: shared with the reporter.
        accept: takes leases and the time their request was sent.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        manager: ManagerPort,
        sessions: Sessions,
        inventory: Inventory,
        turn: PollTurn,
        accept: Accept,
        clock: Callable[[], float],
    ) -> None:
        self._manager = manager
        self._sessions = sessions
        self._inventory = inventory
        self._turn = turn
        self._accept = accept
        self._clock = clock
        self._changed = inventory.watch()
        self._backoff = Backoff(base=0.02, cap=1.0)

    async def poll(self) -> None:
        """Wait for a free slot, then poll once."""
        await self._free_slot()
        sequence = await self._turn.take()
        try:
            if max_leases := self._inventory.free:
                await self._poll(sequence, max_leases)
        except SessionSupersededError:
            self._sessions.superseded()
        except SessionClosedError:
            await self._backoff.pause()
        finally:
            self._turn.give_back()

    async def _free_slot(self) -> None:
        while not self._inventory.free:
            self._changed.clear()
            await self._changed.wait()

    async def _poll(self, sequence: int, max_leases: int) -> None:
        sent = self._clock()

        async def send(session: Session) -> tuple[Lease, ...]:
            nonlocal sent
            sent = self._clock()
            return await self._manager.acquire(
                session.session_id, sequence=sequence, max_leases=max_leases, wait=session.poll_window
            )

        leases = await self._sessions.call(send)
        if leases:
            self._backoff.reset()
            self._accept(leases, sent)
        elif self._clock() - sent < _SOON:
            # A manager that answers empty at once (shutting down, or a replayed sequence) must not be flooded.
            await self._backoff.pause()
