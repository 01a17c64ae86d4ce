from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum, auto


class ParentJobState(StrEnum):
    """The state of a parent job; see ``parent_job_state`` for how it is decided."""

    PLANNING = auto()
    RUNNING = auto()
    CANCELLING = auto()
    COMPLETED = auto()
    PARTIALLY_COMPLETED = auto()
    FAILED = auto()
    CANCELLED = auto()

    @property
    def final(self) -> bool:
        """Whether the parent job has ended."""
        return self in _FINAL_PARENT_STATES


class ChildJobState(StrEnum):
    """The state of a child job."""

    PENDING = auto()
    LEASED = auto()
    RUNNING = auto()
    COMPLETED = auto()
    FAILED = auto()
    CANCELLED = auto()
    SKIPPED = auto()

    @property
    def final(self) -> bool:
        """Whether the child job has ended, in this round."""
        return self in _FINAL_CHILD_STATES

    @property
    def live(self) -> bool:
        """Whether a lease of the child job is live."""
        return self in (ChildJobState.LEASED, ChildJobState.RUNNING)


_FINAL_PARENT_STATES = frozenset(
    {
        ParentJobState.COMPLETED,
        ParentJobState.PARTIALLY_COMPLETED,
        ParentJobState.FAILED,
        ParentJobState.CANCELLED,
    }
)
_FINAL_CHILD_STATES = frozenset(
    {ChildJobState.COMPLETED, ChildJobState.FAILED, ChildJobState.CANCELLED, ChildJobState.SKIPPED}
)


class Outcome(StrEnum):
    """How an attempt ended, as its worker reported it."""

    COMPLETED = auto()
    FAILED = auto()
    CANCELLED = auto()
    RELEASED = auto()
    SKIPPED = auto()


class Verdict(StrEnum):
    """What a completed operation did."""

    EFFECTIVE = auto()
    PARTIALLY_EFFECTIVE = auto()
    NO_EFFECT = auto()
    UNKNOWN = auto()


class FailureCategory(StrEnum):
    """What kind of trouble a failure was."""

    LOCKED = auto()
    DISK_FULL = auto()
    PERMISSION = auto()
    CORRUPT = auto()
    NOT_A_DATABASE = auto()
    SCHEMA = auto()
    IO = auto()
    TIMEOUT = auto()
    UNAVAILABLE = auto()
    INVALID = auto()
    INTERNAL = auto()
    WORKER_LOST = auto()


class Scope(StrEnum):
    """What the objects of a parent job's children are; CUSTOMARY leaves it to each target's engine."""

    DATABASE = auto()
    TABLE = auto()
    INDEX = auto()
    CUSTOMARY = auto()


class FailureMode(StrEnum):
    """How a parent job goes on when children fail."""

    CONTINUE = auto()
    FAIL_FAST = auto()
    MAX_FAILED = auto()


class WaitReason(StrEnum):
    """Why a pending child is not leased just now; the first that applies, in this order."""

    PARENT_PAUSED = auto()
    PREDECESSOR = auto()
    AVAILABLE_TIME = auto()
    TARGET_PAUSED = auto()
    NO_WORKER = auto()
    TARGET_BUSY = auto()
    PARENT_LIMIT = auto()
    SLOTS_FULL = auto()
    THROTTLED = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class FailurePolicy:
    """When failed children end the parent job early; ``max_failed_children`` counts with MAX_FAILED only."""

    mode: FailureMode = FailureMode.CONTINUE
    max_failed_children: int = 0

    def tripped(self, failed: int) -> bool:
        """Tell whether so many failed children end the job."""
        match self.mode:
            case FailureMode.CONTINUE:
                return False
            case FailureMode.FAIL_FAST:
                return failed > 0
            case FailureMode.MAX_FAILED:
                return failed > self.max_failed_children


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many children of a parent job are in each state."""

    pending: int = 0
    leased: int = 0
    running: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    skipped: int = 0

    @property
    def total(self) -> int:
        """All children."""
        return sum(getattr(self, field.name) for field in fields(self))

    @property
    def live(self) -> int:
        """Children under a live lease."""
        return self.leased + self.running

    @property
    def open(self) -> int:
        """Children that have not ended."""
        return self.pending + self.live

    def moved(self, deltas: Mapping[ChildJobState, int]) -> "Counts":
        """Return the counts after adding each delta to its state."""
        more, state = deltas.get, ChildJobState
        return Counts(  # spelled out, because it is done at every grant and report
            pending=self.pending + more(state.PENDING, 0),
            leased=self.leased + more(state.LEASED, 0),
            running=self.running + more(state.RUNNING, 0),
            completed=self.completed + more(state.COMPLETED, 0),
            failed=self.failed + more(state.FAILED, 0),
            cancelled=self.cancelled + more(state.CANCELLED, 0),
            skipped=self.skipped + more(state.SKIPPED, 0),
        )


def parent_job_state(
    counts: Counts, policy: FailurePolicy, *, cancel_requested: bool, planning: bool = False
) -> ParentJobState:
    """Decide the state of a parent job; the only place where it is decided.

    A parent job without children is completed at once. A cancel that came too late to cancel any child does
    not turn finished work into a cancelled job.
    """
    if planning or counts.open:
        if cancel_requested or policy.tripped(counts.failed):
            return ParentJobState.CANCELLING
        return ParentJobState.PLANNING if planning else ParentJobState.RUNNING
    return _final_state(counts, policy, cancel_requested=cancel_requested)


def is_planning(counts: Counts, inspections: int) -> bool:
    """Tell whether there are no children yet but those that find out which there will be."""
    return counts.open > 0 and counts.total <= inspections


def _final_state(counts: Counts, policy: FailurePolicy, *, cancel_requested: bool) -> ParentJobState:
    if cancel_requested and counts.cancelled:
        return ParentJobState.CANCELLED
    if policy.tripped(counts.failed):
        return ParentJobState.FAILED
    if not counts.failed and not counts.cancelled:
        return ParentJobState.COMPLETED
    if counts.completed or counts.skipped:
        return ParentJobState.PARTIALLY_COMPLETED
    return ParentJobState.FAILED if counts.failed else ParentJobState.CANCELLED
