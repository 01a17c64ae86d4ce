"""What every session states before it does anything: the defaults of a role or a database would hold otherwise."""

import hashlib
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import psycopg

from worker_service.domain.operation import Operation

_NAME_BYTES = 63
_PREFIX = "overhaul"
_BACKSTOP = timedelta(seconds=5)
"""So much later than the worker the server itself ends a statement that outlasts the operation's timeout."""
_VERSION_17 = 170_000
WATCH_CLIENT = "10s"
"""So often the server looks whether the client is still there, and otherwise ends what it runs for it."""
# Under other operating systems a server may not be able to tell, and refuses the setting.
_WATCH_CLIENT = """CASE WHEN pg_catalog.strpos(pg_catalog.version(), 'linux') > 0
  THEN pg_catalog.set_config('client_connection_check_interval', %s, false) END"""


def child_prefix(child_job_id: str) -> str:
    """Return how the sessions of every attempt of one child job are called, but for the attempt.

    An id that would not fit, or that PostgreSQL would write with question marks, is told by its hash.
    """
    plain = child_job_id.isascii() and child_job_id.isprintable() and ":" not in child_job_id
    longest = _NAME_BYTES - len(f"{_PREFIX}::") - len(str(2**31))
    if not plain or not 0 < len(child_job_id) <= longest:
        child_job_id = hashlib.sha256(child_job_id.encode()).hexdigest()[:32]
    return f"{_PREFIX}:{child_job_id}:"


def application_name(operation: Operation) -> str:
    """Return how the session of one attempt is called in ``pg_stat_activity``: at most 63 bytes, and unique."""
    return f"{child_prefix(operation.child_job_id)}{operation.attempt}"


def operation_settings(
    version: int,
    *,
    lock_timeout_ms: int,
    timeout: timedelta | None,
    cost_delay_ms: int | None = None,
    cost_limit: int | None = None,
    memory_mb: int | None = None,
) -> Mapping[str, str]:
    """Return what the session of an operation states, also where the value is the server's own default."""
    statement = 0 if timeout is None else int((timeout + _BACKSTOP) / timedelta(milliseconds=1))
    costs = {"vacuum_cost_delay": cost_delay_ms, "vacuum_cost_limit": cost_limit}
    given = {name: str(value) for name, value in costs.items() if value is not None}
    given |= {} if memory_mb is None else {"maintenance_work_mem": f"{memory_mb}MB"}
    return {**_shared(version), **_timeouts(lock_timeout_ms, statement), **given}


def looking_settings(version: int) -> Mapping[str, str]:
    """Return what a session states that only reads."""
    return {**_shared(version), **_timeouts(2_000, 30_000), "default_transaction_read_only": "on"}


def state(
    connection: psycopg.Connection[tuple[Any, ...]], settings: Mapping[str, str], *, outlives_client: bool = False
) -> int:
    """Set the settings for the session, all in one statement, and return the server's number of the session.

    The driver's own is a pooler's where one stands in between. What the session runs goes on after its client was
    killed where it ``outlives_client``.
    """
    calls = ", ".join("pg_catalog.set_config(%s, %s, false)" for _ in settings)
    values = [*(text for pair in settings.items() for text in pair), "0" if outlives_client else WATCH_CLIENT]
    query = f"SELECT pg_catalog.pg_backend_pid(), {calls}, {_WATCH_CLIENT}"
    return int(connection.execute(query.encode(), values).fetchall()[0][0])


def _shared(version: int) -> dict[str, str]:
    settings = {
        # Names are always written with their schema; nothing of a user's may stand in for a function.
        "search_path": "pg_catalog, pg_temp",
        # An operation that was not done is told by a warning.
        "client_min_messages": "notice",
        "default_transaction_isolation": "read committed",
        "idle_in_transaction_session_timeout": "60s",
        # The session holds the lock in the target, also while its worker waits between two statements.
        "idle_session_timeout": "0",
        # The function of an index must not see fewer rows than there are.
        "row_security": "off",
    }
    return settings | ({"transaction_timeout": "0"} if version >= _VERSION_17 else {})


def _timeouts(lock: int, statement: int) -> dict[str, str]:
    return {"lock_timeout": str(lock), "statement_timeout": str(statement)}
