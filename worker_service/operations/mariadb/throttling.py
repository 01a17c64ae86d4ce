"""What a server says of its load and of its own replication, to hold a target back."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from worker_service.domain.errors import TargetUnavailableError
from worker_service.domain.target import Target
from worker_service.domain.throttle import Throttle
from worker_service.operations.mariadb.address import Address
from worker_service.operations.mariadb.connection import Connection, ServerError
from worker_service.operations.mariadb.failures import failure_from, is_not_here

THROTTLES = frozenset({"max_replication_lag", "max_active_sessions", "while_sql", "unless_sql"})
# One statement, so that both numbers are of one moment. This one is among them, and among ours.
_OTHERS = """/* overhaul:throttle */
SELECT (SELECT VARIABLE_VALUE FROM {status} WHERE VARIABLE_NAME = 'Threads_running')
     - (SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE '/* overhaul:%')
"""
_STATUS_OF_MARIADB, _STATUS_OF_MYSQL = "information_schema.GLOBAL_STATUS", "performance_schema.global_status"
_NO_SUCH_STATEMENT, _NO_SUCH_TABLE = 1064, 1109
_UNKNOWN = (
    "the replication lag is unknown: this server is no replica, and a primary does not know how far its replicas "
    "are; leave max_replication_lag out, or ask by unless_sql"
)


class Records(Protocol):
    """What asks a server for rows by the names of their columns."""

    def records(self, sql: str) -> Sequence[Mapping[str, Any]]:
        """Run a statement; raise ``ServerError`` when the server refuses it."""


def held_back(target: Target, *, seconds: float) -> str:
    """Return why the target is held back; raise ``TargetUnavailableError`` when it cannot be looked at."""
    throttle = target.throttle or Throttle()
    try:
        with Connection(_limited(Address.of(target), seconds), program="overhaul:throttle") as connection:
            return _server(connection, throttle) or _query(connection, throttle, seconds)
    except ServerError as error:
        raise TargetUnavailableError(error.text or failure_from(error).message) from error


def _limited(address: Address, seconds: float) -> Address:
    whole = max(1, int(seconds))
    limits: Mapping[str, str | bool | int] = {"connect_timeout": whole, "read_timeout": whole + 1}
    return replace(address, parameters={**address.parameters, **limits})


def _server(connection: Connection, throttle: Throttle) -> str:
    if throttle.max_active_sessions is not None and (reason := throttle.by_sessions(active_sessions(connection))):
        return reason
    return by_replication(replication(connection), throttle) if throttle.max_replication_lag is not None else ""


def active_sessions(connection: Connection) -> int:
    """Count the sessions at work but for Overhaul's own.

    Which they are only a role with the right to PROCESS sees; how many, and its own, every role.
    """
    try:
        others = connection.value(_OTHERS.format(status=_STATUS_OF_MARIADB))
    except ServerError as error:
        if error.number != _NO_SUCH_TABLE:
            raise
        others = connection.value(_OTHERS.format(status=_STATUS_OF_MYSQL))
    return max(0, int(others))


def by_replication(channels: Sequence[Mapping[str, Any]], throttle: Throttle) -> str:
    """Return why the server's own replication, from one or several primaries, holds the target back."""
    if not channels:
        raise TargetUnavailableError(_UNKNOWN)
    behind = [_behind(channel) for channel in channels]
    return throttle.by_lag(max(behind), "this replica")


def _behind(channel: Mapping[str, Any]) -> float:
    for name in ("Seconds_Behind_Source", "Seconds_Behind_Master"):
        if channel.get(name) is not None:
            return float(channel[name])
    raise TargetUnavailableError("the replication lag is unknown: replication does not run on this replica")


def replication(connection: Records) -> Sequence[Mapping[str, Any]]:
    """Return what the server says of its replication, a row for each primary that it replicates from."""
    # MariaDB with all its primaries; MySQL, whose rows are all of them; MySQL before 8.0.22.
    for statement in ("SHOW ALL SLAVES STATUS", "SHOW REPLICA STATUS"):
        try:
            return connection.records(statement)
        except ServerError as error:
            if error.number != _NO_SUCH_STATEMENT:
                raise
    return connection.records("SHOW SLAVE STATUS")


def _query(connection: Connection, throttle: Throttle, seconds: float) -> str:
    if throttle.sql is None:
        return ""
    for setting in (f"max_statement_time = {seconds:.3f}", f"max_execution_time = {seconds * 1000:.0f}"):
        try:
            connection.rows(f"SET SESSION {setting}")
        except ServerError as error:
            # MariaDB knows the first, MySQL the second.
            if not is_not_here(error):
                raise
    connection.rows("SET SESSION lock_wait_timeout = 1")
    connection.rows("START TRANSACTION READ ONLY")
    return throttle.by_answer(connection.rows(throttle.sql))
