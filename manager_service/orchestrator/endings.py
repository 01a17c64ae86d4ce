import asyncio
from collections.abc import Iterable

import structlog

from manager_service.domain.errors import ParentJobNotFoundError, StoreUnavailableError
from manager_service.domain.model import SECOND, ParentJob
from manager_service.domain.ports import JobReads
from manager_service.orchestrator.bells import Bell

log = structlog.get_logger("manager.orchestrator")

_APART = 1.0


class Endings:
    """Logs the end of parent jobs.

    A hint tells which parent jobs changed, not which ended, so those are read: each once a second at most, however
    many of its children change meanwhile.

    Args:
        store: knows how a parent job stands.
    """

    def __init__(self, store: JobReads) -> None:
        self._store = store
        self._bell = Bell()
        self._changed: dict[str, None] = {}

    def add(self, parent_job_ids: Iterable[str]) -> None:
        """Note parent jobs that changed and may have ended."""
        for parent_job_id in parent_job_ids:
            self._changed[parent_job_id] = None
            self._bell.ring()

    async def turn(self) -> None:
        """Wait for changes, look, and let the next ones gather."""
        await self._bell.wait(None)
        await self.look()
        await asyncio.sleep(_APART)

    async def look(self) -> None:
        """Log which of the changed parent jobs have ended."""
        while self._changed:
            parent_job_id = next(iter(self._changed))
            del self._changed[parent_job_id]
            await self._look_at(parent_job_id)
            await asyncio.sleep(0)

    async def _look_at(self, parent_job_id: str) -> None:
        try:
            parent_job = await self._store.parent_job(parent_job_id)
        except ParentJobNotFoundError:
            return
        except StoreUnavailableError:
            self.add([parent_job_id])
            raise
        if parent_job.state.final:
            _tell(parent_job)


def _tell(parent_job: ParentJob) -> None:
    counts = parent_job.counts
    begin = parent_job.create_time if parent_job.start_time is None else parent_job.start_time
    end = begin if parent_job.end_time is None else parent_job.end_time
    log.info(
        "parent job ended",
        parent_job_id=parent_job.id,
        name=parent_job.spec.name,
        state=parent_job.state.value,
        children=counts.total,
        completed=counts.completed,
        failed=counts.failed,
        cancelled=counts.cancelled,
        skipped=counts.skipped,
        seconds=round((end - begin) / SECOND, 3),
    )
