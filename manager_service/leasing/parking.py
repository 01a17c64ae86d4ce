from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from manager_service.domain.errors import OverloadedError
from manager_service.leasing.sessions import Sessions
from manager_service.leasing.waiter import Waiter

MAX_PARKED = 10_000
_MAX_HOPS = 3
_RETRY_AFTER = 1.0


class ParkedPoll(Waiter):
    """A poll that waits for a child; ``errand`` is the target whose new child it was woken for."""

    def __init__(self, sequence: int) -> None:
        super().__init__()
        self.sequence = sequence
        self.errand: str | None = None
        self.hops = 0

    def send(self, target: str, hops: int) -> None:
        """Wake the poll for a new child of the target."""
        self.errand, self.hops = target, hops
        self.ring()

    def done(self) -> None:
        """Note that the poll has looked, so that nobody else has to in its place."""
        self.errand = None


class Parking:
    """The polls that wait, at most one per session, and the choice of whom to wake.

    Args:
        sessions: tells who serves a target.
        most: how many polls may wait.
    """

    def __init__(self, sessions: Sessions, *, most: int = MAX_PARKED) -> None:
        self._sessions = sessions
        self._most = most
        self._polls: dict[str, ParkedPoll] = {}
        self._stopping = False

    @property
    def stopping(self) -> bool:
        """Whether no poll may wait any more."""
        return self._stopping

    def __len__(self) -> int:
        return len(self._polls)

    @contextmanager
    def place(self, session_id: str, sequence: int) -> Iterator[ParkedPoll]:
        """Let a poll wait; one of the same session with a lower or equal sequence ends.

        Raises:
            OverloadedError: too many polls wait.
        """
        poll = ParkedPoll(sequence)
        older = self._polls.get(session_id)
        if self._stopping or (older and older.sequence > sequence):
            poll.end()
            yield poll
            return
        if older is None and len(self._polls) >= self._most:
            raise OverloadedError("the queue of waiting polls", _RETRY_AFTER)
        self.end(session_id)
        self._polls[session_id] = poll
        try:
            yield poll
        finally:
            if self._polls.get(session_id) is poll:
                del self._polls[session_id]
            self._pass_on(poll)

    def wake(self, ready: Mapping[str, int]) -> None:
        """Wake one poll per new child, among the sessions that serve its target."""
        if self._polls:
            for target, children in ready.items():
                self._wake(target, children, hops=0)

    def look(self, session_id: str) -> None:
        """Let the poll of a session look again, because something about the session changed."""
        if poll := self._polls.get(session_id):
            poll.ring()

    def end(self, session_id: str, *, below: int | None = None) -> None:
        """End the poll of a session; with ``below`` only one of a lower sequence."""
        poll = self._polls.get(session_id)
        if poll and (below is None or poll.sequence < below):
            poll.end()

    def missed(self, poll: ParkedPoll) -> None:
        """Send another poll on an errand that this one found nothing on; a few times, then it was taken."""
        if poll.errand and poll.hops < _MAX_HOPS:
            target, poll.errand = poll.errand, None
            self._wake(target, 1, hops=poll.hops + 1)
        poll.done()

    def stop(self) -> None:
        """End every poll, now and from now on."""
        self._stopping = True
        for poll in self._polls.values():
            poll.end()

    def _pass_on(self, poll: ParkedPoll) -> None:
        """Send another poll on an errand that this one did not live to do."""
        if poll.errand and not self._stopping:
            self._wake(poll.errand, 1, hops=poll.hops)

    def _wake(self, target: str, children: int, *, hops: int) -> None:
        for session_id in self._sessions.serving(target):
            if not children:
                return
            poll = self._polls.get(session_id)
            if poll and not poll.rung and not poll.ended:
                poll.send(target, hops)
                self._sessions.chosen(target, session_id)
                children -= 1
        if children:
            self._wake_unknown()

    def _wake_unknown(self) -> None:
        """Wake the polls of sessions of which it is not known what they serve."""
        for session_id, poll in self._polls.items():
            if not self._sessions.known(session_id):
                poll.ring()
