"""What a watcher is told. Events are written in the transaction of the change they tell."""

from dataclasses import dataclass
from enum import StrEnum, auto

from manager_service.domain.model import Instant
from manager_service.domain.states import ChildJobState, Counts, ParentJobState, Verdict


class BulkChangeKind(StrEnum):
    """What was done to many children at once."""

    CREATED = auto()
    ENDED = auto()
    RETRIED = auto()
    PLANNED = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildJobChange:
    """One child changed its state."""

    child_job_id: str
    operation: str
    target: str
    object: str | None
    previous_state: ChildJobState
    state: ChildJobState
    attempts: int
    version: int
    verdict: Verdict | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentJobChange:
    """The parent job changed its state or a flag."""

    state: ParentJobState
    paused: bool
    cancel_requested: bool
    counts: Counts


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkChange:
    """Many children changed at once."""

    kind: BulkChangeKind
    affected: int
    counts: Counts


Change = ChildJobChange | ParentJobChange | BulkChange


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A change, numbered per parent job from 1 without gaps."""

    sequence: int
    time: Instant
    change: Change


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPage:
    """Events after a sequence.

    ``trimmed`` tells that the event right after the asked sequence is no longer kept. ``last_sequence`` is the
    parent job's last event at the time of reading, and ``final`` whether the job had ended by then.
    """

    events: tuple[Event, ...]
    trimmed: bool
    last_sequence: int
    final: bool
