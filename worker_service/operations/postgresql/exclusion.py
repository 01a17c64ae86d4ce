"""One operation at a time on one table: the locks in the target, and what earlier attempts left running."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from worker_service.domain.errors import OperationCancelledError, TargetBusyError
from worker_service.operations.postgresql.catalog import Reader
from worker_service.operations.postgresql.names import Name
from worker_service.operations.postgresql.prologue import child_prefix
from worker_service.operations.postgresql.session import Session

# Advisory locks of two numbers never meet those of one, which the job store uses. They count within a database.
# Who works on the whole database holds the first alone; who works on a table shares it, and holds the table's.
LOCK = (0x0F_E2_4A_01, 1)
TABLE_CLASS = 0x0F_E2_4A_02
_SIGN, _SPAN = 1 << 31, 1 << 32
# An index counts as its table, and a TOAST table's as the table whose long values it finds. What is done to a
# partitioned table is done to its partitions, so that these share the locks of all that they are part of.
_TABLE_OF = """
SELECT t.oid, (SELECT array_agg(relid::oid) FROM pg_partition_ancestors(t.oid))
FROM (SELECT coalesce(o.oid, i.indrelid, c.oid) AS oid
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
      LEFT JOIN pg_index AS i ON i.indexrelid = c.oid
      LEFT JOIN pg_class AS o
        ON n.nspname = 'pg_toast' AND o.reltoastrelid = coalesce(i.indrelid, c.oid)
      WHERE n.nspname = %s AND c.relname = %s) AS t
"""
_HOLDER = """
SELECT a.pid, a.application_name FROM pg_locks AS l LEFT JOIN pg_stat_activity AS a USING (pid)
WHERE l.locktype = 'advisory' AND l.classid = %s AND l.objid::bigint = %s AND l.objsubid = 2 AND l.granted
  AND (l.mode = 'ExclusiveLock' OR %s) AND l.pid <> pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_FORMER = """
SELECT pid, backend_start, application_name FROM pg_stat_get_activity(NULL)
WHERE datid = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND pid <> pg_backend_pid() AND starts_with(application_name, %s)
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
    if session.operation.attempt <= 1:
        return
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


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetLock:
    """A lock in the target, held alone or shared; ``number`` is unsigned, as the server's catalogues have it."""

    space: int
    number: int
    exclusive: bool

    @property
    def call(self) -> str:
        """The call that takes it or tells that it is not free."""
        signed = self.number - _SPAN if self.number >= _SIGN else self.number
        return f"pg_try_advisory_lock{'' if self.exclusive else '_shared'}({self.space}, {signed})"


def locks_for(read: Reader, subject: Name | None, *, alone: bool) -> tuple[TargetLock, ...]:
    """Return what an operation holds in the target; ``alone`` is not for one that only looks at the database."""
    database = TargetLock(space=LOCK[0], number=LOCK[1], exclusive=alone and subject is None)
    if subject is None:
        return (database,)
    rows = read(_TABLE_OF, subject.schema, subject.name)
    if not rows:
        return (database,)
    table, ancestors = rows[0]
    return locks_of(table, [oid for oid in ancestors or () if oid != table])


def locks_of(table: int, ancestors: Sequence[int]) -> tuple[TargetLock, ...]:
    """Return what an operation on a table holds, from the whole database to the table itself."""
    return (
        TargetLock(space=LOCK[0], number=LOCK[1], exclusive=False),
        *(TargetLock(space=TABLE_CLASS, number=oid, exclusive=False) for oid in ancestors),
        TargetLock(space=TABLE_CLASS, number=table, exclusive=True),
    )


def hold(session: Session, locks: Sequence[TargetLock]) -> None:
    """Take the locks in the target, all or none; they are given back when the session is closed.

    Raises:
        TargetBusyError: another operation has one of them.
    """
    taken = session.rows(f"SELECT {', '.join(lock.call for lock in locks)}")[0]
    if all(taken):
        return
    missed = locks[taken.index(False)]
    rows = session.rows(_HOLDER, missed.space, missed.number, missed.exclusive)
    holders = [f"pid {pid} ({name})" for pid, name in rows]
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
