"""The logs of attempts."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import bindparam, func, insert, select

from manager_service.domain.errors import ChildJobNotFoundError, LogGapError
from manager_service.domain.leases import LogBatch
from manager_service.domain.model import LogEntry, LogPage
from manager_service.domain.states import ChildJobState
from manager_service.store.sessions import open_session
from manager_service.store.statements import Connection, Statement, first
from manager_service.store.tables import child_jobs, job_logs, leases
from manager_service.store.unit_of_work import UnitOfWork

_g, _l, _c = job_logs.c, leases.c, child_jobs.c
# It does not end meanwhile.
_LIVE = Statement(
    select(_l.child_id)
    .where(
        _l.child_id == bindparam("child_id"),
        _l.lease_id == bindparam("lease_id"),
        _l.attempt == bindparam("attempt"),
        _l.session_id == bindparam("session_id"),
    )
    .with_for_update(read=True)
)
_LAST = Statement(
    select(func.max(_g.offset).label("offset")).where(
        _g.child_id == bindparam("child_id"), _g.attempt == bindparam("attempt")
    )
)
_INSERT = Statement(insert(job_logs))
_CHILD = Statement(
    select(_c.state, _c.attempts, _l.attempt.label("live"))
    .select_from(child_jobs.outerjoin(leases, _l.child_id == _c.id))
    .where(_c.id == bindparam("child_id"))
)
_ENTRIES = Statement(
    select(_g.time, _g.level, _g.message)
    .where(
        _g.child_id == bindparam("child_id"),
        _g.attempt == bindparam("attempt"),
        _g.offset >= bindparam("from_offset"),
    )
    .order_by(_g.offset)
    .limit(bindparam("limit"))
)


def append_logs(tx: UnitOfWork, batch: LogBatch) -> int | None:
    """Store the entries that are not stored yet; ``None`` when the lease is gone."""
    open_session(tx, batch.session_id)
    attempt = {"child_id": batch.child_job_id, "attempt": batch.attempt}
    if not tx.rows(_LIVE, lease_id=batch.lease_id, session_id=batch.session_id, **attempt):
        return None
    last = tx.rows(_LAST, **attempt)[0].offset
    stored = 0 if last is None else int(last) + 1
    if batch.offset > stored:
        raise LogGapError(stored)
    new = batch.entries[stored - batch.offset :]
    if new:
        tx.run_many(_INSERT, _rows(batch, stored, new))
        tx.tell_log(batch.child_job_id)
    return stored + len(new)


def read_logs(connection: Connection, child_job_id: str, *, attempt: int, offset: int, limit: int) -> LogPage:
    """Read entries of an attempt, 0 for the newest; raise ``ChildJobNotFoundError``."""
    child = first(connection.rows(_CHILD, child_id=child_job_id))
    if child is None:
        raise ChildJobNotFoundError(child_job_id)
    wanted = attempt or child.live or child.attempts
    rows = connection.rows(_ENTRIES, child_id=child_job_id, attempt=wanted, from_offset=offset, limit=limit)
    return LogPage(
        attempt=wanted,
        offset=offset,
        entries=tuple(LogEntry(time=row.time, level=row.level, message=row.message) for row in rows),
        finished=_finished(child, wanted),
    )


def _finished(child: Any, attempt: int) -> bool:
    """Tell whether the attempt ended, or will never be."""
    ended = 0 < attempt <= child.attempts and attempt != child.live
    return bool(ended or ChildJobState(child.state).final)


def _rows(batch: LogBatch, offset: int, entries: Sequence[LogEntry]) -> list[dict[str, Any]]:
    return [
        {
            "child_id": batch.child_job_id,
            "attempt": batch.attempt,
            "offset": offset + number,
            "time": entry.time,
            "level": entry.level,
            "message": entry.message,
        }
        for number, entry in enumerate(entries)
    ]
