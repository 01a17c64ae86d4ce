import structlog

from manager_service.domain.fleet import Worker
from manager_service.domain.model import SECOND, Span
from manager_service.domain.ports import Upkeep

log = structlog.get_logger("manager.leasing")

_BATCH = 1_000


class LostWorkers:
    """Logs which workers were lost: those that were silent for longer than a lease lasts.

    The store decides that: it knows of heartbeats at other managers, of outages, by which nobody is lost, and
    whether another manager has logged the loss.

    Args:
        store: finds losses.
    """

    def __init__(self, store: Upkeep) -> None:
        self._store = store

    async def turn(self) -> None:
        """Log the workers that were lost since the last turn of any manager."""
        while True:
            losses = await self._store.note_losses(limit=_BATCH)
            for worker in losses.workers:
                _tell(worker, losses.time - worker.heartbeat_time)
            if len(losses.workers) < _BATCH:
                return


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
