"""The job store: every verb of the port, each a line from its use case."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from manager_service.domain.durations import Completion, Doing, Expectation
from manager_service.domain.events import EventPage
from manager_service.domain.fleet import Losses, Offers, Registration, Target, Timing, Worker
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
from manager_service.domain.ports import ChildJobFilter, Created, Hints, Listener, ParentJobFilter
from manager_service.store.acquire import Polls, acquire
from manager_service.store.control import cancel_parent_job, pause_parent_job, resume_parent_job
from manager_service.store.create import create_parent_job
from manager_service.store.durations import (
    learn,
    prune_durations,
    read_expected,
    read_expected_of_databases,
    read_expected_of_objects,
)
from manager_service.store.expiry import expire_leases, next_available, release_due
from manager_service.store.fleet import (
    drain_worker,
    forget_target,
    pause_target,
    prune_sessions,
    read_offers,
    read_target_names_near,
    read_targets,
    read_workers,
)
from manager_service.store.heartbeat import beat
from manager_service.store.logs import append_logs, read_logs
from manager_service.store.losses import note_losses
from manager_service.store.progress import read_progress
from manager_service.store.reads import (
    read_child_job,
    read_child_jobs,
    read_events,
    read_parent_job,
    read_parent_jobs,
    read_requested_parent_job,
)
from manager_service.store.register import deregister, register
from manager_service.store.report import report, report_planning
from manager_service.store.retention import delete_parent_job, prune, trim_events
from manager_service.store.retry import retry_parent_job
from manager_service.store.statements import Connection
from manager_service.store.sweep import ending_parent_jobs, fail_overdue, sweep
from manager_service.store.unit_of_work import UnitOfWork
from manager_service.store.writer import Transactions, Writer

T = TypeVar("T")
Query = Callable[[Connection, Callable[[], Instant]], T]


class Backend(Protocol):
    """What a kind of store brings: transactions, snapshots, a clock and a mark of life."""

    @property
    def leasing(self) -> Sequence[Transactions]:
        """The transactions of workers, and of what falls due, of each connection that they have."""

    @property
    def steering(self) -> Sequence[Transactions]:
        """Those of clients and of upkeep, which may take long; the same where there is one connection for all."""

    def mark_alive(self, tx: UnitOfWork) -> None:
        """Write the mark of life."""

    async def read(self, query: Query[T]) -> T:
        """Run a query on a snapshot; it is handed what tells the store's time."""

    def listen(self, listener: Listener) -> None:
        """Call the listener with what other managers committed."""

    def tell(self, hints: Hints) -> None:
        """Tell other managers what this one committed."""

    def close(self) -> None:
        """Close the connections."""


