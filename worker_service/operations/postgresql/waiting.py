"""Who waits for whom just now: for the locks of an operation, and the operation for those of others."""

from collections.abc import Iterable
from typing import Any

import psycopg

from worker_service.domain.lock_waits import LockWaiter, LockWaits, Waiting

INTERVAL = 0.5
"""Seconds between two looks at a statement; at one that is over sooner nobody looks."""

# The server stops all changes of locks for a moment to tell whom one waits for: it is asked about those alone that
# wait. They wait for the operation as well when they stand in a row behind its own wait.
_WAITS = """
WITH waiting AS MATERIALIZED (
  SELECT pid, locktype, database, relation, mode, waitstart AS since FROM pg_locks WHERE NOT granted)
SELECT w.pid, w.pid = %s, extract(epoch FROM w.since)::float8,
       extract(epoch FROM clock_timestamp() - w.since)::float8,
       coalesce(a.application_name, ''), coalesce(pg_get_userbyid(a.usesysid), ''),
       coalesce(n.nspname || '.' || c.relname, w.locktype), w.mode
FROM waiting AS w LEFT JOIN pg_stat_get_activity(NULL) AS a ON a.pid = w.pid
LEFT JOIN pg_class AS c ON c.oid = w.relation
  AND w.database IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
LEFT JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE w.pid = %s OR w.pid <> ALL (%s) AND %s = ANY (pg_blocking_pids(w.pid))
"""


def look_at_waits(
    connection: psycopg.Connection[tuple[Any, ...]], *, pid: int, ours: list[int], waits: LockWaits
) -> None:
    """Take a sample of what waits; raise the driver's errors.

    Args:
        connection: what asks, which is not the operation's.
        pid: the operation's process in the server, or one of them.
        ours: all that the operation has, which are no others that it keeps waiting.
        waits: what the sample is added to.
    """
    rows = connection.execute(_WAITS, [pid, pid, ours, pid]).fetchall()
    waits.own(_waiting(row, waits.every) for row in _each(rows, own=True))
    waits.others(_waiting(row, waits.every) for row in _each(rows, own=False))


def _each(rows: Iterable[tuple[Any, ...]], *, own: bool) -> Iterable[tuple[Any, ...]]:
    return (row for row in rows if row[1] is own)


def _waiting(row: tuple[Any, ...], every: float) -> Waiting:
    pid, _, begun, lasted, application, user, name, mode = row
    # For the first moment of a wait the server does not tell when it began.
    return Waiting(
        session=pid,
        begun=begun,
        seconds=every if begun is None else lasted,
        who=LockWaiter(application=application, user=user, object=name, lock_mode=mode),
    )
