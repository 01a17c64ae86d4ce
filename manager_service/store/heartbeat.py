"""Take in a worker's sign of life."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import bindparam, false, func, literal_column, null, select, update

from manager_service.domain.attempts import Loss
from manager_service.domain.fleet import SessionState, WorkerDirective
from manager_service.domain.leases import Heartbeat, HeartbeatAnswer, HeldLease, LeaseDirective
from manager_service.domain.model import Instant
from manager_service.domain.states import ChildJobState
from manager_service.store.endings import hold_leases, lose_leases
from manager_service.store.held_back import hold_back
from manager_service.store.progress import progress_text
from manager_service.store.sessions import open_session
from manager_service.store.statements import Among, Statement
from manager_service.store.tables import leases, sessions
from manager_service.store.unit_of_work import UnitOfWork

_MISSES_ALLOWED = 1

_l = leases.c
LEASES_OF_SESSION = Statement(select(leases).where(_l.session_id == bindparam("session_id")).order_by(_l.child_id))
_BEAT = Statement(
    update(sessions)
    .where(sessions.c.id == bindparam("of"))
    .values(
        heartbeat_sequence=bindparam("sequence"),
        heartbeat_time=bindparam("now"),
        state=bindparam("state"),
        lost_time=null(),
    )
)
RENEW = Statement(
    update(leases)
    .where(Among(_l.lease_id, "ids"))
    .values(expire_time=bindparam("expire_time"), missed=0, graced=False)
)
# The same, in its place, where a heartbeat tells how far it is; what it does not tell anew stands.
RENEW_WITH_PROGRESS = Statement(
    update(leases)
    .where(
        _l.child_id == bindparam("of"),
        _l.lease_id == bindparam("lease"),
        _l.attempt == bindparam("number"),
    )
    .values(
        expire_time=bindparam("expire_time"),
        missed=literal_column("0"),
        graced=false(),
        progress=func.coalesce(bindparam("progress", type_=_l.progress.type), _l.progress),
    )
)
_ACCEPT = Statement(
    update(leases)
    .where(Among(_l.lease_id, "ids"))
    .values(state=ChildJobState.RUNNING.value, start_time=bindparam("now"), version=_l.version + 1)
)
_MISS = Statement(update(leases).where(Among(_l.lease_id, "ids")).values(missed=_l.missed + 1))


def beat(tx: UnitOfWork, heartbeat: Heartbeat) -> HeartbeatAnswer:
    """Renew what is listed, accept what is new, take back what is not listed any more."""
    tx.exclusion.hold_session(heartbeat.session_id)
    session = open_session(tx, heartbeat.session_id)
    live = {row.lease_id: row for row in hold_leases(tx, tx.rows(LEASES_OF_SESSION, session_id=session.id))}
    listed = [live.get(held.lease_id) for held in heartbeat.leases]
    listed = [
        row if row is not None and row.attempt == held.attempt else None
        for row, held in zip(listed, heartbeat.leases, strict=True)
    ]
    newer = heartbeat.sequence > session.heartbeat_sequence
    if newer:
        named = {row.lease_id: row for row in listed if row is not None}
        _note(tx, session, heartbeat)
        hold_back(tx, session, heartbeat.held_back)
        _renew(tx, named, heartbeat.leases)
        _take_back(tx, [row for row in live.values() if row.lease_id not in named])
    return HeartbeatAnswer(
        leases=tuple(_directive(row) for row in listed),
        directive=_worker_directive(session),
        accepted=tuple((row.parent_id, row.child_id, row.lease_id) for row in listed if row is not None),
        back=session.worker_name if newer and session.lost_time is not None else None,
    )


def _note(tx: UnitOfWork, session: Any, heartbeat: Heartbeat) -> None:
    state = session.state
    if state in (SessionState.READY, SessionState.DRAINING):
        drains = heartbeat.draining or session.directive != WorkerDirective.NONE
        state = SessionState.DRAINING if drains else SessionState.READY
    tx.post(_BEAT, of=session.id, sequence=heartbeat.sequence, now=tx.now, state=str(state))


def _renew(tx: UnitOfWork, named: dict[str, Any], held: Sequence[HeldLease]) -> None:
    if not named:
        return
    told = {lease.lease_id: progress_text(lease.progress) for lease in held if lease.progress is not None}
    expire_time = tx.now + tx.timing.lease_duration
    if told.keys() & named.keys():
        tx.post_many(RENEW_WITH_PROGRESS, [_renewed(row, told, expire_time) for row in named.values()])
    else:
        tx.post(RENEW, ids=list(named), expire_time=expire_time)
    accepted = [row for row in named.values() if row.state == ChildJobState.LEASED]
    if not accepted:
        return
    tx.post(_ACCEPT, ids=[row.lease_id for row in accepted], now=tx.now)
    parents = tx.parents(row.parent_id for row in accepted)
    for row in accepted:
        parents[row.parent_id].child_changed(
            row.child_id,
            ChildJobState.LEASED,
            ChildJobState.RUNNING,
            attempts=row.attempt,
            version=row.version + 1,
        )


def _renewed(row: Any, told: Mapping[str, str | None], expire_time: Instant) -> dict[str, Any]:
    return {
        "of": row.child_id,
        "lease": row.lease_id,
        "number": row.attempt,
        "expire_time": expire_time,
        "progress": told.get(row.lease_id),
    }


def _take_back(tx: UnitOfWork, unlisted: list[Any]) -> None:
    """Take back what the worker does not have: its own word costs nothing."""
    lost: list[tuple[Any, Loss]] = []
    missed: list[str] = []
    for row in unlisted:
        if row.state == ChildJobState.LEASED:
            if row.accept_time < tx.now:
                lost.append((row, Loss.UNACCEPTED))
        elif row.missed >= _MISSES_ALLOWED:
            lost.append((row, Loss.UNLISTED))
        else:
            missed.append(row.lease_id)
    if missed:
        tx.post(_MISS, ids=missed)
    lose_leases(tx, lost)


def _directive(row: Any | None) -> LeaseDirective:
    if row is None:
        return LeaseDirective.LOST
    return LeaseDirective.CANCEL if row.stop else LeaseDirective.CONTINUE


def _worker_directive(session: Any) -> WorkerDirective:
    if session.state == SessionState.SUPERSEDED:
        return WorkerDirective.TERMINATE
    return WorkerDirective(session.directive)
