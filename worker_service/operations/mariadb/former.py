"""What earlier attempts of a child job left running in the server: it is ended, or its end is waited for."""

import time
from contextlib import suppress

from worker_service.domain.errors import OperationCancelledError, TargetBusyError
from worker_service.domain.outcome import Outcome, Result
from worker_service.operations.mariadb.connection import ServerError
from worker_service.operations.mariadb.options import waits_for_former_attempt
from worker_service.operations.mariadb.session import Session
from worker_service.operations.mariadb.target_lock import attempt_lock_name
from worker_service.operations.wording import listed

_PATIENCE, _FREED_WITHIN = 10.0, 1.0
_LOOK_EVERY, _LOOK_WHILE_WAITING = 0.05, 0.5
_LOOKED_BACK = 100
_RUNNING = "SELECT ID, INFO FROM information_schema.PROCESSLIST WHERE ID <> CONNECTION_ID() AND INFO LIKE %s"
_ALIVE = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID = %s"
_STOPPED = "stopped while it waited for an earlier attempt, which still runs in the server; it did nothing itself."


def take_over(session: Session) -> Result | None:
    """Take the lock in the server, once nothing of an earlier attempt of the same child job runs there any more.

    By the operation's policy its statement may come to its end first; return the result when the operation is
    stopped meanwhile. Otherwise its connection is ended, and its end waited for.

    Raises:
        TargetBusyError: one does not end, a later attempt runs, or another operation has the lock.
        ServerError: the connection broke.
    """
    waited, ended = False, list[int]()
    # Before the first attempt there is none, and to look for one takes as long as many an operation.
    if session.operation.attempt > 1 and session.operation.child_job_id:
        try:
            waited = waits_for_former_attempt(session.options) and _wait(session)
            ended = _end(session)
        except OperationCancelledError:
            return Result(outcome=Outcome.CANCELLED, reason=_STOPPED)
    if ended:
        session.log("warning", f"Ended what an earlier attempt left running (connections {ended}).")
    # The server frees the locks of a connection a moment after it is gone.
    _lock(session, seconds=_FREED_WITHIN if waited or ended else 0.0)
    return None


def _lock(session: Session, *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            return session.take_the_lock()
        except TargetBusyError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(_LOOK_EVERY)


def _wait(session: Session) -> bool:
    """Wait for the end of what runs, and tell whether there was anything."""
    told = ""
    while running := _running(session):
        if (named := listed(f"connection {number} (attempt {one})" for number, one in running.items())) != told:
            session.log("info", f"Waiting for the end of what an earlier attempt left running: {named}.")
            session.progress(f"waiting for an earlier attempt: {named}")
        told = named
        session.checkpoint()
        if session.stop.wait(_LOOK_WHILE_WAITING):
            raise OperationCancelledError("The operation was stopped while it waited for an earlier attempt.")
    return bool(told)


def _end(session: Session) -> list[int]:
    """End the connections of earlier attempts, and return their numbers once they have ended."""
    connection = session.connection
    found = _running(session) | _holding(session)
    order = "KILL SOFT CONNECTION" if session.server.is_mariadb else "KILL"
    for number, attempt in found.items():
        # It may have ended meanwhile, and its connection may be another operation's by now.
        if _is_at_it(session, number, attempt):
            with suppress(ServerError):
                connection.rows(f"{order} {number:d}")
    deadline = time.monotonic() + _PATIENCE
    for number, attempt in found.items():
        while connection.value(_ALIVE, number) and _is_at_it(session, number, attempt):
            if time.monotonic() > deadline:
                raise TargetBusyError(
                    f"An earlier attempt still works in the server (connection {number}) and does not end: "
                    "it rolls back, it repairs a table that is not left half done, or the role may not kill it."
                )
            if session.stop.wait(_LOOK_EVERY):
                raise OperationCancelledError("The operation was stopped while an earlier attempt ended.")
    return sorted(found)


def _is_at_it(session: Session, number: int, attempt: int) -> bool:
    """Tell whether a connection is an attempt's just now: it runs a statement of its, or holds its lock."""
    holder = session.connection.value("SELECT IS_USED_LOCK(%s)", attempt_lock_name(_tag(session, attempt)))
    return holder == number or _running(session).get(number) == attempt


def _running(session: Session) -> dict[int, int]:
    """Return the earlier attempts that have a statement under way, by the number of their connection."""
    begin = f"/* {_tag(session, '')}"
    found: dict[int, int] = {}
    for number, info in session.connection.rows(_RUNNING, f"{begin}%"):
        digits = str(info).removeprefix(begin).split(" ", 1)[0]
        if digits.isdigit():
            found[int(number)] = int(digits)
    if any(attempt >= session.operation.attempt for attempt in found.values()):
        raise TargetBusyError("Another attempt of this child job, not an earlier one, works on the database.")
    return found


def _holding(session: Session) -> dict[int, int]:
    """Return the earlier attempts that hold a lock, by the number of their connection, be it at work or not."""
    own = session.operation.attempt
    earlier = range(max(1, own - _LOOKED_BACK), own)
    locks = [attempt_lock_name(_tag(session, attempt)) for attempt in earlier]
    holders = session.connection.rows(f"SELECT {', '.join(['IS_USED_LOCK(%s)'] * len(locks))}", *locks)[0]
    return {int(holder): number for holder, number in zip(holders, earlier, strict=True) if holder}


def _tag(session: Session, attempt: int | str) -> str:
    return f"{session.tag.rpartition(':')[0]}:{attempt}"
