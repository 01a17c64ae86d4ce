from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile

from manager_service.domain.fleet import Registration
from manager_service.domain.model import SECOND, Instant, Span
from manager_service.domain.ports import Clock, FleetVerbs

KEPT: Span = 2 * 86_400 * SECOND
"""How long a silent session is remembered: longer than the store keeps one that is gone."""

_PAGE = 1_000


@dataclass(slots=True)
class _Session:
    worker_name: str
    targets: tuple[str, ...]
    call_time: Span
    poll_time: Instant | None = None


class Sessions:
    """Which session serves which targets, in memory, to choose whom to wake; the store decides who may lease.

    A worker that crashed never says goodbye, so what has been silent for long is forgotten when another opens.
    Forgetting costs no call: the polls of a session that is not known here are woken for every target.

    Args:
        clock: tells who has been silent.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sessions: dict[str, _Session] = {}
        self._by_worker: dict[str, str] = {}
        self._serving: dict[str, dict[str, None]] = {}

    async def restore(self, store: FleetVerbs) -> None:
        """Learn the sessions that an earlier manager opened."""
        after = ""
        while True:
            workers = await store.workers(include_gone=False, after=after, limit=_PAGE)
            for worker in workers:
                self._add(worker.session_id, worker.worker_name, worker.targets)
            if len(workers) < _PAGE:
                return
            after = workers[-1].worker_name

    def opened(self, session_id: str, registration: Registration) -> None:
        """Note a session and what it serves; the worker's older one is forgotten, and all long silent ones."""
        self._forget_silent()
        self._add(session_id, registration.worker_name, tuple(target.name for target in registration.targets))

    def closed(self, session_id: str) -> None:
        """Forget a session."""
        session = self._sessions.pop(session_id, None)
        if session is None:
            return
        if self._by_worker.get(session.worker_name) == session_id:
            del self._by_worker[session.worker_name]
        for target in session.targets:
            self._serving[target].pop(session_id, None)
            if not self._serving[target]:
                del self._serving[target]

    def known(self, session_id: str) -> bool:
        """Tell whether it is known what the session serves."""
        return session_id in self._sessions

    def called(self, session_id: str) -> None:
        """Note that a session gave a sign of life."""
        if session := self._sessions.pop(session_id, None):
            session.call_time = self._clock.monotonic()
            self._sessions[session_id] = session

    def polled(self, session_id: str) -> None:
        """Note that a session polled."""
        self.called(session_id)
        if session := self._sessions.get(session_id):
            session.poll_time = self._clock.wall()

    def poll_time(self, session_id: str) -> Instant | None:
        """Return when a session last polled here."""
        session = self._sessions.get(session_id)
        return session.poll_time if session else None

    def serving(self, target: str) -> Iterator[str]:
        """Go through the sessions that serve a target, the one chosen longest ago first."""
        return iter(tuple(self._serving.get(target, ())))

    def chosen(self, target: str, session_id: str) -> None:
        """Put a session behind the others that serve the target."""
        serving = self._serving.get(target, {})
        if session_id in serving:
            del serving[session_id]
            serving[session_id] = None

    def _add(self, session_id: str, worker_name: str, targets: tuple[str, ...]) -> None:
        poll_time = self.poll_time(session_id)
        self.closed(session_id)
        self.closed(self._by_worker.get(worker_name, ""))
        self._sessions[session_id] = _Session(worker_name, targets, self._clock.monotonic(), poll_time)
        self._by_worker[worker_name] = session_id
        for target in targets:
            self._serving.setdefault(target, {})[session_id] = None

    def _forget_silent(self) -> None:
        """Forget who has been silent for long; whoever called last stands last."""
        before = self._clock.monotonic() - KEPT
        for session_id in tuple(takewhile(lambda one: self._sessions[one].call_time < before, self._sessions)):
            self.closed(session_id)
