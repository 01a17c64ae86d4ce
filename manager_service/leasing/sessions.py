from collections.abc import Iterator
from dataclasses import dataclass

from manager_service.domain.fleet import Registration
from manager_service.domain.model import Instant
from manager_service.domain.ports import FleetVerbs

_PAGE = 1_000


@dataclass(slots=True)
class _Session:
    worker_name: str
    targets: tuple[str, ...]
    poll_time: Instant | None = None


class Sessions:
    """Which session serves which targets, in memory, to choose whom to wake; the store decides who may lease."""

    def __init__(self) -> None:
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
        """Note a session and what it serves; the worker's older one is forgotten."""
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

    def polled(self, session_id: str, now: Instant) -> None:
        """Note that a session polled."""
        if session := self._sessions.get(session_id):
            session.poll_time = now

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
        self._sessions[session_id] = _Session(worker_name, targets, poll_time)
        self._by_worker[worker_name] = session_id
        for target in targets:
            self._serving.setdefault(target, {})[session_id] = None
