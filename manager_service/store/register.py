"""Open and close workers' sessions."""

from collections.abc import Iterable
from operator import attrgetter
from typing import Any

from sqlalchemy import bindparam, delete, insert, select, update

from manager_service.domain.attempts import Loss
from manager_service.domain.errors import SessionSupersededError, TargetIdentityMismatchError
from manager_service.domain.fleet import Registration, ServedTarget, SessionState, WorkerDirective
from manager_service.store.acquire import Polls
from manager_service.store.endings import hold_leases, lose_leases
from manager_service.store.heartbeat import LEASES_OF_SESSION
from manager_service.store.held_back import wake
from manager_service.store.rows import operations_text, text_of
from manager_service.store.statements import Among, Statement
from manager_service.store.tables import session_targets, sessions, target_labels, targets
from manager_service.store.unit_of_work import UnitOfWork
from manager_service.store.writer import Bulk, pieces

_s = sessions.c
_SESSION_OF_INSTANCE = Statement(
    select(_s.id, _s.state, _s.worker_name).where(_s.instance_id == bindparam("instance_id"))
)
_OTHERS = Statement(
    select(_s.id)
    .with_hint(sessions, "INDEXED BY ix_sessions_worker_name")
    .where(
        _s.worker_name == bindparam("worker_name"),
        _s.instance_id != bindparam("instance_id"),
        Among(_s.state, "open"),
    )
)
_SET_STATE = Statement(update(sessions).where(_s.id == bindparam("of")).values(state=bindparam("state")))
# One that closed meanwhile is closed.
_SUPERSEDE = Statement(
    update(sessions)
    .where(_s.id == bindparam("of"), Among(_s.state, "open"))
    .values(state=SessionState.SUPERSEDED.value)
)
_INSERT_SESSION = Statement(insert(sessions))
_RENEW_SESSION = Statement(
    update(sessions)
    .where(_s.id == bindparam("of"))
    .values(
        {
            name: bindparam(name)
            for name in (
                "worker_name",
                "build",
                "host",
                "pid",
                "labels",
                "slots",
                "offers_id",
                "heartbeat_time",
                "lost_time",
            )
        }
    )
)
_DELETE_SESSION = Statement(delete(sessions).where(_s.id == bindparam("of")))
_UNSERVE = Statement(delete(session_targets).where(session_targets.c.session_id == bindparam("of")))
_SERVED = Statement(
    select(session_targets.c.target).where(session_targets.c.session_id == bindparam("session_id"))
)
_SERVE = Statement(insert(session_targets))
# Nobody forgets a target meanwhile; claims go on.
_KNOWN = Statement(
    select(targets)
    .where(Among(targets.c.name, "names"))
    .order_by(targets.c.name)
    .with_for_update(read=True, key_share=True)
)
_INSERT_TARGET = Statement(insert(targets))
_UPDATE_TARGET = Statement(
    update(targets)
    .where(targets.c.name == bindparam("of"))
    .values(
        {
            name: bindparam(name)
            for name in ("engine", "engine_version", "identity", "labels", "max_parallel", "operations")
        }
    )
)
_UNLABEL = Statement(delete(target_labels).where(target_labels.c.target == bindparam("of")))
_LABEL = Statement(insert(target_labels))
_OPEN_STATES = [SessionState.READY.value, SessionState.DRAINING.value]


def register(tx: UnitOfWork, polls: Polls, registration: Registration) -> Bulk[str]:
    """Open or renew the session of an instance, and make its targets known."""
    tx.exclusion.hold_name(registration.worker_name)
    before = _held(tx, tx.row(_SESSION_OF_INSTANCE, instance_id=registration.instance_id), registration)
    if before is not None and before.state == SessionState.SUPERSEDED:
        raise SessionSupersededError(before.worker_name)
    known = _known(tx, registration.targets)
    session_id = _open(tx, polls, registration, before)
    served = {row.target for row in tx.rows(_SERVED, session_id=session_id)}
    tx.run(_UNSERVE, of=session_id)
    # By name: workers that serve the same targets write them in the same order.
    for piece in pieces(sorted(registration.targets, key=attrgetter("name"))):
        _learn(tx, piece, known)
        tx.run_many(_SERVE, [_served_row(session_id, target) for target in piece])
        wake(tx, [target.name for target in piece if target.name not in served])
        yield
    return session_id


