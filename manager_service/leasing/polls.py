from manager_service.domain.leases import Lease, Poll
from manager_service.domain.model import SECOND, Span
from manager_service.domain.ports import Clock, IdSource, LeaseVerbs
from manager_service.leasing.checks import check_poll
from manager_service.leasing.parking import ParkedPoll, Parking
from manager_service.leasing.sessions import Sessions
from manager_service.leasing.waiter import Signal

_PARKED_PER_SECOND = 200


class Polls:
    """Grants leases, or lets a poll hang until there is one to grant.

    Args:
        store: grants leases.
        sessions: remembers who polled when.
        parking: where polls hang.
        clock: ends them.
        ids: spreads them.
        window: the longest a poll hangs.
    """

    def __init__(
        self,
        store: LeaseVerbs,
        sessions: Sessions,
        parking: Parking,
        *,
        clock: Clock,
        ids: IdSource,
        window: Span,
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._parking = parking
        self._clock = clock
        self._ids = ids
        self._window = window

    async def acquire(self, session_id: str, poll: Poll, *, wait: Span, remaining: Span) -> tuple[Lease, ...]:
        """Grant leases, or wait for one to grant; nothing to do is an empty answer.

        Args:
            session_id: the session.
            poll: what is wished for.
            wait: how long to hang.
            remaining: how long the caller waits for an answer.

        Raises:
            InvalidRequestError: the poll makes no sense.
            SessionUnknownError: there is no such open session.
            SessionSupersededError: a newer instance took over.
            OverloadedError: too many polls hang.
        """
        check_poll(poll, wait)
        self._sessions.polled(session_id)
        if self._parking.stopping:
            return ()
        until = self._clock.monotonic() + self._patience(wait, remaining)
        # The poll can be woken before the store is asked: a child that comes in between is not overlooked.
        with self._parking.place(session_id, poll.sequence) as parked:
            return await self._granted(session_id, poll, parked, until)

    def _patience(self, wait: Span, remaining: Span) -> Span:
        window = int(self._window * (0.9 + 0.1 * self._ids.random()))
        return max(0, min(wait, window, remaining - min(SECOND, remaining // 4)))

    async def _granted(self, session_id: str, poll: Poll, parked: ParkedPoll, until: Span) -> tuple[Lease, ...]:
        while True:
            leases = await self._store.acquire(session_id, poll)
            if leases:
                parked.done()
                return leases
            self._parking.missed(parked)
            left = until - self._clock.monotonic()
            if left <= 0 or await parked.wait(min(left / SECOND, self._look_again())) is Signal.ENDED:
                return ()

    def _look_again(self) -> float:
        """Return the seconds until a poll looks without being woken; all polls together look seldom."""
        return (1 + self._ids.random()) * max(1.0, len(self._parking) / _PARKED_PER_SECOND)
