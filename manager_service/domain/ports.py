"""The seams of the manager: the job store, the clock, the source of ids."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from manager_service.domain.durations import Completion, Doing, Expectation
from manager_service.domain.events import EventPage
from manager_service.domain.fleet import Losses, Offers, Registration, Target, Worker
from manager_service.domain.leases import Heartbeat, HeartbeatAnswer, Lease, LogBatch, Poll, Report, ReportAnswer
from manager_service.domain.model import (
    Attempt,
    ChildJob,
    Instant,
    LogPage,
    ParentJob,
    Plan,
    RunningProgress,
    Span,
)
from manager_service.domain.states import ChildJobState, ParentJobState


class Clock(Protocol):
    """Where time comes from."""

    def wall(self) -> Instant:
        """Return the wall clock; it may step."""

    def monotonic(self) -> Span:
        """Return microseconds since some moment; never falls, stands still for nobody."""


class IdSource(Protocol):
    """Where ids and chance come from."""

    def new_id(self) -> str:
        """Return a new UUID of version 7 in canonical text form."""

    def random(self) -> float:
        """Return a random number from 0 up to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hints:
    """What a committed transaction may have made worth looking at. Hints may be missed: look anyway, later.

    Attributes:
        parents: parent jobs with new events.
        ready: targets with newly claimable children, and how many each.
        contended: targets with children that this manager wanted while another one had a hand on them.
        sessions: sessions with a new directive or a lease to stop.
        renewed: sessions that registered anew at another manager, perhaps with other targets.
        logs: child jobs with new log entries, or whose attempt ended.
        ending: parent jobs that began to cancel: their pending children are to be swept.
        due: whether something falls due now at a time of its own: a delay, or a deadline; told to this manager
            alone.
        ended: parent jobs that the transaction ended, as they stood then; told to this manager alone.
        completed: children that completed by it; told to this manager alone.
    """

    parents: frozenset[str] = frozenset()
    ready: Mapping[str, int] = field(default_factory=dict)
    contended: frozenset[str] = frozenset()
    sessions: frozenset[str] = frozenset()
    renewed: frozenset[str] = frozenset()
    logs: frozenset[str] = frozenset()
    ending: frozenset[str] = frozenset()
    due: bool = False
    ended: tuple[ParentJob, ...] = ()
    completed: tuple[Completion, ...] = ()


