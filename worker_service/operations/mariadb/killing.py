"""Ending a statement from another connection."""

import threading

from worker_service.operations.mariadb.address import Address
from worker_service.operations.mariadb.connection import Connection, ServerError

_NO_SUCH_THREAD = 1094


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
