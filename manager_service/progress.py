"""How far running operations are: in memory, unnumbered, told to a watcher at most once a second per child."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from manager_service.domain.model import SECOND, Progress, Span
from manager_service.domain.ports import Clock
from manager_service.domain.watch import ProgressNews

MAX_KEPT = 100_000
KEPT: Span = 300 * SECOND
"""How long a progress is kept that is not told again: a worker tells that of what it runs with each heartbeat."""

_APART: Span = SECOND


@dataclass(frozen=True, slots=True)
class _Told:
    attempt: int
    progress: Progress
    time: Span

    def says(self, attempt: int, progress: Progress) -> bool:
        return self.attempt == attempt and self.progress == progress


class ProgressHub:
    """Keeps the latest progress per child and tells it to those who follow the parent job.

    Nobody says here that an attempt has ended, so what was not told again for long is forgotten.

    Args:
        clock: spaces what followers are told.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._latest: OrderedDict[str, _Told] = OrderedDict()
        self._followers: dict[str, set[Follower]] = {}

    def publish(self, parent_job_id: str, child_job_id: str, attempt: int, progress: Progress) -> None:
        """Tell how far an attempt is; the same again is no news."""
        before = self._latest.pop(child_job_id, None)
        self._latest[child_job_id] = _Told(attempt, progress, self._clock.monotonic())
        self._forget_old()
        if before is not None and before.says(attempt, progress):
            return
        for follower in self._followers.get(parent_job_id, ()):
            follower.take(child_job_id, progress)

    def latest(self, child_job_id: str, attempt: int) -> Progress | None:
        """Return how far an attempt is, if it was told."""
        told = self._latest.get(child_job_id)
        return told.progress if told and told.attempt == attempt else None

    def _forget_old(self) -> None:
        """Forget what was told longest ago: of attempts that have ended, nothing more comes."""
        before = self._clock.monotonic() - KEPT
        while len(self._latest) > MAX_KEPT or next(iter(self._latest.values())).time < before:
            self._latest.popitem(last=False)

    @contextmanager
    def follow(self, parent_job_id: str, ring: Callable[[], None]) -> Iterator["Follower"]:
        """Follow a parent job; ``ring`` is called when there is something new."""
        follower = Follower(self._clock, ring)
        self._followers.setdefault(parent_job_id, set()).add(follower)
        try:
            yield follower
        finally:
            self._followers[parent_job_id].discard(follower)
            if not self._followers[parent_job_id]:
                del self._followers[parent_job_id]


class Follower:
    """What one watcher was not told yet: of each child the latest alone, so that a slow one costs nothing.

    Args:
        clock: spaces what is told of one child.
        ring: wakes the watcher.
    """

    def __init__(self, clock: Clock, ring: Callable[[], None]) -> None:
        self._clock = clock
        self._ring = ring
        self._news: dict[str, Progress] = {}
        self._told_at: dict[str, Span] = {}

    def take(self, child_job_id: str, progress: Progress) -> None:
        """Keep a progress until it may be told."""
        self._news[child_job_id] = progress
        self._ring()

    def due(self) -> tuple[ProgressNews, ...]:
        """Return what may be told now, and count it as told."""
        now = self._clock.monotonic()
        self._told_at = {child: at for child, at in self._told_at.items() if now - at < _APART}
        ready = [child for child in self._news if child not in self._told_at]
        self._told_at.update(dict.fromkeys(ready, now))
        return tuple(ProgressNews(child_job_id=child, progress=self._news.pop(child)) for child in ready)

    def wait(self) -> Span | None:
        """Return how long until more may be told; ``None`` when there is nothing to tell."""
        if not self._news:
            return None
        now = self._clock.monotonic()
        return max(0, min(self._told_at.get(child, now - _APART) + _APART for child in self._news) - now)