class SqlJobStore:
    """A job store on a SQL database; implements ``JobStore``."""

    def __init__(self, backend: Backend, *, timing: Timing) -> None:
        self._backend = backend
        self._timing = timing
        self._polls = Polls()
        self._listeners: list[Listener] = []
        self._writer = Writer(backend.leasing, self._publish)
        self._steerer = self._writer
        if backend.steering is not backend.leasing:
            self._steerer = Writer(backend.steering, self._publish)

    def subscribe(self, listener: Listener) -> None:
        """Call the listener after each commit with what the transaction may have changed."""
        if not self._listeners:
            self._backend.listen(self._hear)
        self._listeners.append(listener)

    async def close(self) -> None:
        """Finish what is queued and close the store. Idempotent."""
        if self._writer.closed:
            return
        await self._writer.close()
        await self._steerer.close()
        self._backend.close()

    def _publish(self, hints: Hints) -> None:
        if hints != _NOTHING:
            self._backend.tell(hints)
            self._hear(replace(hints, renewed=frozenset()) if hints.renewed else hints)

    def _hear(self, hints: Hints) -> None:
        for listener in self._listeners:
            listener(hints)

    async def _write(self, verb: Callable[..., Any], *args: Any, key: str = "", **kwargs: Any) -> Any:
        """Run a verb in the next transaction; a caller that goes away does not stop it."""
        return await self._writer.submit(lambda tx: verb(tx, *args, **kwargs), key)

    async def _steer(self, verb: Callable[..., Any], *args: Any, key: str = "", **kwargs: Any) -> Any:
        """Run a verb in the next of the transactions that may take long."""
        return await self._steerer.submit(lambda tx: verb(tx, *args, **kwargs), key)

    async def _read_now(self, query: Callable[[Connection, Instant], T]) -> T:
        """Run a query that asks what time it is."""
        return await self._backend.read(lambda connection, moment: query(connection, moment()))

    def _alive_since(self, now: Instant) -> Instant:
        return now - self._timing.lease_duration

    # Reading jobs.

    async def parent_job(self, parent_job_id: str) -> ParentJob:
        """Read a parent job."""
        return await self._backend.read(lambda c, _: read_parent_job(c, parent_job_id))

    async def requested_parent_job(self, request_id: str, request_hash: str) -> ParentJob | None:
        """Find the parent job of a request."""
        return await self._backend.read(lambda c, _: read_requested_parent_job(c, request_id, request_hash))

    async def parent_jobs(self, wanted: ParentJobFilter, *, after: str = "", limit: int) -> tuple[ParentJob, ...]:
        """List parent jobs."""
        return await self._backend.read(lambda c, _: read_parent_jobs(c, wanted, after=after, limit=limit))

    async def child_job(self, child_job_id: str) -> tuple[ChildJob, tuple[Attempt, ...]]:
        """Read a child job and its attempts."""
        return await self._read_now(
            lambda c, now: read_child_job(c, child_job_id, now=now, alive_since=self._alive_since(now))
        )

    async def child_jobs(
        self, parent_job_id: str, wanted: ChildJobFilter, *, after: int = -1, limit: int
    ) -> tuple[ChildJob, ...]:
        """List the children of a parent job."""
        return await self._read_now(
            lambda c, now: read_child_jobs(
                c, parent_job_id, wanted, after=after, limit=limit, now=now, alive_since=self._alive_since(now)
            )
        )

    async def progress(self, parent_job_ids: Sequence[str]) -> tuple[RunningProgress, ...]:
        """Read how far running children are."""
        return await self._backend.read(lambda c, _: read_progress(c, parent_job_ids))

    async def events(self, parent_job_id: str, *, after: int, limit: int) -> EventPage:
        """Read the events of a parent job."""
        return await self._backend.read(lambda c, _: read_events(c, parent_job_id, after=after, limit=limit))

    async def logs(self, child_job_id: str, *, attempt: int, offset: int, limit: int) -> LogPage:
        """Read log entries of an attempt."""
        return await self._backend.read(
            lambda c, _: read_logs(c, child_job_id, attempt=attempt, offset=offset, limit=limit)
        )

    # Changing jobs.

    async def create_parent_job(self, plan: Plan) -> Created:
        """Store a parent job and its children."""
        created: Created = await self._steer(create_parent_job, plan)
        return created

    async def cancel_parent_job(self, parent_job_id: str, reason: str) -> ParentJob:
        """Cancel a parent job."""
        parent: ParentJob = await self._steer(cancel_parent_job, parent_job_id, reason, key=parent_job_id)
        return parent

    async def pause_parent_job(self, parent_job_id: str) -> ParentJob:
        """Hold a parent job."""
        parent: ParentJob = await self._steer(pause_parent_job, parent_job_id, key=parent_job_id)
        return parent

    async def resume_parent_job(self, parent_job_id: str) -> ParentJob:
        """Let a parent job go on."""
        parent: ParentJob = await self._steer(resume_parent_job, parent_job_id, key=parent_job_id)
        return parent

    async def retry_parent_job(self, parent_job_id: str) -> ParentJob:
        """Open a new round of the failed children."""
        parent: ParentJob = await self._steer(retry_parent_job, parent_job_id, key=parent_job_id)
        return parent

    async def delete_parent_job(self, parent_job_id: str) -> None:
        """Delete a finished parent job."""
        await self._steer(delete_parent_job, parent_job_id, key=parent_job_id)

    # The lease protocol.

    async def register(self, registration: Registration) -> str:
        """Open or renew the session of an instance."""
        session_id: str = await self._steer(register, self._polls, registration)
        return session_id

    async def acquire(self, session_id: str, poll: Poll) -> tuple[Lease, ...]:
        """Grant leases."""
        leases: tuple[Lease, ...] = await self._write(acquire, self._polls, session_id, poll, key=session_id)
        return leases

    async def heartbeat(self, heartbeat: Heartbeat) -> HeartbeatAnswer:
        """Take in a worker's sign of life."""
        answer: HeartbeatAnswer = await self._write(beat, heartbeat, key=heartbeat.session_id)
        return answer

    async def report(self, session_id: str, reports: Sequence[Report], poll: Poll | None) -> ReportAnswer:
        """Record reports and grant the next leases."""
        arguments = (self._polls, session_id, reports, poll)
        answer: ReportAnswer
        if any(item.planned for item in reports):
            answer = await self._steer(report_planning, *arguments, key=session_id)
        else:
            answer = await self._write(report, *arguments, key=session_id)
        return answer

    async def deregister(self, session_id: str) -> None:
        """Close a session."""
        await self._write(deregister, self._polls, session_id, key=session_id)

    async def append_logs(self, batch: LogBatch) -> int | None:
        """Store log entries of a live attempt."""
        offset: int | None = await self._write(append_logs, batch, key=batch.session_id)
        return offset

    # Workers and targets.

    async def workers(self, *, include_gone: bool, after: str = "", limit: int) -> tuple[Worker, ...]:
        """List workers by name."""
        given: dict[str, Any] = {"include_gone": include_gone, "after": after, "limit": limit}
        return await self._read_now(lambda c, now: read_workers(c, self._timing, **given, now=now))

    async def targets(self, *, labels: Mapping[str, str], after: str = "", limit: int) -> tuple[Target, ...]:
        """List known targets by name."""
        given: dict[str, Any] = {"labels": labels, "after": after, "limit": limit}
        return await self._read_now(lambda c, now: read_targets(c, self._timing, **given, now=now))

    async def offers(self, names: Sequence[str], operations: frozenset[str] | None = None) -> Offers:
        """Return what the known ones of these targets offer."""
        return await self._backend.read(lambda c, _: read_offers(c, names, operations))

    async def target_names_near(self, name: str, *, limit: int = 3) -> tuple[str, ...]:
        """Return known target names that look like this one."""
        return await self._backend.read(lambda c, _: read_target_names_near(c, name, limit=limit))

    async def drain_worker(self, worker_name: str, *, terminate: bool) -> Worker:
        """Set a worker's directive."""
        worker: Worker = await self._steer(drain_worker, worker_name, terminate=terminate)
        return worker

    async def pause_target(self, target: str, *, paused: bool) -> Target:
        """Hold a target, or let it go on."""
        read: Target = await self._steer(pause_target, target, paused=paused)
        return read

    async def forget_target(self, target: str) -> None:
        """Forget a target that nobody serves and nothing needs."""
        await self._steer(forget_target, target)

    # How long operations take.

    async def learn(self, completions: Sequence[Completion]) -> int:
        """Keep how long children took."""
        number: int = await self._steer(learn, completions)
        return number

    async def expected(self, target: str, object_name: str | None, operation: str) -> Expectation | None:
        """Return what an operation is expected to take on an object."""
        return await self._backend.read(lambda c, _: read_expected(c, target, object_name, operation))

    async def expected_of_objects(
        self, target: str, objects: Sequence[str | None], operations: Sequence[str]
    ) -> Mapping[Doing, Span]:
        """Return what operations are expected to take on objects of a target."""
        return await self._backend.read(lambda c, _: read_expected_of_objects(c, target, objects, operations))

    async def expected_of_databases(
        self, targets: Sequence[str], operations: Sequence[str]
    ) -> Mapping[tuple[str, str], Span]:
        """Return what operations are expected to take on whole databases."""
        return await self._backend.read(lambda c, _: read_expected_of_databases(c, targets, operations))

    async def prune_durations(self, *, age: Span, limit: int) -> int:
        """Delete durations to which none was added for long."""
        number: int = await self._steer(prune_durations, age=age, limit=limit)
        return number

    # Upkeep.

    async def mark_alive(self) -> None:
        """Write the mark of life; the transaction made up for an outage before."""
        await self._write(self._backend.mark_alive)

    async def expire_leases(self, *, limit: int) -> int:
        """Take back leases that ran out or were not accepted."""
        number: int = await self._write(expire_leases, limit=limit)
        return number

    async def sweep(self, parent_job_id: str, *, limit: int) -> bool:
        """End pending children of a cancelling parent job."""
        more: bool = await self._steer(sweep, parent_job_id, limit=limit)
        return more

    async def ending_parent_jobs(self) -> tuple[str, ...]:
        """Return the parent jobs that are to be swept."""
        return await self._backend.read(lambda c, _: ending_parent_jobs(c))

    async def fail_overdue(self, *, limit: int) -> int:
        """Fail or stop children past the deadline."""
        number: int = await self._steer(fail_overdue, limit=limit)
        return number

    async def next_available(self) -> Span | None:
        """Return how long until something falls due."""
        interval = self._timing.heartbeat_interval
        return await self._read_now(lambda c, now: next_available(c, now=now, heartbeat_interval=interval))

    async def release_due(self) -> int:
        """Make delayed children claimable whose time has come."""
        number: int = await self._write(release_due)
        return number

    async def trim_events(self, *, keep: int, limit: int) -> int:
        """Delete events beyond what is kept."""
        number: int = await self._steer(trim_events, keep=keep, limit=limit)
        return number

    async def prune(self, *, age: Span, limit: int) -> int:
        """Delete rows of parent jobs that ended long ago."""
        number: int = await self._steer(prune, age=age, limit=limit)
        return number

    async def note_losses(self, *, limit: int) -> Losses:
        """Find lost workers."""
        losses: Losses = await self._steer(note_losses, limit=limit)
        return losses

    async def prune_sessions(self, *, age: Span) -> int:
        """Delete sessions that have long been gone."""
        number: int = await self._steer(prune_sessions, self._polls, age=age)
        return number


_NOTHING = Hints()
