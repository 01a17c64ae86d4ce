from collections.abc import AsyncIterator

import structlog

from manager_service.domain.fleet import SessionState, Worker
from manager_service.domain.model import SECOND, Span
from manager_service.domain.ports import JobStore
from manager_service.leasing.sessions import Sessions

log = structlog.get_logger("manager.leasing")

_PAGE = 1_000
_OPEN = frozenset({SessionState.READY, SessionState.DRAINING, SessionState.STALE})


class LostWorkers:
    """Logs which workers were lost: those that were silent for longer than a lease lasts.

    Whoever is silent here is looked up in the store: it knows of outages of the manager, by which nobody is lost.

    Args:
        store: decides whether a session is lost.
        sessions: remembers who called when.
        lease_duration: the longest silence of a worker that is not lost.
    """

    def __init__(self, store: JobStore, sessions: Sessions, *, lease_duration: Span) -> None:
        self._store = store
        self._sessions = sessions
        self._lease_duration = lease_duration

    async def turn(self) -> None:
        """Log each worker that was lost since the last turn."""
        silent = self._sessions.silent(self._lease_duration)
        if not silent:
            return
        # Any transaction makes up for an outage before anything else.
        await self._store.mark_alive()
        known = {worker.session_id: worker async for worker in self._workers()}
        for session_id, silence in silent.items():
            worker = known.get(session_id)
            if worker is not None and worker.state in _OPEN:
                continue
            self._sessions.given_up(session_id)
            if worker is not None and worker.state is SessionState.LOST:
                _tell(worker, silence)

    async def _workers(self) -> AsyncIterator[Worker]:
        after = ""
        while True:
            page = await self._store.workers(include_gone=True, after=after, limit=_PAGE)
            for worker in page:
                yield worker
            if len(page) < _PAGE:
                return
            after = page[-1].worker_name


def _tell(worker: Worker, silence: Span) -> None:
    log.warning(
        "worker lost",
        worker_name=worker.worker_name,
        session_id=worker.session_id,
        host=worker.host,
        pid=worker.pid,
        targets=len(worker.targets),
        silent_seconds=round(silence / SECOND, 1),
    )
