from collections.abc import AsyncGenerator

from manager_service.domain.model import LogPage
from manager_service.domain.ports import JobReads
from manager_service.orchestrator.bells import Bells

_PAGE = 500


class LogReader:
    """Reads logs of attempts, and follows them.

    Args:
        store: has the logs.
        bells: wake those who follow; they ring with the child job's id.
    """

    def __init__(self, store: JobReads, bells: Bells) -> None:
        self._store = store
        self._bells = bells

    async def read(
        self, child_job_id: str, *, attempt: int, offset: int, follow: bool
    ) -> AsyncGenerator[LogPage, None]:
        """Read a log page by page; with ``follow`` until the attempt has ended.

        Raises:
            ChildJobNotFoundError: there is no such child job, or it was deleted.
            ShuttingDownError: the manager is stopping.
        """
        # The bell hangs before the store is asked: a line that is written in between is not overlooked.
        with self._bells.hang(child_job_id) as bell:
            while True:
                self._bells.check()
                page = await self._store.logs(child_job_id, attempt=attempt, offset=offset, limit=_PAGE)
                attempt = page.attempt
                if page.entries:
                    yield page
                    offset = page.offset + len(page.entries)
                elif not follow or page.finished or await self._ended_unbegun(child_job_id, attempt):
                    return
                else:
                    await bell.wait(self._bells.patience())

    async def _ended_unbegun(self, child_job_id: str, attempt: int) -> bool:
        """Tell whether the child ended without an attempt, so that none will come."""
        if attempt:
            return False
        child, _ = await self._store.child_job(child_job_id)
        return child.state.final
