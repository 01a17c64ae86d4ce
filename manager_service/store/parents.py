"""A parent job within a unit of work: read once, changed in memory, written once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import bindparam, func, select, update

from manager_service.domain.events import BulkChangeKind
from manager_service.domain.model import Instant, JobSpec, ParentJob
from manager_service.domain.states import (
    ChildJobState,
    Counts,
    ParentJobState,
    Verdict,
    is_planning,
    parent_job_state,
)
from manager_service.domain.totals import NOTHING, Totals
from manager_service.store.rows import counts_in, counts_text, spec_of
from manager_service.store.statements import Among, Statement
from manager_service.store.tables import leases, parent_counts, parent_jobs
from manager_service.store.totals import totals_of_text, totals_text

_p, _n = parent_jobs.c, parent_counts.c

# What every reader of a parent job asks for, in one place.
PARENT_COLUMNS = (
    _p.id,
    _p.spec,
    _p.create_time,
    _p.paused,
    _p.cancel_requested,
    _p.cancel_reason,
    _p.round,
    _p.state,
    _p.start_time,
    _p.end_time,
    *(column for column in _n if column.name != "parent_id"),
)
PARENTS = parent_jobs.join(parent_counts, _n.parent_id == _p.id)
PARENT_OF_REQUEST = Statement(
    select(parent_jobs.c.id, parent_jobs.c.request_hash).where(
        parent_jobs.c.request_id.is_not(None), parent_jobs.c.request_id == bindparam("request_id")
    )
)
SELECT_PARENTS = Statement(select(*PARENT_COLUMNS).select_from(PARENTS).where(Among(_p.id, "ids")))
_parents_of_leases = select(leases.c.parent_id).where(Among(leases.c.child_id, "ids"))
PARENTS_OF_LEASES = Statement(
    select(*PARENT_COLUMNS)
    .select_from(PARENTS)
    # An array, which is made first: a join may as well begin with all parent jobs.
    .where(_p.id == func.any(func.array(_parents_of_leases.scalar_subquery())))
)
UPDATE_PARENT = Statement(
    update(parent_jobs)
    .where(_p.id == bindparam("of"))
    .values(
        {
            name: bindparam(name)
            for name in ("state", "paused", "cancel_requested", "cancel_reason", "round", "start_time", "end_time")
        }
    )
)
UPDATE_COUNTS = Statement(
    update(parent_counts)
    .where(_n.parent_id == bindparam("of"))
    .values(
        {
            column.name: bindparam(column.name)
            for column in _n
            if column.name not in ("parent_id", "first_sequence")
        }
    )
)

_OPEN = (ParentJobState.PLANNING, ParentJobState.RUNNING)
_NO_CHANGE: Mapping[str, Any] = {
    "child_id": None,
    "previous_state": None,
    "attempts": None,
    "version": None,
    "verdict": None,
    "reason": None,
    "state": None,
    "paused": None,
    "cancel_requested": None,
    "affected": None,
    "counts": None,
}


def parent_of(row: Any) -> ParentJob:
    """Return the parent job in a row of ``PARENT_COLUMNS``."""
    return ParentJob(
        id=row.id,
        spec=spec_of(row.spec),
        state=ParentJobState(row.state),
        counts=counts_in(row),
        sequence=row.sequence,
        paused=bool(row.paused),
        cancel_requested=bool(row.cancel_requested),
        round=row.round,
        create_time=row.create_time,
        start_time=row.start_time,
        end_time=row.end_time,
        totals=totals_of_text(row.totals),
    )


@dataclass(slots=True, kw_only=True)
class ParentInWork:
    """A parent job and what the transaction does to it; mutable, and gone with the transaction."""

    id: str
    spec: JobSpec
    state: ParentJobState
    counts: Counts
    sequence: int
    last_turn: int
    paused: bool
    cancel_requested: bool
    cancel_reason: str
    round: int
    create_time: Instant
    start_time: Instant | None
    end_time: Instant | None
    totals: Totals = NOTHING
    events: list[dict[str, Any]] = field(default_factory=list)
    touched: bool = False
    rewritten: bool = False
    reopened: bool = False
    # Counts what was noted, for the whole unit of work.
    notes: list[int] = field(default_factory=lambda: [0])
    # Whether nobody else changes it meanwhile. Where others do, only the end of the transaction decides its state.
    exact: bool = True
    # As it stood when this transaction ended it; more than once where it was retried in between.
    ends: list[ParentJob] = field(default_factory=list)
    _deltas: dict[ChildJobState, int] = field(default_factory=dict)
    _moved: dict[ChildJobState, int] = field(default_factory=dict)
    _added: Totals = NOTHING
    _undecided: bool = False
    _told: tuple[ParentJobState, bool, bool] = (ParentJobState.RUNNING, False, False)

    def __post_init__(self) -> None:
        self._told = self._to_tell()

    @property
    def stopping(self) -> bool:
        """Whether no further child of it may start."""
        return self.state not in _OPEN or self.cancel_requested

    def moved(self, previous: ChildJobState | None, state: ChildJobState | None, number: int = 1) -> None:
        """Count children from one state to another; no state is outside."""
        if previous is not None:
            self._deltas[previous] = self._deltas.get(previous, 0) - number
        if state is not None:
            self._deltas[state] = self._deltas.get(state, 0) + number
        self.touched = self._undecided = True
        self.notes[0] += 1

    def child_changed(
        self,
        child_id: str,
        previous: ChildJobState,
        state: ChildJobState,
        *,
        attempts: int,
        version: int,
        verdict: Verdict | None = None,
        reason: str = "",
    ) -> None:
        """Count a child's change and tell it."""
        self.moved(previous, state)
        self.events.append(
            {
                **_NO_CHANGE,
                "kind": "child",
                "child_id": child_id,
                "previous_state": previous.value,
                "state": state.value,
                "attempts": attempts,
                "version": version,
                "verdict": verdict,
                "reason": reason,
            }
        )

    def add_totals(self, totals: Totals) -> None:
        """Add what an attempt did; the change of its child is told with it."""
        self.totals = self.totals.plus(totals)
        if not self.exact:
            self._added = self._added.plus(totals)

    def bulk_changed(self, kind: BulkChangeKind, affected: int) -> None:
        """Tell a change of many children, which were counted before."""
        counts = counts_text(self.settled_counts())
        self.events.append({**_NO_CHANGE, "kind": kind.value, "affected": affected, "counts": counts})
        self.touched = self._undecided = True

    def settled_counts(self) -> Counts:
        """Return the counts with every change so far."""
        if self._deltas:
            self.counts = self.counts.moved(self._deltas)
            if not self.exact:
                for state, number in self._deltas.items():
                    self._moved[state] = self._moved.get(state, 0) + number
            self._deltas.clear()
        return self.counts

    def catch_up(self, row: Any) -> None:
        """Put what this transaction did onto what others committed since it read; ``row`` is that, and stands."""
        self.settled_counts()
        self.counts = counts_in(row).moved(self._moved)
        self.totals = totals_of_text(row.totals).plus(self._added)
        self.sequence = row.sequence
        self.last_turn = max(self.last_turn, row.last_turn)
        self.state = ParentJobState(row.state)
        self.paused, self.cancel_requested = bool(row.paused), bool(row.cancel_requested)
        self.cancel_reason, self.round, self.end_time = row.cancel_reason, row.round, row.end_time
        self.rewritten = row.start_time is None and self.start_time is not None
        self.start_time = row.start_time or self.start_time
        self._told = self._to_tell()
        self._undecided = self.exact = True

    def decide(self, now: Instant) -> bool:
        """Decide the state anew, tell a change, and say whether the job began to cancel."""
        if not self._undecided and self._told == self._to_tell():
            return False
        self._undecided = False
        counts = self.settled_counts()
        was = self.state
        if not was.final or self.reopened:
            self.state = parent_job_state(
                counts,
                self.spec.failure_policy,
                cancel_requested=self.cancel_requested,
                planning=is_planning(counts, self.spec.inspections),
            )
        if not self.exact:
            return False
        if self.state.final and self.end_time is None:
            self.end_time = now
            self.rewritten = True
            self.ends.append(self.as_parent_job())
        self.reopened = False
        if self._told != self._to_tell():
            self._tell(counts)
        return self.state is ParentJobState.CANCELLING and was is not ParentJobState.CANCELLING

    def started(self, now: Instant) -> None:
        """Note the grant of a lease."""
        if self.start_time is None:
            self.start_time = now
            self.rewritten = True

    def reopen(self) -> None:
        """Begin a new round; its state is decided anew from the counts."""
        self.round += 1
        self.cancel_requested, self.cancel_reason, self.paused = False, "", False
        self.end_time = None
        self.rewritten = self.reopened = True

    def numbered_events(self, now: Instant) -> list[dict[str, Any]]:
        """Number the events that were collected and hand them out to be written."""
        numbered = self.events
        for event in numbered:
            self.sequence += 1
            event["parent_id"], event["sequence"], event["time"] = self.id, self.sequence, now
        self.events = []
        return numbered

    def row(self) -> dict[str, Any]:
        """Return what ``UPDATE_PARENT`` writes."""
        return {
            "of": self.id,
            "state": self.state.value,
            "paused": self.paused,
            "cancel_requested": self.cancel_requested,
            "cancel_reason": self.cancel_reason,
            "round": self.round,
            "start_time": self.start_time,
            "end_time": self.end_time,
        }

    def counts_row(self) -> dict[str, Any]:
        """Return what ``UPDATE_COUNTS`` writes."""
        counts = self.counts
        return {
            "of": self.id,
            "sequence": self.sequence,
            "last_turn": self.last_turn,
            "pending": counts.pending,
            "leased": counts.leased,
            "running": counts.running,
            "completed": counts.completed,
            "failed": counts.failed,
            "cancelled": counts.cancelled,
            "skipped": counts.skipped,
            "totals": totals_text(self.totals),
        }

    def as_parent_job(self) -> ParentJob:
        """Return the parent job as it stands, with the events that are still to be numbered."""
        return ParentJob(
            id=self.id,
            spec=self.spec,
            state=self.state,
            counts=self.settled_counts(),
            sequence=self.sequence + len(self.events),
            paused=self.paused,
            cancel_requested=self.cancel_requested,
            round=self.round,
            create_time=self.create_time,
            start_time=self.start_time,
            end_time=self.end_time,
            totals=self.totals,
        )

    def _to_tell(self) -> tuple[ParentJobState, bool, bool]:
        return self.state, self.paused, self.cancel_requested

    def _tell(self, counts: Counts) -> None:
        self._told = self._to_tell()
        self.touched = self.rewritten = True
        self.notes[0] += 1
        self.events.append(
            {
                **_NO_CHANGE,
                "kind": "parent",
                "state": self.state.value,
                "paused": self.paused,
                "cancel_requested": self.cancel_requested,
                "counts": counts_text(counts),
            }
        )


def parent_in_work(row: Any) -> ParentInWork:
    """Return the parent job in a row of ``PARENT_COLUMNS``, to be worked on."""
    return ParentInWork(
        id=row.id,
        spec=spec_of(row.spec),
        state=ParentJobState(row.state),
        counts=counts_in(row),
        sequence=row.sequence,
        last_turn=row.last_turn,
        paused=bool(row.paused),
        cancel_requested=bool(row.cancel_requested),
        cancel_reason=row.cancel_reason,
        round=row.round,
        create_time=row.create_time,
        start_time=row.start_time,
        end_time=row.end_time,
        totals=totals_of_text(row.totals),
    )
