"""Look sessions up, as every call of a worker does first."""

from typing import Any

from sqlalchemy import bindparam, func, select

from manager_service.domain.errors import SessionUnknownError
from manager_service.domain.fleet import SessionState
from manager_service.store.statements import Connection, Rows, Statement
from manager_service.store.tables import leases, sessions

_s = sessions.c
_SESSION = Statement(
    select(
        _s.id,
        _s.worker_name,
        _s.slots,
        _s.state,
        _s.directive,
        _s.heartbeat_sequence,
        _s.poll_sequence,
        _s.offers_id,
        _s.held_back,
        _s.lost_time,
        # Slots are counted from live leases, never stored.
        select(func.count())
        .select_from(leases)
        .where(leases.c.session_id == _s.id)
        .correlate(sessions)
        .scalar_subquery()
        .label("live"),
    ).where(_s.id == bindparam("session_id"))
)


def ask_session(connection: Connection, session_id: str) -> Rows:
    """Ask for a session, to be opened."""
    return connection.ask(_SESSION, session_id=session_id)


def open_session(connection: Connection, session_id: str, asked: Rows | None = None) -> Any:
    """Return the row of a session that is not closed, with its ``live`` leases as of now.

    Args:
        connection: reads it.
        session_id: which one.
        asked: it, where it was asked for before.

    Raises:
        SessionUnknownError: there is no such session, or it is closed.
    """
    rows = (asked or ask_session(connection, session_id))()
    if not rows or rows[0].state == SessionState.CLOSED:
        raise SessionUnknownError(session_id)
    return rows[0]
