"""One operation at a time in one database: the lock in the target, and what earlier attempts left running."""

import time
from typing import Any

from worker_service.domain.errors import OperationCancelledError, TargetBusyError
from worker_service.operations.postgresql.prologue import child_prefix
from worker_service.operations.postgresql.session import Session

# Advisory locks of two numbers never meet those of one, which the job store uses. They count within a database.
# One lock for all of it: two operations on different tables could run beside each other, but their locks on
# shared catalogues and their waits for each other's snapshots would have to be thought of.
LOCK = (0x0F_E2_4A_01, 1)
_TRY = "SELECT pg_try_advisory_lock(%s, %s)"
_HOLDER = """
SELECT a.pid, a.application_name FROM pg_locks AS l LEFT JOIN pg_stat_activity AS a USING (pid)
WHERE l.locktype = 'advisory' AND l.classid = %s AND l.objid = %s AND l.objsubid = 2 AND l.granted
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_FORMER = """
SELECT pid, backend_start, application_name FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND starts_with(application_name, %s)
"""
# The number of a process may be another's by now, so all three have to be the same.
_SAME = "FROM pg_stat_activity WHERE pid = %s AND backend_start = %s AND application_name = %s"
_CANCEL = f"SELECT pg_cancel_backend(pid) {_SAME}"
_TERMINATE = f"SELECT pg_terminate_backend(pid) {_SAME}"
CANCEL_SECONDS, TERMINATE_SECONDS = 10.0, 10.0
_LOOK_EVERY = 0.1


def end_former_attempts(session: Session) -> None:
    """Stop what an earlier attempt of the same child job still runs in the server.

    The server goes on with a statement whose client is dead. That attempt's lease is over, or this one would
    not be: so its statement is cancelled, and its session is ended if that does not help.

    Raises:
        TargetBusyError: a session of another attempt could not be ended.
        OperationCancelledError: the operation was stopped while it waited.
    """
    for order, seconds in ((_CANCEL, CANCEL_SECONDS), (_TERMINATE, TERMINATE_SECONDS)):
        deadline = time.monotonic() + seconds
        while former := _former(session):
            for one in former:
                session.log("warning", f"Ending what is left of an earlier attempt: pid {one[0]}, {one[2]}.")
                session.rows(order, *one)
            if time.monotonic() > deadline:
                break
            if session.stop.wait(_LOOK_EVERY):
                raise OperationCancelledError("The operation was stopped while an earlier attempt ended.")
        else:
            return
    raise TargetBusyError("An earlier attempt of this child job still runs in the server and cannot be ended.")


def hold(session: Session) -> None:
    """Take the lock in the target, which is given back when the operation's connection ends.

    Raises:
        TargetBusyError: another operation has it.
    """
    if session.value(_TRY, *LOCK):
        return
    holders = [f"pid {pid} ({name})" for pid, name in session.rows(_HOLDER, *LOCK)]
    raise TargetBusyError(
        f"Another operation of Overhaul runs in this database: {', '.join(holders) or 'it has just ended'}."
    )


def _former(session: Session) -> list[tuple[Any, ...]]:
    operation = session.operation
    if not operation.child_job_id:
        return []
    prefix = child_prefix(operation.child_job_id)
    return [
        row for row in session.rows(_FORMER, prefix) if _is_former(row[2].removeprefix(prefix), operation.attempt)
    ]


def _is_former(attempt: str, own: int) -> bool:
    if attempt.isdecimal() and int(attempt) > own:
        raise TargetBusyError(f"Attempt {attempt} of this child job runs already; this is attempt {own}.")
    return True