Listener = Callable[[Hints], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentJobFilter:
    """Which parent jobs to list; empty fields do not filter."""

    states: frozenset[ParentJobState] = frozenset()
    labels: Mapping[str, str] = field(default_factory=dict)
    target: str = ""
    oldest_first: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildJobFilter:
    """Which children to list; empty fields do not filter."""

    states: frozenset[ChildJobState] = frozenset()
    target: str = ""
    operation: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """A parent job that was created, or that the same request had created before."""

    parent_job: ParentJob
    existing: bool


class JobReads(Protocol):
    """Reading jobs. Nothing here writes."""

    async def parent_job(self, parent_job_id: str) -> ParentJob:
        """Read a parent job; raise ``ParentJobNotFoundError``."""

    async def requested_parent_job(self, request_id: str, request_hash: str) -> ParentJob | None:
        """Return the parent job that this very request made before; raise ``RequestIdReusedError``."""

    async def parent_jobs(self, wanted: ParentJobFilter, *, after: str = "", limit: int) -> tuple[ParentJob, ...]:
        """List up to ``limit`` parent jobs in order of their ids, beyond the id ``after``."""

    async def child_job(self, child_job_id: str) -> tuple[ChildJob, tuple[Attempt, ...]]:
        """Read a child job and its attempts; raise ``ChildJobNotFoundError``."""

    async def child_jobs(
        self, parent_job_id: str, wanted: ChildJobFilter, *, after: int = -1, limit: int
    ) -> tuple[ChildJob, ...]:
        """List up to ``limit`` children in order of position, beyond the position ``after``.

        Raises:
            ParentJobNotFoundError: there is no such parent job.
        """

    async def progress(self, parent_job_ids: Sequence[str]) -> tuple[RunningProgress, ...]:
        """Return how far the running children of these parent jobs are, those whose workers told it."""

    async def events(self, parent_job_id: str, *, after: int, limit: int) -> EventPage:
        """Read up to ``limit`` events beyond the sequence ``after``; raise ``ParentJobNotFoundError``."""

    async def logs(self, child_job_id: str, *, attempt: int, offset: int, limit: int) -> LogPage:
        """Read up to ``limit`` log entries of an attempt, 0 for the newest; raise ``ChildJobNotFoundError``."""


class JobWrites(Protocol):
    """Changing jobs. Each verb is one transaction."""

    async def create_parent_job(self, plan: Plan) -> Created:
        """Store a parent job, its children and its first event.

        With a request_id that is known: answer that job if the hash is the same, or raise
        ``RequestIdReusedError``. A parent job without children is completed at once.
        """

    async def cancel_parent_job(self, parent_job_id: str, reason: str) -> ParentJob:
        """Set the cancel flag and tell live children to stop; pending ones end by ``sweep``.

        Raises:
            ParentJobNotFoundError: there is no such parent job.
            WrongStateError: it ended otherwise than by a cancel.
        """

    async def pause_parent_job(self, parent_job_id: str) -> ParentJob:
        """Hold a parent job; raise ``ParentJobNotFoundError`` or ``WrongStateError``."""

    async def resume_parent_job(self, parent_job_id: str) -> ParentJob:
        """Let a parent job go on; raise ``ParentJobNotFoundError`` or ``WrongStateError``."""

    async def retry_parent_job(self, parent_job_id: str) -> ParentJob:
        """Open a new round of the failed children; raise ``ParentJobNotFoundError`` or ``WrongStateError``.

        While the new round runs, a repeat answers the job as it stands.
        """

    async def delete_parent_job(self, parent_job_id: str) -> None:
        """Delete a finished parent job with all that belongs to it.

        Raises:
            ParentJobNotFoundError: there is no such parent job.
            WrongStateError: it has not ended.
        """


class LeaseVerbs(Protocol):
    """The lease protocol. Each verb is one transaction; nothing to do writes nothing."""

    async def register(self, registration: Registration) -> str:
        """Open or renew the session of an instance and return its id.

        Raises:
            TargetIdentityMismatchError: a target's name is known with another identity.
            SessionSupersededError: a newer instance of the worker's name took over before.
        """

    async def acquire(self, session_id: str, poll: Poll) -> tuple[Lease, ...]:
        """Grant leases, or answer again those that an equal poll sequence was granted and that still live.

        Raises:
            SessionUnknownError: there is no such open session.
            SessionSupersededError: a newer instance took over.
        """

    async def heartbeat(self, heartbeat: Heartbeat) -> HeartbeatAnswer:
        """Renew the listed leases, accept the new ones, take the unlisted ones back.

        An older sequence changes nothing and is answered from the state as it stands.

        Raises:
            SessionUnknownError: there is no such open session.
        """

    async def report(self, session_id: str, reports: Sequence[Report], poll: Poll | None) -> ReportAnswer:
        """Record reports by compare-and-set on (child, lease, attempt), then grant the next leases.

        The children that a completed ``inspect`` planned are made in the same transaction, unless their parent job
        is stopping. An ``inspect`` that planned nothing at all, and one of which too many children would come, has
        failed.

        Raises:
            SessionUnknownError: there is no such open session.
        """

    async def deregister(self, session_id: str) -> None:
        """Close a session and take its live leases back at no cost."""

    async def append_logs(self, batch: LogBatch) -> int | None:
        """Store log entries of a live attempt and return the next offset; ``None`` when the lease is gone.

        Raises:
            SessionUnknownError: there is no such open session.
            LogGapError: the offset lies beyond what is stored.
        """


class FleetVerbs(Protocol):
    """Workers and targets."""

    async def workers(self, *, include_gone: bool, after: str = "", limit: int) -> tuple[Worker, ...]:
        """List up to ``limit`` workers by name, beyond the name ``after``; of each name the newest session."""

    async def targets(self, *, labels: Mapping[str, str], after: str = "", limit: int) -> tuple[Target, ...]:
        """List up to ``limit`` known targets by name, beyond the name ``after``."""

    async def offers(self, names: Sequence[str], operations: frozenset[str] | None = None) -> Offers:
        """Return what the known ones of these targets offer; of these operations alone if they are given."""

    async def target_names_near(self, name: str, *, limit: int = 3) -> tuple[str, ...]:
        """Return known target names that look like this one."""

    async def drain_worker(self, worker_name: str, *, terminate: bool) -> Worker:
        """Set a worker's directive; raise ``WorkerNotFoundError``."""

    async def pause_target(self, target: str, *, paused: bool) -> Target:
        """Hold a target, or let it go on; raise ``TargetUnknownError``."""

    async def forget_target(self, target: str) -> None:
        """Forget a target that no live worker serves and no open child needs.

        Raises:
            TargetUnknownError: there is no such target.
            TargetInUseError: it is served or needed.
        """


class History(Protocol):
    """How long operations took, by target, operation and object."""

    async def learn(self, completions: Sequence[Completion]) -> int:
        """Keep how long children took, as far as they and their targets are known; return of how many doings."""

    async def expected(self, target: str, object_name: str | None, operation: str) -> Expectation | None:
        """Return what an operation is expected to take on an object, ``None`` for the whole database."""

    async def expected_of_objects(
        self, target: str, objects: Sequence[str | None], operations: Sequence[str]
    ) -> Mapping[Doing, Span]:
        """Return what these operations are expected to take on objects of a target, as far as that is known."""

    async def expected_of_databases(
        self, targets: Sequence[str], operations: Sequence[str]
    ) -> Mapping[tuple[str, str], Span]:
        """Return what these operations are expected to take on whole databases, by target and operation."""


class Upkeep(Protocol):
    """What the manager does by itself, again and again; each verb does a bounded piece of it."""

    async def mark_alive(self) -> None:
        """Write the store's mark of life, and move live expire times when the mark shows an outage."""

    async def expire_leases(self, *, limit: int) -> int:
        """Take back up to ``limit`` leases that ran out or were not accepted; return how many."""

    async def sweep(self, parent_job_id: str, *, limit: int) -> bool:
        """End up to ``limit`` pending children of a cancelling parent job; return whether more are left."""

    async def ending_parent_jobs(self) -> tuple[str, ...]:
        """Return the parent jobs that are cancelling and have pending children."""

    async def fail_overdue(self, *, limit: int) -> int:
        """Fail up to ``limit`` pending children past the deadline, tell live ones to stop; return how many."""

    async def next_available(self) -> Span | None:
        """Return how long until the next delayed child becomes available or a lease or deadline falls due."""

    async def release_due(self) -> int:
        """Make delayed children whose time has come claimable; return how many."""

    async def trim_events(self, *, keep: int, limit: int) -> int:
        """Delete up to ``limit`` events beyond the newest ``keep`` of a parent job; return how many."""

    async def prune(self, *, age: Span, limit: int) -> int:
        """Delete up to ``limit`` rows of parent jobs that ended longer than ``age`` ago; return how many."""

    async def note_losses(self, *, limit: int) -> Losses:
        """Find up to ``limit`` workers that are lost; each loss is found once, by one of all managers."""

    async def prune_sessions(self, *, age: Span) -> int:
        """Delete sessions that have been gone for longer than ``age`` and hold nothing; return how many."""

    async def prune_durations(self, *, age: Span, limit: int) -> int:
        """Delete up to ``limit`` durations that were not added to for longer than ``age``; return how many."""


class JobStore(JobReads, JobWrites, LeaseVerbs, FleetVerbs, History, Upkeep, Protocol):
    """Where jobs live. Every verb may raise ``StoreUnavailableError``."""

    def subscribe(self, listener: Listener) -> None:
        """Call the listener after each commit with what the transaction may have changed."""

    async def close(self) -> None:
        """Finish what is queued and close the store."""
