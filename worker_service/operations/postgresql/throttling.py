"""What a server says of its load and of its replicas, to hold a target back."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from worker_service.domain.errors import TargetUnavailableError
from worker_service.domain.target import Target
from worker_service.domain.throttle import Throttle
from worker_service.operations.postgresql.address import Conninfo, connect, conninfo_of
from worker_service.operations.postgresql.catalog import Reader
from worker_service.operations.postgresql.failures import failure_of
from worker_service.operations.postgresql.prologue import looking_settings, state

_GRANT = "the role may not see {}: GRANT pg_read_all_stats TO it"
# What receives the log without replaying it is as far as it has written it down. A replica that is not connected
# is not among them.
_REPLICAS = """
SELECT coalesce(nullif(application_name, ''), host(client_addr), pid::text), state IS NULL,
       coalesce(extract(epoch FROM coalesce(replay_lag, flush_lag, write_lag)), 0)::float8,
       coalesce(pg_wal_lsn_diff(
           CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END,
           coalesce(replay_lsn, flush_lsn, write_lsn, sent_lsn)), 0)::float8
FROM pg_stat_replication WHERE coalesce(state, 'streaming') IN ('streaming', 'catchup')
"""
# Of those of others a role without the right sees that they are there, and not what they do.
_SESSIONS = """
SELECT count(*) FILTER (WHERE state IN ('active', 'fastpath function call')),
       count(*) FILTER (WHERE query = '<insufficient privilege>')
FROM pg_stat_activity
WHERE datid IS NOT NULL AND usesysid IS NOT NULL AND coalesce(backend_type, 'client backend') = 'client backend'
  AND pid <> pg_backend_pid() AND coalesce(application_name, '') NOT LIKE 'overhaul%'
"""


def held_back(target: Target, *, seconds: float) -> str:
    """Return why the target is held back; raise ``TargetUnavailableError`` when it cannot be looked at."""
    throttle = target.throttle or Throttle()
    try:
        with _looking(conninfo_of(target.url), seconds) as connection:
            return _server(connection, throttle) or _query(connection, throttle)
    except psycopg.Error as error:
        raise TargetUnavailableError(_said(error)) from error


@contextmanager
def _looking(conninfo: Conninfo, seconds: float) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    limited = {**conninfo, "connect_timeout": str(max(2, int(seconds)))}
    with connect(limited, "overhaul-throttle") as connection:
        limit = {"statement_timeout": str(int(seconds * 1000)), "lock_timeout": str(int(seconds * 500))}
        state(connection, {**looking_settings(connection.info.server_version), **limit})
        yield connection


def _server(connection: psycopg.Connection[tuple[Any, ...]], throttle: Throttle) -> str:
    def read(query: str, *values: object) -> list[tuple[Any, ...]]:
        return connection.execute(query.encode(), values or None).fetchall()

    if throttle.max_active_sessions is not None and (reason := by_sessions(read, throttle)):
        return reason
    if throttle.max_replication_lag is not None or throttle.max_replication_bytes is not None:
        return by_replicas(read, throttle)
    return ""


def by_sessions(read: Reader, throttle: Throttle) -> str:
    """Return why the sessions that are at work hold the target back."""
    [(active, hidden)] = read(_SESSIONS)
    if hidden:
        raise TargetUnavailableError(_GRANT.format("what other sessions do"))
    return throttle.by_sessions(active)


def by_replicas(read: Reader, throttle: Throttle) -> str:
    """Return why the replica that is farthest behind holds the target back."""
    rows = read(_REPLICAS)
    if any(hidden for _, hidden, _, _ in rows):
        raise TargetUnavailableError(_GRANT.format("how far the replicas are"))
    if not rows:
        return ""
    latest, farthest = max(rows, key=lambda row: row[2]), max(rows, key=lambda row: row[3])
    return throttle.by_lag(latest[2], f"replica {latest[0]}") or throttle.by_bytes(
        farthest[3], f"replica {farthest[0]}"
    )


def _query(connection: psycopg.Connection[tuple[Any, ...]], throttle: Throttle) -> str:
    if throttle.sql is None:
        return ""
    # The owner's query finds its tables as in any other session of the role; each statement is a transaction.
    connection.execute("RESET search_path")
    # Sent with its result's form, a second statement in the text is refused.
    cursor = connection.execute(throttle.sql.encode(), binary=True)
    return throttle.by_answer(cursor.fetchmany(2))


def _said(error: psycopg.Error) -> str:
    """Return what the server said of an owner's query in its own words; of the way to it, what to do."""
    return error.diag.message_primary or failure_of(error).message
