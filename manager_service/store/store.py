"""The job store: every verb of the port, each a line from its use case."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from manager_service.domain.events import EventPage
from manager_service.domain.fleet import Registration, Timing
from manager_service.domain.leases import Heartbeat, HeartbeatAnswer, Lease, Poll, Report, ReportAnswer
from manager_service.domain.model import Attempt, ChildJob, Instant, ParentJob, Plan
from manager_service.domain.ports import ChildJobFilter, Created, Hints, Listener, ParentJobFilter
from manager_service.store.acquire import Polls, acquire
from manager_service.store.create import create_parent_job
from manager_service.store.heartbeat import beat
from manager_service.store.reads import (
    read_child_job,
    read_child_jobs,
    read_events,
    read_parent_job,
    read_parent_jobs,
)
from manager_service.store.register import deregister, register
from manager_service.store.report import report
from manager_service.store.statements import Connection
from manager_service.store.unit_of_work import UnitOfWork
from manager_service.store.writer import Transactions, Writer

T = TypeVar("T")


class Backend(Transactions, Protocol):
    """What a kind of store brings: transactions, snapshots, a clock and a mark of life."""

    def now(self) -> Instant:
        """Return the store's time."""

    def mark_alive(self, tx: UnitOfWork) -> None:
        """Write the mark of life."""

    def read(self, query: Callable[[Connection], T]) -> T:
        """Run a query on a snapshot."""

    def close(self) -> None:
        """Close the connections."""


class SqlJobStore:
    """A job store on a SQL database; implements ``JobStore``."""

    def __init__(self, backend: Backend, *, timing: Timing) -> None:
        self._backend = backend
        self._timing = timing
        self._polls = Polls()
        self._listeners: list[Listener] = []
        self._writer = Writer(backend, self._publish)

    def subscribe(self, listener: Listener) -> None:
        """Call the listener after each commit with what the transaction may have changed."""
        self._listeners.append(listener)

    async def close(self) -> None:
        """Finish what is queued and close the store."""
        await self._writer.close()
        self._backend.close()

    def _publish(self, hints: Hints) -> None:
        if hints != _NOTHING:
            for listener in self._listeners:
                listener(hints)

    async def _write(self, verb: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a verb in the next transaction; a caller that goes away does not stop it."""
        return await self._writer.submit(lambda tx: verb(tx, *args, **kwargs))

    def _alive_since(self) -> Instant:
        return self._backend.now() - self._timing.lease_duration

    # Reading jobs.

    async def parent_job(self, parent_job_id: str) -> ParentJob:
        """Read a parent job."""
        return self._backend.read(lambda c: read_parent_job(c, parent_job_id))

    async def parent_jobs(self, wanted: ParentJobFilter, *, after: str = "", limit: int) -> tuple[ParentJob, ...]:
        """List parent jobs."""
        return self._backend.read(lambda c: read_parent_jobs(c, wanted, after=after, limit=limit))

    async def child_job(self, child_job_id: str) -> tuple[ChildJob, tuple[Attempt, ...]]:
        """Read a child job and its attempts."""
        now, since = self._backend.now(), self._alive_since()
        return self._backend.read(lambda c: read_child_job(c, child_job_id, now=now, alive_since=since))

    async def child_jobs(
        self, parent_job_id: str, wanted: ChildJobFilter, *, after: int = -1, limit: int
    ) -> tuple[ChildJob, ...]:
        """List the children of a parent job."""
        now, since = self._backend.now(), self._alive_since()
        return self._backend.read(
            lambda c: read_child_jobs(
                c, parent_job_id, wanted, after=after, limit=limit, now=now, alive_since=since
            )
        )

    async def events(self, parent_job_id: str, *, after: int, limit: int) -> EventPage:
        """Read the events of a parent job."""
        return self._backend.read(lambda c: read_events(c, parent_job_id, after=after, limit=limit))

    # Changing jobs.

    async def create_parent_job(self, plan: Plan) -> Created:
        """Store a parent job and its children."""
        created: Created = await self._write(create_parent_job, plan)
        return created

    # The lease protocol.

    async def register(self, registration: Registration) -> str:
        """Open or renew the session of an instance."""
        session_id: str = await self._write(register, self._polls, registration)
        return session_id

    async def acquire(self, session_id: str, poll: Poll) -> tuple[Lease, ...]:
        """Grant leases."""
        leases: tuple[Lease, ...] = await self._write(acquire, self._polls, session_id, poll)
        return leases

    async def heartbeat(self, heartbeat: Heartbeat) -> HeartbeatAnswer:
        """Take in a worker's sign of life."""
        answer: HeartbeatAnswer = await self._write(beat, heartbeat)
        return answer

    async def report(self, session_id: str, reports: Sequence[Report], poll: Poll | None) -> ReportAnswer:
        """Record reports and grant the next leases."""
        answer: ReportAnswer = await self._write(report, self._polls, session_id, reports, poll)
        return answer

    async def deregister(self, session_id: str) -> None:
        """Close a session."""
        await self._write(deregister, self._polls, session_id)


_NOTHING = Hints()