def deregister(tx: UnitOfWork, polls: Polls, session_id: str) -> None:
    """Close a session and take its live leases back at no cost; an unknown one is closed already."""
    tx.exclusion.hold_session(session_id)
    held = hold_leases(tx, tx.rows(LEASES_OF_SESSION, session_id=session_id))
    lose_leases(tx, [(row, Loss.CLOSED) for row in held])
    if tx.run(_SET_STATE, of=session_id, state=SessionState.CLOSED.value):
        tx.run(_UNSERVE, of=session_id)
        tx.tell_session(session_id)
    polls.forget(session_id)


def _held(tx: UnitOfWork, found: Any | None, registration: Registration) -> Any | None:
    """Return the session of an instance as it stays: it may have been closed or deleted since it was found."""
    if found is None or tx.exclusion.alone:
        return found
    tx.exclusion.hold_session(found.id)
    return tx.row(_SESSION_OF_INSTANCE, instance_id=registration.instance_id)


def _known(tx: UnitOfWork, served: Iterable[ServedTarget]) -> dict[str, Any]:
    """Return what is known of the targets; a name that means another database is refused before anything."""
    wanted = {target.name: target for target in served}
    known = {row.name: row for row in tx.rows(_KNOWN, names=sorted(wanted))}
    for name, row in known.items():
        if row.identity != wanted[name].identity:
            raise TargetIdentityMismatchError(name, row.identity, wanted[name].identity)
    return known


def _open(tx: UnitOfWork, polls: Polls, registration: Registration, before: Any | None) -> str:
    _supersede(tx, registration)
    written = {
        "worker_name": registration.worker_name,
        "build": registration.build,
        "host": registration.host,
        "pid": registration.pid,
        "labels": text_of(registration.labels),
        "slots": registration.slots,
        "offers_id": tx.ids.new_id(),
        "heartbeat_time": tx.now,
        "lost_time": None,
    }
    if before is not None and before.state in _OPEN_STATES:
        tx.run(_RENEW_SESSION, of=before.id, **written)
        tx.renewed(before.id)
        return str(before.id)
    if before is not None:
        # A closed session is not reopened: calls of it that are still under way must not count for the new one.
        tx.run(_UNSERVE, of=before.id)
        tx.run(_DELETE_SESSION, of=before.id)
        polls.forget(before.id)
    return _insert(tx, registration, written)


def _insert(tx: UnitOfWork, registration: Registration, written: dict[str, Any]) -> str:
    session_id = tx.ids.new_id()
    tx.run(
        _INSERT_SESSION,
        id=session_id,
        instance_id=registration.instance_id,
        create_time=tx.now,
        heartbeat_sequence=0,
        poll_sequence=0,
        state=SessionState.READY.value,
        directive=WorkerDirective.NONE.value,
        **written,
    )
    return session_id


def _supersede(tx: UnitOfWork, registration: Registration) -> None:
    """Let the older instance finish what it runs: its leases stay its own until they are reported or run out."""
    names = {"worker_name": registration.worker_name, "instance_id": registration.instance_id}
    for row in tx.rows(_OTHERS, open=_OPEN_STATES, **names):
        tx.run(_SUPERSEDE, of=row.id, open=_OPEN_STATES)
        tx.run(_UNSERVE, of=row.id)
        tx.tell_session(row.id)


def _learn(tx: UnitOfWork, served: list[ServedTarget], known: dict[str, Any]) -> None:
    rows = [_target_row(target) for target in served]
    new = [row for row in rows if row["name"] not in known]
    changed = [row for row in rows if row["name"] in known and _differs(row, known[row["name"]])]
    tx.run_many(_INSERT_TARGET, [{**row, "paused": False} for row in new])
    tx.run_many(_UPDATE_TARGET, [{"of": row["name"], **row} for row in changed])
    tx.run_many(_UNLABEL, [{"of": row["name"]} for row in changed])
    relabelled = {row["name"] for row in (*new, *changed)}
    tx.run_many(
        _LABEL,
        [
            {"target": target.name, "key": key, "value": value}
            for target in served
            if target.name in relabelled
            for key, value in target.labels.items()
        ],
    )


def _differs(row: dict[str, Any], known: Any) -> bool:
    return any(value != getattr(known, name) for name, value in row.items())


def _target_row(target: ServedTarget) -> dict[str, Any]:
    return {
        "name": target.name,
        "engine": target.engine,
        "engine_version": target.engine_version,
        "identity": target.identity,
        "labels": text_of(target.labels),
        "max_parallel": max(1, target.max_parallel),
        "operations": operations_text(target.operations),
    }


def _served_row(session_id: str, target: ServedTarget) -> dict[str, Any]:
    return {
        "session_id": session_id,
        "target": target.name,
        "operations": operations_text(target.operations),
    }
