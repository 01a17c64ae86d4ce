import asyncio
from dataclasses import dataclass

from manager_service.domain.events import EventPage
from manager_service.domain.ports import JobReads
from manager_service.domain.watch import Batch
from manager_service.orchestrator.bells import Bells

_PAGE = 500
# Shorter than the patience of a watcher that was not rung, who has to see what no ring told of.
_FRESH = 0.5
_KEPT = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """A page that was asked for: after which event, when, the mark of that moment, and what comes of it."""

    after: int
    time: float
    mark: object
    page: asyncio.Future[tuple[EventPage, Batch]]


class EventPages:
    """Reads for all watchers of a parent job at once what they ask for at the same time.

    Args:
        store: has the events.
        bells: tell whether something happened since a page was read.
    """

    def __init__(self, store: JobReads, bells: Bells) -> None:
        self._store = store
        self._bells = bells
        self._readings: dict[str, _Reading] = {}

    async def after(self, parent_job_id: str, sequence: int) -> tuple[EventPage, Batch]:
        """Return the page after a sequence as it is now, and its events; raise ``ParentJobNotFoundError``."""
        reading = self._readings.get(parent_job_id)
        if reading is None or not self._serves(reading, parent_job_id, sequence):
            reading = self._begin(parent_job_id, sequence)
        # One who leaves takes nothing away from the others.
        return await asyncio.shield(reading.page)

    def _serves(self, reading: _Reading, parent_job_id: str, sequence: int) -> bool:
        fresh = asyncio.get_running_loop().time() - reading.time < _FRESH
        return fresh and reading.after == sequence and reading.mark is self._bells.mark(parent_job_id)

    def _begin(self, parent_job_id: str, sequence: int) -> _Reading:
        reading = _Reading(
            after=sequence,
            time=asyncio.get_running_loop().time(),
            mark=self._bells.mark(parent_job_id),
            page=asyncio.ensure_future(self._read(parent_job_id, sequence)),
        )
        # All who asked may have left before it failed.
        reading.page.add_done_callback(lambda page: page.cancelled() or page.exception())
        self._readings.pop(parent_job_id, None)
        self._forget_old(reading.time)
        self._readings[parent_job_id] = reading
        return reading

    def _forget_old(self, now: float) -> None:
        """Forget pages that serve nobody any more, which may be large; the one begun last stands last."""
        while self._readings and not self._may_serve(next(iter(self._readings.values())), now):
            del self._readings[next(iter(self._readings))]

    def _may_serve(self, reading: _Reading, now: float) -> bool:
        return now - reading.time < _FRESH and len(self._readings) < _KEPT

    async def _read(self, parent_job_id: str, sequence: int) -> tuple[EventPage, Batch]:
        page = await self._store.events(parent_job_id, after=sequence, limit=_PAGE)
        return page, Batch(events=page.events)
