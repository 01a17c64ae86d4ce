"""What earlier attempts of a child job left running in the server: it is ended, or its end is waited for."""

import time
from dataclasses import dataclass
from typing import Any

from worker_service.domain.errors import OperationCancelledError, TargetBusyError
from worker_service.domain.operation import Progress
from worker_service.domain.outcome import Result
from worker_service.operations.postgresql.procedure import cancelled
from worker_service.operations.postgresql.prologue import child_prefix
from worker_service.operations.postgresql.session import Session
from worker_service.operations.wording import listed

_FORMER = """
SELECT pid, backend_start, application_name, state FROM pg_stat_get_activity(NULL)
WHERE datid = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND pid <> pg_backend_pid() AND starts_with(application_name, %s)
"""
# The number of a process may be another's by now, so all three have to be the same.
_SAME = "FROM pg_stat_activity WHERE pid = %s AND backend_start = %s AND application_name = %s"
_CANCEL = f"SELECT pg_cancel_backend(pid) {_SAME}"
_TERMINATE = f"SELECT pg_terminate_backend(pid) {_SAME}"
CANCEL_SECONDS, TERMINATE_SECONDS = 10.0, 10.0
_LOOK_EVERY, _LOOK_WHILE_WAITING = 0.1, 0.5
_STOPPED = "stopped while it waited for an earlier attempt, which still runs in the server; it did nothing itself."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Former:
    """A session of an earlier attempt; its ``key`` tells it from every other that the server ever had."""

    key: tuple[Any, ...]
    state: str

    @property
    def runs(self) -> bool:
        """Whether it has a statement under way; one whose state is not told is taken to have."""
        return not self.state.startswith("idle")

    def __str__(self) -> str:
        pid, _, name = self.key
        return f"pid {pid} ({name})"


def settle_former_attempts(session: Session) -> Result | None:
    """See to it that nothing of an earlier attempt of the same child job runs in the server any more.

    The server goes on with a statement whose client is dead. By the operation's policy the statement may come to
    its end first; return the result when the operation is stopped meanwhile. Otherwise it is cancelled: that
    attempt's lease is over, or this one would not be. A session is ended if that does not help.

    Raises:
        TargetBusyError: a session of another attempt could not be ended.
        OperationCancelledError: the operation was stopped while they ended.
    """
    if session.operation.attempt <= 1:
        return None
    if session.options.waits_for_former_attempt:
        try:
            _wait(session)
        except OperationCancelledError:
            return cancelled(_STOPPED, {}, {})
    _end(session)
    return None


def _wait(session: Session) -> None:
    told = ""
    while running := [str(one) for one in _former(session) if one.runs]:
        if (named := listed(running)) != told:
            session.log("info", f"Waiting for the end of what an earlier attempt left running: {named}.")
            session.progress(Progress(phase=f"waiting for an earlier attempt: {named}"))
        told = named
        session.checkpoint()
        if session.stop.wait(_LOOK_WHILE_WAITING):
            raise OperationCancelledError("The operation was stopped while it waited for an earlier attempt.")


def _end(session: Session) -> None:
    for order, seconds in ((_CANCEL, CANCEL_SECONDS), (_TERMINATE, TERMINATE_SECONDS)):
        deadline = time.monotonic() + seconds
        told: set[str] = set()
        while former := _former(session):
            for one in former:
                if str(one) not in told:
                    session.log("warning", f"Ending what is left of an earlier attempt: {one}.")
                told.add(str(one))
                session.rows(order, *one.key)
            if time.monotonic() > deadline:
                break
            if session.stop.wait(_LOOK_EVERY):
                raise OperationCancelledError("The operation was stopped while an earlier attempt ended.")
        else:
            return
    raise TargetBusyError("An earlier attempt of this child job still runs in the server and cannot be ended.")


def _former(session: Session) -> list[_Former]:
    operation = session.operation
    if not operation.child_job_id:
        return []
    prefix = child_prefix(operation.child_job_id)
    return [
        _Former(key=row[:3], state=row[3] or "")
        for row in session.rows(_FORMER, prefix)
        # After a stop another connection asks, and sees this operation's own.
        if row[0] != session.pid and _is_former(row[2].removeprefix(prefix), operation.attempt)
    ]


def _is_former(attempt: str, own: int) -> bool:
    if attempt.isdecimal() and int(attempt) > own:
        raise TargetBusyError(f"Attempt {attempt} of this child job runs already; this is attempt {own}.")
    return True
