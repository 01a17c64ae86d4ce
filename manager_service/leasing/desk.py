import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import structlog

from manager_service.domain.durations import Doing
from manager_service.domain.errors import ChildJobNotFoundError, ParentJobNotFoundError
from manager_service.domain.fleet import Registration, Timing
from manager_service.domain.inspection import InspectionResult
from manager_service.domain.leases import LogBatch, Poll, Report, ReportAnswer
from manager_service.domain.model import Instant, JobSpec, Span
from manager_service.domain.planned import planned
from manager_service.domain.ports import Clock, Hints, IdSource, JobStore
from manager_service.domain.watch import ProgressFeed
from manager_service.leasing.checks import check_logs, check_registration, check_reports
from manager_service.leasing.heartbeats import Heartbeats
from manager_service.leasing.lost_workers import LostWorkers
from manager_service.leasing.parking import MAX_PARKED, Parking
from manager_service.leasing.polls import Polls
from manager_service.leasing.sessions import Sessions

_CONTENDED_FOR = 0.02
"""How long at least, in seconds, before a claim looks again at what another manager had a hand on."""

_PAGE = 1_000

log = structlog.get_logger("manager.leasing")


class LeaseDesk:
    """Where workers come: it opens and closes sessions, takes reports, and holds polls and heartbeats.

    Args:
        store: decides everything that lasts.
        progress: where progress is published.
        clock: ends calls that hang.
        ids: spreads them.
        timing: the spans that leases live by.
        most_parked: how many polls may hang.
    """

    def __init__(
        self,
        store: JobStore,
        progress: ProgressFeed,
        *,
        clock: Clock,
        ids: IdSource,
        timing: Timing,
        most_parked: int = MAX_PARKED,
    ) -> None:
        self._store = store
        self._ids = ids
        self._sessions = Sessions(clock)
        self._parking = Parking(self._sessions, most=most_parked)
        self.timing = timing
        self.polls = Polls(store, self._sessions, self._parking, clock=clock, ids=ids, window=timing.poll_window)
        self.heartbeats = Heartbeats(
            store, progress, self._sessions, clock=clock, interval=timing.heartbeat_interval
        )
        self.lost_workers = LostWorkers(store)

    async def start(self) -> None:
        """Learn which sessions there are."""
        await self._sessions.restore(self._store)

    def hear(self, hints: Hints) -> None:
        """Wake the calls that a committed transaction concerns."""
        self._parking.wake(hints.ready)
        if hints.contended:
            self._look_again(hints.contended)
        self.heartbeats.look(hints.sessions)
        for session_id in hints.renewed:
            # It may serve other targets now. The poll of a session that is not known is woken for all targets.
            self._sessions.closed(session_id)
        for session_id in hints.sessions:
            self._parking.look(session_id)

    def _look_again(self, targets: Collection[str]) -> None:
        """Wake a poll for each of these targets a moment later, when the manager that had them is through."""
        pause = _CONTENDED_FOR * (1 + self._ids.random())
        asyncio.get_running_loop().call_later(pause, self._parking.wake, dict.fromkeys(targets, 1))

    def stop(self) -> None:
        """End every call that hangs, now and from now on."""
        self._parking.stop()
        self.heartbeats.stop()

    def poll_time(self, session_id: str) -> Instant | None:
        """Return when a session last polled at this manager."""
        return self._sessions.poll_time(session_id)

    async def register(self, registration: Registration, *, protocol_version: int) -> str:
        """Open a session, or answer the one that the instance has; return its id.

        Raises:
            ProtocolVersionUnsupportedError: the worker speaks too old or too new a version of the protocol.
            InvalidRequestError: one or more fields are wrong.
            TargetIdentityMismatchError: a target's name is known with another identity.
            SessionSupersededError: a newer instance of the worker's name took over before.
        """
        check_registration(registration, protocol_version)
        session_id = await self._store.register(registration)
        self._sessions.opened(session_id, registration)
        # What a target that was added waits for became ready before it was known here that the session serves it.
        self._parking.look(session_id)
        log.info(
            "worker registered",
            worker_name=registration.worker_name,
            session_id=session_id,
            instance_id=registration.instance_id,
            targets=len(registration.targets),
            slots=registration.slots,
        )
        return session_id

    async def report(self, session_id: str, reports: Sequence[Report], poll: Poll | None) -> ReportAnswer:
        """Record how attempts ended and grant the next leases, in one transaction.

        Raises:
            InvalidRequestError: a report makes no sense; none is recorded.
            SessionUnknownError: there is no such open session.
        """
        inspected = any(report.inspection is not None for report in reports)
        if inspected:
            await asyncio.to_thread(check_reports, reports, poll)
        else:
            check_reports(reports, poll)
        if poll:
            self._sessions.polled(session_id)
            self._parking.end(session_id, below=poll.sequence)
        if inspected:
            reports = [await self._planned(report) for report in reports]
        return await self._store.report(session_id, reports, None if self._parking.stopping else poll)

    async def _planned(self, report: Report) -> Report:
        """Plan what an ``inspect`` found, before the transaction: what a parent job asks for never changes."""
        if report.inspection is None:
            return report
        try:
            child, _ = await self._store.child_job(report.child_job_id)
            parent = await self._store.parent_job(child.parent_job_id)
        except (ChildJobNotFoundError, ParentJobNotFoundError):
            return replace(report, inspection=None)  # stale, as the store will find
        expected = await self._expected(child.target, parent.spec, report.inspection)
        return await asyncio.to_thread(planned, report, child, parent, expected)

    async def _expected(self, target: str, spec: JobSpec, found: InspectionResult) -> Mapping[Doing, Span]:
        """Read what is known of what was found, page by page, so that other calls are answered in between."""
        operations = [operation.name for operation in spec.operations]
        expected: dict[Doing, Span] = {}
        for begin in range(0, len(found.objects), _PAGE):
            names = [item.object for item in found.objects[begin : begin + _PAGE]]
            expected.update(await self._store.expected_of_objects(target, names, operations))
            await asyncio.sleep(0)
        return expected

    async def append_logs(self, batch: LogBatch) -> int | None:
        """Store lines of a live attempt; return the next offset, ``None`` when the lease is gone.

        Raises:
            InvalidRequestError: the entries make no sense.
            SessionUnknownError: there is no such open session.
            LogGapError: the offset lies beyond what is stored.
        """
        check_logs(batch)
        return await self._store.append_logs(batch)

    async def deregister(self, session_id: str) -> None:
        """Close a session; calls of it that hang end, its live leases go back at no cost."""
        self._parking.end(session_id)
        self.heartbeats.end(session_id)
        await self._store.deregister(session_id)
        # A heartbeat may have come in between.
        self.heartbeats.end(session_id)
        self._sessions.closed(session_id)
        log.info("worker deregistered", session_id=session_id)
