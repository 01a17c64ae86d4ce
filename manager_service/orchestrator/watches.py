from collections.abc import AsyncGenerator
from dataclasses import replace

from manager_service.domain.errors import ChildJobNotFoundError, FieldViolation, InvalidRequestError
from manager_service.domain.events import Change, ChildJobChange, EventPage
from manager_service.domain.model import SECOND, ChildJob
from manager_service.domain.ports import JobReads
from manager_service.domain.states import ChildJobState
from manager_service.domain.watch import (
    ProgressFeed,
    ProgressFollower,
    ProgressNews,
    ProgressUpdate,
    Snapshot,
    Update,
)
from manager_service.orchestrator.bells import Bells
from manager_service.orchestrator.event_pages import EventPages

_CACHED = 1_000
_LIVE = frozenset({ChildJobState.LEASED, ChildJobState.RUNNING})


class Watches:
    """Tells watchers of parent jobs what happens.

    A watcher reads from the store at its own pace, together with those who ask for the same; a slow one holds up
    nobody and costs no memory.

    Args:
        store: has the events.
        progress: has the progress of running children.
        bells: wake watchers; they ring with the parent job's id.
    """

    def __init__(self, store: JobReads, progress: ProgressFeed, bells: Bells) -> None:
        self._store = store
        self._progress = progress
        self._bells = bells
        self._pages = EventPages(store, bells)

    async def watch(self, parent_job_id: str, after: int | None) -> AsyncGenerator[Update, None]:
        """Follow a parent job until the event of its final state.

        Args:
            parent_job_id: the parent job.
            after: the last sequence that is known; ``None`` begins with a snapshot.

        Raises:
            ParentJobNotFoundError: there is no such parent job, or it was deleted.
            InvalidRequestError: the sequence is not reached yet.
            ShuttingDownError: the manager is stopping.
        """
        # The bell hangs before the store is asked: an event that is written in between is not overlooked.
        with (
            self._bells.hang(parent_job_id) as bell,
            self._progress.follow(parent_job_id, bell.ring) as follower,
        ):
            children = _Children(self._store)
            position = after
            while True:
                self._bells.check()
                if position is None:
                    snapshot = await self._snapshot(parent_job_id, resynced=after is not None)
                    yield snapshot
                    position = snapshot.parent_job.sequence
                page, batch = await self._pages.after(parent_job_id, position)
                _refuse_future(page, position)
                if page.trimmed:
                    after, position = position, None
                    continue
                if page.events:
                    for event in page.events:
                        self._pass(parent_job_id, event.change)
                    yield batch
                    position = page.events[-1].sequence
                    if position < page.last_sequence:
                        continue
                if page.final:
                    return
                for news in follower.due():
                    if child := await children.of(news):
                        yield self._told(child, news)
                await bell.wait(self._patience(follower))

    def _told(self, child: ChildJob, news: ProgressNews) -> ProgressUpdate:
        """Return what is told of a child that was read in this attempt, or in a later one."""
        running = replace(child, attempts=news.attempt, progress=news.progress)
        return ProgressUpdate(
            child_job_id=child.id,
            operation=child.operation,
            target=child.target,
            object=child.object,
            progress=news.progress,
            remaining=self._progress.estimated(running).remaining,
        )

    def _pass(self, parent_job_id: str, change: Change) -> None:
        """Let no progress of an attempt follow the event of its end."""
        if isinstance(change, ChildJobChange):
            over = change.attempts if change.state in _LIVE else change.attempts + 1
            self._progress.passed(parent_job_id, change.child_job_id, over)

    async def _snapshot(self, parent_job_id: str, *, resynced: bool) -> Snapshot:
        return Snapshot(parent_job=await self._store.parent_job(parent_job_id), resynced=resynced)

    def _patience(self, follower: ProgressFollower) -> float:
        until_progress = follower.wait()
        patience = self._bells.patience()
        return patience if until_progress is None else min(patience, until_progress / SECOND)


def _refuse_future(page: EventPage, position: int) -> None:
    if position > page.last_sequence:
        text = f"is {position}, but the last event is {page.last_sequence}"
        raise InvalidRequestError([FieldViolation("after_sequence", text)])


class _Children:
    """What a child is and since when its attempt runs, read once per attempt."""

    def __init__(self, store: JobReads) -> None:
        self._store = store
        self._children: dict[str, ChildJob] = {}

    async def of(self, news: ProgressNews) -> ChildJob | None:
        """Return the child of which something is told; ``None`` when it is gone."""
        known = self._children.get(news.child_job_id)
        if known is not None and known.attempts >= news.attempt:
            return known
        if len(self._children) >= _CACHED:
            self._children.clear()
        try:
            child, _ = await self._store.child_job(news.child_job_id)
        except ChildJobNotFoundError:
            return None
        self._children[news.child_job_id] = child
        return child
