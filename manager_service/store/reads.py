"""Read jobs and their events, each call from one snapshot."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import and_, bindparam, func, literal, literal_column, select

from manager_service.domain.errors import ChildJobNotFoundError, ParentJobNotFoundError, RequestIdReusedError
from manager_service.domain.events import EventPage
from manager_service.domain.model import Attempt, ChildJob, Instant, ParentJob, StaleReport
from manager_service.domain.ports import ChildJobFilter, ParentJobFilter
from manager_service.domain.states import ChildJobState, Outcome, ParentJobState, Verdict, WaitReason
from manager_service.store.parents import PARENT_COLUMNS, PARENT_OF_REQUEST, PARENTS, SELECT_PARENTS, parent_of
from manager_service.store.progress import progress_of
from manager_service.store.rows import event_of, failure_of, mapping_of
from manager_service.store.statements import Among, Connection, Statement
from manager_service.store.tables import (
    attempts,
    child_jobs,
    durations,
    events,
    leases,
    parent_counts,
    parent_jobs,
    parent_labels,
    parent_targets,
    stale_reports,
)
from manager_service.store.totals import waiters_of_text
from manager_service.store.waits import Waits

_p, _c, _l, _d = parent_jobs.c, child_jobs.c, leases.c, durations.c
# What a lease says is newer than what its child's row says.
_state = func.coalesce(_l.state, _c.state)
_CHILDREN = child_jobs.outerjoin(leases, _l.child_id == _c.id).outerjoin(
    durations,
    and_(
        _d.target == _c.target,
        _d.operation == _c.operation,
        _d.object == func.coalesce(_c.object, literal_column("''")),
    ),
)
_CHILD_COLUMNS = (
    _c.id,
    _c.parent_id,
    _c.operation,
    _c.options,
    _c.target,
    _c.object,
    _c.locks,
    _state.label("state"),
    _c.verdict,
    _c.reason,
    func.coalesce(_l.attempt, _c.attempts).label("attempts"),
    _c.failures,
    _c.losses,
    _c.failure,
    _c.before,
    _c.after,
    func.coalesce(_l.version, _c.version).label("version"),
    _c.position,
    _c.available_time,
    _l.worker_name,
    _c.create_time,
    func.coalesce(_l.start_time, _c.start_time).label("start_time"),
    _c.end_time,
    _c.waiters,
    _l.lease_id,
    _l.grant_time,
    _l.start_time.label("lease_start_time"),
    _l.progress,
    _d.expected,
)
_CHILD = Statement(select(*_CHILD_COLUMNS).select_from(_CHILDREN).where(_c.id == bindparam("id")))
# Those that ran through tell themselves how long it took.
_NOT_RUN = frozenset({ChildJobState.PENDING, ChildJobState.LEASED, ChildJobState.RUNNING, ChildJobState.SKIPPED})
_ATTEMPTS = Statement(select(attempts).where(attempts.c.child_id == bindparam("id")).order_by(attempts.c.attempt))
_STALE = Statement(
    select(stale_reports)
    .where(stale_reports.c.child_id == bindparam("id"))
    .order_by(stale_reports.c.attempt, stale_reports.c.create_time)
)
_EVENTS = Statement(
    select(
        events.c.sequence,
        events.c.time,
        events.c.kind,
        events.c.child_id,
        events.c.previous_state,
        events.c.state,
        events.c.attempts,
        events.c.version,
        events.c.verdict,
        events.c.reason,
        events.c.paused,
        events.c.cancel_requested,
        events.c.affected,
        events.c.counts,
        _c.operation,
        _c.target,
        _c.object,
    )
    .select_from(events.outerjoin(child_jobs, _c.id == events.c.child_id))
    .where(events.c.parent_id == bindparam("parent_id"), events.c.sequence > bindparam("after"))
    .order_by(events.c.sequence)
    .limit(bindparam("limit"))
)
_SEQUENCES = Statement(
    select(parent_counts.c.sequence, parent_counts.c.first_sequence, _p.state)
    .select_from(PARENTS)
    .where(_p.id == bindparam("parent_id"))
)


def read_parent_job(connection: Connection, parent_job_id: str) -> ParentJob:
    """Read a parent job; raise ``ParentJobNotFoundError``."""
    rows = connection.rows(SELECT_PARENTS, ids=[parent_job_id])
    if not rows:
        raise ParentJobNotFoundError(parent_job_id)
    return parent_of(rows[0])


def read_requested_parent_job(connection: Connection, request_id: str, request_hash: str) -> ParentJob | None:
    """Return the parent job that this very request made; raise ``RequestIdReusedError``."""
    rows = connection.rows(PARENT_OF_REQUEST, request_id=request_id)
    if not rows:
        return None
    if rows[0].request_hash != request_hash:
        raise RequestIdReusedError(request_id, rows[0].id)
    return read_parent_job(connection, rows[0].id)


def read_parent_jobs(
    connection: Connection, wanted: ParentJobFilter, *, after: str, limit: int
) -> tuple[ParentJob, ...]:
    """List parent jobs by age."""
    statement = select(*PARENT_COLUMNS).select_from(PARENTS).limit(limit)
    if wanted.states:
        statement = statement.where(Among(_p.state, "states"))
    for key, value in sorted(wanted.labels.items()):
        label = parent_labels.alias()
        statement = statement.where(
            select(literal(1))
            .select_from(label)
            .where(label.c.parent_id == _p.id, label.c.key == key, label.c.value == value)
            .correlate(parent_jobs)
            .exists()
        )
    if wanted.target:
        statement = statement.where(
            select(literal(1))
            .select_from(parent_targets)
            .where(parent_targets.c.parent_id == _p.id, parent_targets.c.target == wanted.target)
            .correlate(parent_jobs)
            .exists()
        )
    if after:
        statement = statement.where(_p.id > after if wanted.oldest_first else _p.id < after)
    statement = statement.order_by(_p.id if wanted.oldest_first else _p.id.desc())
    return tuple(parent_of(row) for row in connection.rows(Statement(statement), states=sorted(wanted.states)))


def read_child_job(
    connection: Connection, child_job_id: str, *, now: Instant, alive_since: Instant
) -> tuple[ChildJob, tuple[Attempt, ...]]:
    """Read a child job and its attempts; raise ``ChildJobNotFoundError``."""
    rows = connection.rows(_CHILD, id=child_job_id)
    if not rows:
        raise ChildJobNotFoundError(child_job_id)
    [child] = _children(connection, rows, now=now, alive_since=alive_since)
    return child, _attempts(connection, rows[0])


def read_child_jobs(
    connection: Connection,
    parent_job_id: str,
    wanted: ChildJobFilter,
    *,
    after: int,
    limit: int,
    now: Instant,
    alive_since: Instant,
) -> tuple[ChildJob, ...]:
    """List children in request order; raise ``ParentJobNotFoundError``."""
    read_parent_job(connection, parent_job_id)
    statement = (
        select(*_CHILD_COLUMNS)
        .select_from(_CHILDREN)
        .where(_c.parent_id == parent_job_id, _c.position > after)
        .order_by(_c.position)
        .limit(limit)
    )
    if wanted.states:
        statement = statement.where(Among(_state, "states"))
    if wanted.target:
        statement = statement.where(_c.target == wanted.target)
    if wanted.operation:
        statement = statement.where(_c.operation == wanted.operation)
    rows = connection.rows(Statement(statement), states=sorted(wanted.states))
    return _children(connection, rows, now=now, alive_since=alive_since)


def read_events(connection: Connection, parent_job_id: str, *, after: int, limit: int) -> EventPage:
    """Read events beyond a sequence; raise ``ParentJobNotFoundError``."""
    rows = connection.rows(_SEQUENCES, parent_id=parent_job_id)
    if not rows:
        raise ParentJobNotFoundError(parent_job_id)
    found = connection.rows(_EVENTS, parent_id=parent_job_id, after=after, limit=limit)
    return EventPage(
        events=tuple(event_of(row) for row in found),
        trimmed=after + 1 < rows[0].first_sequence,
        last_sequence=rows[0].sequence,
        final=ParentJobState(rows[0].state).final,
    )


def _children(
    connection: Connection, rows: Sequence[Any], *, now: Instant, alive_since: Instant
) -> tuple[ChildJob, ...]:
    pending = [row for row in rows if row.state == ChildJobState.PENDING]
    waits = Waits(connection, pending, now=now, alive_since=alive_since) if pending else None
    return tuple(
        _child(row, *(waits.reason(row) if waits and row.state == ChildJobState.PENDING else (None, "")))
        for row in rows
    )


def _child(row: Any, reason: WaitReason | None, detail: str) -> ChildJob:
    state = ChildJobState(row.state)
    return ChildJob(
        id=row.id,
        parent_job_id=row.parent_id,
        operation=row.operation,
        options=mapping_of(row.options),
        target=row.target,
        object=row.object,
        state=state,
        verdict=Verdict(row.verdict) if row.verdict else None,
        reason=row.reason,
        attempts=row.attempts,
        failures=row.failures,
        losses=row.losses,
        failure=failure_of(row.failure),
        before=mapping_of(row.before),
        after=mapping_of(row.after),
        version=row.version,
        position=row.position,
        wait_reason=reason,
        wait_detail=detail,
        available_time=row.available_time if state is ChildJobState.PENDING else None,
        worker_name=row.worker_name or "",
        create_time=row.create_time,
        start_time=row.start_time,
        end_time=row.end_time,
        progress=progress_of(row.progress),
        waiters=waiters_of_text(row.waiters),
        expected=row.expected if state in _NOT_RUN else None,
    )


def _attempts(connection: Connection, child: Any) -> tuple[Attempt, ...]:
    stale: dict[int, list[StaleReport]] = {}
    for row in connection.rows(_STALE, id=child.id):
        stale.setdefault(row.attempt, []).append(_stale_report(row))
    ended = [_ended_attempt(row, stale) for row in connection.rows(_ATTEMPTS, id=child.id)]
    return (*ended, _live_attempt(child, stale)) if child.lease_id else tuple(ended)


def _stale_report(row: Any) -> StaleReport:
    return StaleReport(
        report_id=row.report_id, outcome=Outcome(row.outcome), reason=row.reason, create_time=row.create_time
    )


def _ended_attempt(row: Any, stale: dict[int, list[StaleReport]]) -> Attempt:
    return Attempt(
        attempt=row.attempt,
        worker_name=row.worker_name,
        lease_id=row.lease_id,
        outcome=Outcome(row.outcome) if row.outcome else None,
        failure=failure_of(row.failure),
        reason=row.reason,
        create_time=row.create_time,
        start_time=row.start_time,
        end_time=row.end_time,
        stale_reports=tuple(stale.get(row.attempt, ())),
    )


def _live_attempt(child: Any, stale: dict[int, list[StaleReport]]) -> Attempt:
    return Attempt(
        attempt=child.attempts,
        worker_name=child.worker_name,
        lease_id=child.lease_id,
        outcome=None,
        failure=None,
        reason="",
        create_time=child.grant_time,
        start_time=child.lease_start_time,
        end_time=None,
        stale_reports=tuple(stale.get(child.attempts, ())),
    )
