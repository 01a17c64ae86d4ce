import asyncio
from collections.abc import Iterable

import structlog

from manager_service.domain.errors import ParentJobNotFoundError
from manager_service.domain.ports import Upkeep
from manager_service.orchestrator.bells import Bell

log = structlog.get_logger("manager.orchestrator")

_BATCH = 1_000
_LOOK_EVERY = 30.0


class Sweeps:
    """Ends the pending children of parent jobs that are cancelling, in bounded batches, taking turns.

    Args:
        store: ends a batch at a time.
    """

    def __init__(self, store: Upkeep) -> None:
        self._store = store
        self._bell = Bell()
        self._ending: dict[str, None] = {}

    def add(self, parent_job_ids: Iterable[str]) -> None:
        """Note parent jobs that began to cancel."""
        for parent_job_id in parent_job_ids:
            self._ending[parent_job_id] = None
            self._bell.ring()

    async def turn(self) -> None:
        """Sweep until nothing is left, then wait for more; also what no hint told of is found."""
        self.add(await self._store.ending_parent_jobs())
        while self._ending:
            await self._batch(next(iter(self._ending)))
            await asyncio.sleep(0)
        await self._bell.wait(_LOOK_EVERY)

    async def _batch(self, parent_job_id: str) -> None:
        """End one batch; the parent job goes behind the others until none is left of it."""
        try:
            more = await self._store.sweep(parent_job_id, limit=_BATCH)
        except ParentJobNotFoundError:
            more = False
        self._ending.pop(parent_job_id, None)
        if more:
            self._ending[parent_job_id] = None
        else:
            # Every manager that helped finds out that nothing is left; the end of the job is logged once.
            log.debug("parent job swept", parent_job_id=parent_job_id)
