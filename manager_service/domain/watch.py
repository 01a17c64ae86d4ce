"""What follows a parent job: the messages of a watch."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from manager_service.domain.events import Event
from manager_service.domain.model import ChildJob, ParentJob, Progress, Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The parent job as it stands; ``resynced`` tells that events before it can no longer be told."""

    parent_job: ParentJob
    resynced: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressUpdate:
    """The progress of a running child, and how long it still takes; unnumbered, may be missed."""

    child_job_id: str
    operation: str
    target: str
    object: str | None
    progress: Progress
    remaining: Span | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Events in a row; the very same for all who are told them together, so that it is put into words once."""

    events: tuple[Event, ...]


Update = Snapshot | Batch | ProgressUpdate


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressNews:
    """A progress that its follower was not told yet."""

    child_job_id: str
    attempt: int
    progress: Progress


class ProgressFollower(Protocol):
    """The progress of one parent job's children, as one watcher follows it."""

    def due(self) -> tuple[ProgressNews, ...]:
        """Return what may be told now: of each child the latest, at most once a second."""

    def wait(self) -> Span | None:
        """Return how long until more may be told; ``None`` when there is nothing to tell."""


class ProgressFeed(Protocol):
    """Where the progress of running children is published and followed."""

    def publish(self, parent_job_id: str, child_job_id: str, attempt: int, progress: Progress) -> None:
        """Tell how far an attempt is."""

    def passed(self, parent_job_id: str, child_job_id: str, attempt: int) -> None:
        """Note that a watcher was told of the end of every attempt below this one: it hears of them no more."""

    def estimated(self, child: ChildJob) -> ChildJob:
        """Return a child as it was read, with how long it still takes where that can be told."""

    def follow(self, parent_job_id: str, ring: Callable[[], None]) -> AbstractContextManager[ProgressFollower]:
        """Follow a parent job; ``ring`` is called when there is something new."""
