"""Mutants of the job store: each takes one guard out, as job systems in use have lacked it."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from sqlalchemy import bindparam, delete, false, update

from manager_service.domain.attempts import Loss
from manager_service.domain.leases import Poll, Report, ReportAnswer, ReportStatus
from manager_service.domain.model import Instant
from manager_service.domain.ports import ParentJobFilter
from manager_service.domain.states import Outcome
from manager_service.store import acquire, endings, sessions
from manager_service.store import clock as store_clock
from manager_service.store import report as reporting
from manager_service.store.endings import lose_leases
from manager_service.store.expiry import EXPIRED
from manager_service.store.parents import ParentInWork
from manager_service.store.statements import Statement
from manager_service.store.store import SqlJobStore
from manager_service.store.tables import child_jobs, leases
from manager_service.store.unit_of_work import LEASES_OF_CHILDREN, UnitOfWork

_COMPLETE_BY_ID = Statement(
    update(child_jobs).where(child_jobs.c.id == bindparam("of")).values(state=bindparam("state"))
)
_SHIFT_NO_LEASES = Statement(update(leases).where(false()).values(graced=leases.c.graced))
_END_LEASE_BY_ID = Statement(delete(leases).where(leases.c.child_id == bindparam("of")))


def fence_by_worker_only() -> AbstractContextManager[Any]:
    """Take any report of the worker that holds the child, whichever of its leases it is about."""
    return patch.object(reporting, "_fits", lambda lease, session_id, _: lease.session_id == session_id)


def fence_by_state_only() -> AbstractContextManager[Any]:
    """Take any report while the child is live, whoever sends it."""
    return patch.object(reporting, "_fits", lambda *_: True)


@contextmanager
def no_fence() -> Iterator[None]:
    """Take any report by the child's id, live or not."""

    def record(tx: UnitOfWork, late: Sequence[Report], _: dict[str, Any]) -> list[ReportStatus]:
        for item in late:
            tx.run(_COMPLETE_BY_ID, of=item.child_job_id, state=item.outcome.value)
        return [ReportStatus.RECORDED for _ in late]

    with fence_by_state_only(), patch.object(reporting, "_sort_out", record):
        yield


@contextmanager
def expiry_filtered_by_id_only() -> Iterator[None]:
    """Read in one transaction what ran out, and take it back in the next whatever happened in between."""

    async def expire(self: SqlJobStore, *, limit: int) -> int:
        rows = await self._write(lambda tx: tx.rows(EXPIRED, now=tx.now, limit=limit))
        await asyncio.sleep(0.3)

        def take_back(tx: UnitOfWork) -> None:
            live = {row.child_id for row in tx.rows(LEASES_OF_CHILDREN, ids=[row.child_id for row in rows])}
            lose_leases(tx, [(row, Loss.EXPIRED) for row in rows if row.child_id in live])

        await self._write(take_back)
        return len(rows)

    with ExitStack() as stack:
        stack.enter_context(patch.object(SqlJobStore, "expire_leases", expire))
        stack.enter_context(patch.object(endings, "END_LEASE", _END_LEASE_BY_ID))
        yield


@contextmanager
def attempt_handed_back() -> Iterator[None]:
    """Let a released attempt's number be used again."""
    child = endings._child

    def hand_back(tx: UnitOfWork, item: endings.Ended) -> dict[str, Any]:
        row = child(tx, item)
        return {**row, "attempts": row["attempts"] - (item.outcome is Outcome.RELEASED)}

    with patch.object(endings, "_child", hand_back):
        yield


@contextmanager
def slots_stored_instead_of_counted() -> Iterator[None]:
    """Keep a number that grants raise and reports lower; what ends otherwise is forgotten."""
    stored: defaultdict[int, Counter[str]] = defaultdict(Counter)
    find, grant, ended = sessions.open_session, acquire._grant, reporting._ended

    def used(tx: UnitOfWork) -> Counter[str]:
        return stored[id(tx.ids)]

    def read(tx: UnitOfWork, session_id: str, asked: Any = None) -> Any:
        session = find(tx, session_id, asked)
        return session._replace(live=used(tx)[session_id])

    def take(tx: UnitOfWork, session: Any, poll: Poll, picks: list[Any]) -> Any:
        used(tx)[session.id] += len(picks)
        return grant(tx, session, poll, picks)

    def give_back(tx: UnitOfWork, lease: Any, item: Report) -> endings.Ended:
        used(tx)[lease.session_id] -= 1
        return ended(tx, lease, item)

    with ExitStack() as stack:
        for verbs in (acquire, reporting):
            stack.enter_context(patch.object(verbs, "open_session", read))
        stack.enter_context(patch.object(acquire, "_grant", take))
        stack.enter_context(patch.object(reporting, "_ended", give_back))
        yield


@contextmanager
def parent_decided_outside_the_transaction() -> Iterator[None]:
    """Commit what a report does to children first, and decide their parent jobs in the next transaction."""
    report = SqlJobStore.report

    def put_off(self: ParentInWork, _: Instant) -> bool:
        self.settled_counts()
        return False

    def decide(tx: UnitOfWork, parent_ids: list[str]) -> None:
        for parent in tx.parents(parent_ids).values():
            parent.touched = True
        tx.settle()

    async def report_then_decide(
        self: SqlJobStore, session_id: str, reports: Sequence[Report], poll: Poll | None
    ) -> ReportAnswer:
        with patch.object(ParentInWork, "decide", put_off):
            answer = await report(self, session_id, reports, poll)
        await self._write(decide, [parent.id for parent in await self.parent_jobs(ParentJobFilter(), limit=100)])
        return answer

    with patch.object(SqlJobStore, "report", report_then_decide):
        yield


def delayed_polls_claim() -> AbstractContextManager[Any]:
    """Forget the polls that were granted nothing, so that one that arrives late is granted something."""
    return patch.object(acquire.Polls, "see", lambda *_: True)


def outages_expire_leases() -> AbstractContextManager[Any]:
    """Let time count against leases while no manager ran."""
    return patch.object(store_clock, "_SHIFT_LEASES", _SHIFT_NO_LEASES)
