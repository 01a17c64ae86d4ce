"""Ending a statement from another connection, and finding those that an earlier attempt left running."""

import threading
import time
from collections.abc import Iterable
from contextlib import suppress

from worker_service.domain.errors import TargetBusyError
from worker_service.operations.mariadb.address import Address
from worker_service.operations.mariadb.connection import Connection, Row, ServerError
from worker_service.operations.mariadb.target_lock import attempt_lock_name

_NO_SUCH_THREAD = 1094
_PATIENCE = 10.0
_LOOK_EVERY = 0.05
_RUNNING = "SELECT ID, INFO FROM information_schema.PROCESSLIST WHERE ID <> CONNECTION_ID() AND INFO LIKE %s"
# Where the performance schema is on, a connection can be told between two of its statements too.
_CONNECTED = """
SELECT PROCESSLIST_ID, ATTR_VALUE FROM performance_schema.session_connect_attrs
WHERE ATTR_NAME = 'program_name' AND ATTR_VALUE LIKE %s AND PROCESSLIST_ID <> CONNECTION_ID()
"""
_LOOKED_BACK = 100
_ALIVE = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID = %s"


class Killer:
    """Sends KILL QUERY for one connection over another one, which is made at the first use.

    Args:
        address: where the server is.
        program: what it is told of who connects.
    """

    def __init__(self, address: Address, program: str) -> None:
        self._address = address
        self._program = program
        self._connection: Connection | None = None
        self._guard = threading.Lock()

    def kill_query(self, number: int, *, softly: bool) -> None:
        """Stop the statement that a connection runs; harmless when it runs none or is gone.

        A repair of MyISAM or Aria is stopped ``softly``, which only MariaDB can: not before its end. Broken off it
        would leave the table marked as crashed.
        """
        with self._guard:
            try:
                if self._connection is None:
                    self._connection = Connection(self._address, program=self._program)
                self._connection.rows(f"KILL {'SOFT ' if softly else ''}QUERY {number:d}")
            except ServerError as error:
                if error.number != _NO_SUCH_THREAD:
                    self._drop()

    def close(self) -> None:
        """End the connection, if there is one."""
        with self._guard:
            self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


def end_earlier_attempts(connection: Connection, name: str, attempt: int, *, softly: bool) -> list[int]:
    """End what earlier attempts of the same child job still run in the server, and wait until it has ended.

    Args:
        connection: the operation's own.
        name: the child job's part of the tag, up to and with its last colon.
        attempt: the number of this attempt.
        softly: as for ``Killer.kill_query``.

    Returns:
        The numbers of the connections that were ended.

    Raises:
        TargetBusyError: one does not end, or a later attempt runs.
    """
    named = _by_name(connection, name)
    found = named | _at_work(connection, name) | _holding(connection, name, attempt)
    if any(other >= attempt for other in found.values()):
        raise TargetBusyError("Another attempt of this child job, not an earlier one, works on the database.")
    order = "KILL SOFT CONNECTION" if softly else "KILL"
    for number, earlier in found.items():
        # It may have ended meanwhile, and its connection may be another operation's by now.
        if number in named or _is_at_it(connection, number, f"{name}{earlier}"):
            with suppress(ServerError):
                connection.rows(f"{order} {number:d}")
    deadline = time.monotonic() + _PATIENCE
    for number, earlier in found.items():
        while connection.value(_ALIVE, number) and (
            number in named or _is_at_it(connection, number, f"{name}{earlier}")
        ):
            if time.monotonic() > deadline:
                raise TargetBusyError(
                    f"An earlier attempt still works in the server (connection {number}) and does not end: "
                    "it rolls back, it repairs a table that is not left half done, or the role may not kill it."
                )
            time.sleep(_LOOK_EVERY)
    return sorted(found)


def _is_at_it(connection: Connection, number: int, tag: str) -> bool:
    """Tell whether a connection is an attempt's just now: it runs a statement of its, or holds its lock."""
    holder = connection.value("SELECT IS_USED_LOCK(%s)", attempt_lock_name(tag))
    return holder == number or number in {int(running) for running, _ in connection.rows(_RUNNING, f"/* {tag} %")}


def _at_work(connection: Connection, name: str) -> dict[int, int]:
    """Return the attempts of a child job that run a statement, by the number of their connection."""
    return _attempts(connection.rows(_RUNNING, f"/* {name}%"), name)


def _by_name(connection: Connection, name: str) -> dict[int, int]:
    """Return the attempts whose connection has their name, as the release before this one named it."""
    # The performance schema is off in most MariaDB servers, and then tells of nobody; not every role may read it.
    with suppress(ServerError):
        return _attempts(connection.rows(_CONNECTED, f"{name}%"), name)
    return {}


def _attempts(rows: Iterable[Row], name: str) -> dict[int, int]:
    found: dict[int, int] = {}
    for number, told in rows:
        text = str(told).removeprefix("/* ")
        digits = text.removeprefix(name).split(" ", 1)[0]
        if text.startswith(name) and digits.isdigit():
            found[int(number)] = int(digits)
    return found


def _holding(connection: Connection, name: str, attempt: int) -> dict[int, int]:
    """Return the earlier attempts that hold a lock, by the number of their connection, be it at work or not."""
    earlier = range(max(1, attempt - _LOOKED_BACK), attempt)
    if not earlier:
        return {}
    locks = [attempt_lock_name(f"{name}{number}") for number in earlier]
    holders = connection.rows(f"SELECT {', '.join(['IS_USED_LOCK(%s)'] * len(locks))}", *locks)[0]
    return {int(holder): number for holder, number in zip(holders, earlier, strict=True) if holder}
