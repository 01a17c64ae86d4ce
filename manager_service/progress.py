"""How far running operations are: unnumbered, told to a watcher at most once a second per child."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from manager_service.domain.model import SECOND, ChildJob, Progress, RunningProgress, Span
from manager_service.domain.pace import Pace, expected_left
from manager_service.domain.ports import Clock, IdSource, JobReads
from manager_service.domain.watch import ProgressNews

MAX_KEPT = 100_000
MAX_PASSED = 1_000
KEPT: Span = 300 * SECOND
"""How long a progress is kept that is not told again: a worker tells that of what it runs with each heartbeat."""

_APART: Span = SECOND


@dataclass(frozen=True, slots=True)
class _Told:
    attempt: int
    progress: Progress


@dataclass(slots=True)
class _Followed:
    """Who follows a parent job, and of which children attempts ended a moment ago."""

    followers: set["Follower"] = field(default_factory=set)
    passed: OrderedDict[str, int] = field(default_factory=OrderedDict)

    def is_late(self, child_job_id: str, attempt: int) -> bool:
        return self.passed.get(child_job_id, 0) > attempt


class _Paces:
    """What was told of running children, and how fast they are; what is told often takes no more room.

    Nobody says here that an attempt has ended, so what was not told again for long is forgotten.
    """

    def __init__(self) -> None:
        self._paces: OrderedDict[str, Pace] = OrderedDict()

    def of(self, child_job_id: str, attempt: int, progress: Progress) -> Pace | None:
        """Return the pace of a child, if this was told of it last."""
        pace = self._paces.get(child_job_id)
        told_last = pace is not None and (pace.attempt, pace.last) == (attempt, progress)
        return pace if told_last else None

    def tell(self, child_job_id: str, attempt: int, progress: Progress, now: Span) -> Pace | None:
        """Note what is told, and return the pace until then; what is told of an older attempt changes nothing."""
        before = self._paces.get(child_job_id)
        if before is None:
            self._paces[child_job_id] = Pace.begun(attempt, progress, now)
        elif before.attempt <= attempt:
            self._paces[child_job_id] = before.told(attempt, progress, now)
            self._paces.move_to_end(child_job_id)
        self._forget_old(now)
        return before

    def _forget_old(self, now: Span) -> None:
        """Forget what was told longest ago: of attempts that have ended, nothing more comes."""
        while len(self._paces) > MAX_KEPT or next(iter(self._paces.values())).last_time < now - KEPT:
            self._paces.popitem(last=False)


class ProgressHub:
    """Tells the progress of running children to those who follow the parent job, each news once.

    Args:
        clock: spaces what followers are told, and tells how fast operations go.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._told = _Paces()
        self._read = _Paces()
        self._followed: dict[str, _Followed] = {}
        self._overtaken: set[str] | None = None

    def publish(self, parent_job_id: str, child_job_id: str, attempt: int, progress: Progress) -> None:
        """Tell how far an attempt is, as a worker says here; the same again is no news."""
        if self._overtaken is not None:
            self._overtaken.add(child_job_id)
        self._spread(parent_job_id, child_job_id, _Told(attempt, progress))

    def passed(self, parent_job_id: str, child_job_id: str, attempt: int) -> None:
        """Note that a watcher was told of the end of every attempt below this one: it hears of them no more."""
        followed = self._followed.get(parent_job_id)
        if followed is None or followed.passed.get(child_job_id, 0) >= attempt:
            return
        followed.passed[child_job_id] = attempt
        followed.passed.move_to_end(child_job_id)
        if len(followed.passed) > MAX_PASSED:
            followed.passed.popitem(last=False)
        for follower in followed.followers:
            follower.drop(child_job_id, attempt)

    def look(self) -> Sequence[str]:
        """Begin to learn what was told elsewhere; return the parent jobs that are followed."""
        self._overtaken = set()
        return sorted(self._followed)

    def learn(self, found: Iterable[RunningProgress]) -> None:
        """Tell what a look found, but for children whose workers came here meanwhile: that is newer."""
        overtaken, self._overtaken = self._overtaken or set(), None
        for one in found:
            if one.child_job_id not in overtaken:
                self._spread(one.parent_job_id, one.child_job_id, _Told(one.attempt, one.progress))

    def estimated(self, child: ChildJob) -> ChildJob:
        """Return a child as it was read, with how long it still takes where that can be told.

        Where its worker tells another manager how far it is, a second look at it tells how fast.
        """
        if child.progress is None:
            return child
        now = self._clock.monotonic()
        pace = self._told.of(child.id, child.attempts, child.progress)
        if pace is None:
            self._read.tell(child.id, child.attempts, child.progress, now)
            pace = self._read.of(child.id, child.attempts, child.progress)
        left = None if pace is None else pace.left(now)
        if left is None:
            left = expected_left(expected=child.expected, begun=child.start_time, now=self._clock.wall())
        return replace(child, remaining=left)

    @contextmanager
    def follow(self, parent_job_id: str, ring: Callable[[], None]) -> Iterator["Follower"]:
        """Follow a parent job; ``ring`` is called when there is something new."""
        follower = Follower(self._clock, ring)
        followed = self._followed.setdefault(parent_job_id, _Followed())
        followed.followers.add(follower)
        try:
            yield follower
        finally:
            followed.followers.discard(follower)
            if not followed.followers:
                del self._followed[parent_job_id]

    def _spread(self, parent_job_id: str, child_job_id: str, told: _Told) -> None:
        before = self._told.tell(child_job_id, told.attempt, told.progress, self._clock.monotonic())
        if before is not None and (before.attempt > told.attempt or _Told(before.attempt, before.last) == told):
            return
        followed = self._followed.get(parent_job_id)
        if followed is None or followed.is_late(child_job_id, told.attempt):
            return
        for follower in followed.followers:
            follower.take(child_job_id, told.attempt, told.progress)


