"""Record how attempts ended."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import insert, select

from manager_service.domain.attempts import end_by_report
from manager_service.domain.inspection import INSPECT, MAX_CHILDREN
from manager_service.domain.leases import Lease, Poll, Report, ReportAnswer, ReportStatus
from manager_service.domain.model import Failure
from manager_service.domain.planned import failed_report, nothing_found, too_many
from manager_service.domain.states import ChildJobState, Outcome
from manager_service.domain.totals import NOTHING, totals_of
from manager_service.store.acquire import Polls, grant
from manager_service.store.create import add_children
from manager_service.store.endings import Ended, budget_of, end_attempts
from manager_service.store.lanes import SUCCESSORS
from manager_service.store.sessions import ask_session, open_session
from manager_service.store.statements import Among, Rows, Statement
from manager_service.store.tables import attempts, child_jobs, stale_reports
from manager_service.store.unit_of_work import UnitOfWork
from manager_service.store.writer import Bulk

_STALE_KEPT = 8

_ATTEMPTS = Statement(
    select(
        attempts.c.child_id, attempts.c.attempt, attempts.c.lease_id, attempts.c.report_id, attempts.c.outcome
    ).where(Among(attempts.c.child_id, "ids"))
)
_STALE = Statement(
    select(stale_reports.c.child_id, stale_reports.c.attempt, stale_reports.c.report_id).where(
        Among(stale_reports.c.child_id, "ids")
    )
)
# In the order in which parent jobs are had.
_PARENTS_OF = Statement(
    select(child_jobs.c.parent_id).distinct().where(Among(child_jobs.c.id, "ids")).order_by(child_jobs.c.parent_id)
)
_INSERT_STALE = Statement(insert(stale_reports))


def report(
    tx: UnitOfWork, polls: Polls, session_id: str, reports: Sequence[Report], poll: Poll | None
) -> ReportAnswer:
    """Record reports of live leases, sort the others out, then grant the next leases."""
    matched = _match(tx, session_id, reports)
    return _answer(tx, polls, matched, poll)


def report_planning(
    tx: UnitOfWork, polls: Polls, session_id: str, reports: Sequence[Report], poll: Poll | None
) -> Bulk[ReportAnswer]:
    """Do as ``report``, where some reports plan children: these are made in the same transaction."""
    tx.exclusion.hold_session(session_id)
    for row in tx.rows(_PARENTS_OF, ids=[item.child_job_id for item in reports if item.planned]):
        tx.own(row.parent_id)
    matched = _match(tx, session_id, reports)
    for number, (item, ended) in enumerate(zip(matched.recorded, matched.ended, strict=True)):
        parent = tx.parent(ended.lease.parent_id)
        if not item.planned or ended.ending.state is not ChildJobState.COMPLETED or parent.stopping:
            continue
        if parent.settled_counts().total + len(item.planned) > MAX_CHILDREN:
            matched.ended[number] = _ended(tx, ended.lease, item, refused=too_many(len(item.planned)))
        else:
            yield from add_children(tx, parent, item.planned)
    return _answer(tx, polls, matched, poll)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Matched:
    """Reports with those of live leases told from the others.

    ``statuses`` has a place for each report, empty for those that are ``late``; ``ended`` is how each of the
    ``recorded`` ones ends its lease.
    """

    session: Any
    live: dict[str, Any]
    following: Rows
    statuses: list[ReportStatus | None]
    recorded: list[Report]
    ended: list[Ended]
    late: list[Report]


def _match(tx: UnitOfWork, session_id: str, reports: Sequence[Report]) -> _Matched:
    tx.exclusion.hold_session(session_id)
    asked = ask_session(tx, session_id)
    children = [item.child_job_id for item in reports]
    held, following = tx.ask_leases(children), tx.ask(SUCCESSORS, ids=children)
    tx.ask_turns()
    session = open_session(tx, session_id, asked)
    live = {row.child_id: row for row in held()}
    tx.parents(row.parent_id for row in live.values())  # all at once, not one for each report
    found = _Matched(session=session, live=live, following=following, statuses=[], recorded=[], ended=[], late=[])
    for item in reports:
        lease = live.get(item.child_job_id)
        if lease is not None and _fits(lease, session_id, item):
            del live[item.child_job_id]
            found.recorded.append(item)
            found.ended.append(_ended(tx, lease, item))
            found.statuses.append(ReportStatus.RECORDED)
        else:
            found.late.append(item)
            found.statuses.append(None)
    return found


def _answer(tx: UnitOfWork, polls: Polls, found: _Matched, poll: Poll | None) -> ReportAnswer:
    end_attempts(tx, found.ended, found.following)
    answers = iter(_sort_out(tx, found.late, found.live))
    leases: tuple[Lease, ...] = ()
    if poll is not None:
        leases = grant(tx, polls, found.session, poll, ended=len(found.ended))
    return ReportAnswer(statuses=tuple(status or next(answers) for status in found.statuses), leases=leases)


def _fits(lease: Any, session_id: str, item: Report) -> bool:
    """Compare the fence. An expire time that passed does not matter: an hour of work is not thrown away."""
    return (lease.lease_id, lease.attempt, lease.session_id) == (item.lease_id, item.attempt, session_id)


def _ended(tx: UnitOfWork, lease: Any, item: Report, refused: Failure | None = None) -> Ended:
    """Decide how a live lease ends; what is ``refused`` is a failure, whatever the worker reported."""
    if lease.operation == INSPECT and item.outcome is Outcome.COMPLETED and item.planned is None:
        refused = nothing_found()
    decisive = item if refused is None else failed_report(item, refused)
    if lease.operation == INSPECT and item.outcome is Outcome.COMPLETED and lease.stop:
        # What it found is not carried out any more, so that it did nothing.
        decisive = replace(item, outcome=Outcome.CANCELLED, verdict=None)
    budget = budget_of(lease, tx.parents([lease.parent_id])[lease.parent_id])
    ending = end_by_report(budget, decisive, now=tx.now, jitter=tx.ids.random())
    return Ended(
        lease=lease,
        ending=ending,
        outcome=item.outcome,
        report_id=item.report_id,
        failure=decisive.failure,
        reason=item.reason or ending.reason,
        totals=NOTHING if lease.operation == INSPECT else totals_of(item.before, item.after, item.waiters),
    )


def _sort_out(tx: UnitOfWork, late: Sequence[Report], live: dict[str, Any]) -> list[ReportStatus]:
    """Tell exact repeats of what is recorded from stale reports, and keep the stale ones for audit."""
    if not late:
        return []
    ids = sorted({item.child_job_id for item in late})
    recorded = {(row.child_id, row.attempt): row for row in tx.rows(_ATTEMPTS, ids=ids)}
    statuses = [
        ReportStatus.ALREADY_RECORDED
        if _repeats(recorded.get((item.child_job_id, item.attempt)), item)
        else ReportStatus.STALE
        for item in late
    ]
    stale = [item for item, status in zip(late, statuses, strict=True) if status is ReportStatus.STALE]
    if stale:
        known = set(recorded) | {(row.child_id, row.attempt) for row in live.values()}
        _keep(tx, [item for item in stale if (item.child_job_id, item.attempt) in known], ids)
    return statuses


def _repeats(row: Any | None, item: Report) -> bool:
    return row is not None and (row.lease_id, row.report_id, row.outcome) == (
        item.lease_id,
        item.report_id,
        item.outcome,
    )


def _keep(tx: UnitOfWork, stale: Sequence[Report], ids: list[str]) -> None:
    """Keep the first few stale reports of each attempt, each once."""
    kept: dict[tuple[str, int], set[str]] = {}
    for row in tx.rows(_STALE, ids=ids):
        kept.setdefault((row.child_id, row.attempt), set()).add(row.report_id)
    for item in stale:
        of_attempt = kept.setdefault((item.child_job_id, item.attempt), set())
        if item.report_id not in of_attempt and len(of_attempt) < _STALE_KEPT:
            of_attempt.add(item.report_id)
            tx.run(_INSERT_STALE, **_stale_row(tx, item))


def _stale_row(tx: UnitOfWork, item: Report) -> dict[str, Any]:
    return {
        "child_id": item.child_job_id,
        "attempt": item.attempt,
        "report_id": item.report_id,
        "outcome": item.outcome.value,
        "reason": item.reason or (item.failure.message if item.failure else ""),
        "create_time": tx.now,
    }