class Follower:
    """What one watcher was not told yet: of each child the latest alone, so that a slow one costs nothing.

    Args:
        clock: spaces what is told of one child.
        ring: wakes the watcher.
    """

    def __init__(self, clock: Clock, ring: Callable[[], None]) -> None:
        self._clock = clock
        self._ring = ring
        self._news: dict[str, _Told] = {}
        self._told_at: dict[str, Span] = {}

    def take(self, child_job_id: str, attempt: int, progress: Progress) -> None:
        """Keep a progress until it may be told."""
        self._news[child_job_id] = _Told(attempt, progress)
        self._ring()

    def drop(self, child_job_id: str, attempt: int) -> None:
        """Do not tell what is kept of an attempt below this one."""
        news = self._news.get(child_job_id)
        if news is not None and news.attempt < attempt:
            del self._news[child_job_id]

    def due(self) -> tuple[ProgressNews, ...]:
        """Return what may be told now, and count it as told."""
        now = self._clock.monotonic()
        self._told_at = {child: at for child, at in self._told_at.items() if now - at < _APART}
        ready = [child for child in self._news if child not in self._told_at]
        self._told_at.update(dict.fromkeys(ready, now))
        news = ((child, self._news.pop(child)) for child in ready)
        return tuple(
            ProgressNews(child_job_id=child, attempt=one.attempt, progress=one.progress) for child, one in news
        )

    def wait(self) -> Span | None:
        """Return how long until more may be told; ``None`` when there is nothing to tell."""
        if not self._news:
            return None
        now = self._clock.monotonic()
        return max(0, min(self._told_at.get(child, now - _APART) + _APART for child in self._news) - now)


class ProgressLooks:
    """Looks once a second for what workers told other managers of the store, while anybody here wants to know.

    By looking alone, and for all parent jobs at once: a hint for each progress would cost every manager more, and
    behind a connection pooler there are none.

    Args:
        store: has what was told last.
        hub: tells it.
        ids: spreads the looks of managers.
    """

    def __init__(self, store: JobReads, hub: ProgressHub, ids: IdSource) -> None:
        self._store = store
        self._hub = hub
        self._ids = ids

    async def turn(self) -> None:
        """Wait, then look."""
        await asyncio.sleep((0.5 + self._ids.random()) * _APART / SECOND)
        if followed := self._hub.look():
            self._hub.learn(await self._store.progress(followed))
