"""Connections that outlive an operation, for the next one on the same database."""

import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from select import POLLIN, poll
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from worker_service.operations.postgresql.address import Conninfo, connect

Raw = psycopg.Connection[tuple[Any, ...]]

IDLE_SECONDS = 5.0
"""So long a connection waits for the next operation: a database that is to be dropped waits as long."""
_MOST_USES = 1_000
"""A server's process remembers every table that it touched; after so many operations another one begins."""
_NAME = "overhaul"
# What one operation reads of a table the next one reads too: to think it out anew takes longer than to read it.
_PREPARED_AFTER = 5
# What the operation had set or locked holds for the next one no more.
_CLEAN = b"RESET ALL; SELECT pg_catalog.pg_advisory_unlock_all()"


@dataclass(slots=True, kw_only=True)
class Lent:
    """A connection in the hands of an operation, which has another's past if it was ``used`` before.

    ``identity`` tells which database it leads to, once that was asked for; empty where nothing can be done.
    """

    conninfo: Conninfo
    connection: Raw
    used: int = 0
    identity: str = ""


class Kept:
    """Lends connections and takes them back; those that nobody wants for a while are closed."""

    def __init__(self, *, idle_seconds: float = IDLE_SECONDS) -> None:
        self._idle_seconds = idle_seconds
        self._guard = threading.Lock()
        self._idle: dict[tuple[tuple[str, Any], ...], list[tuple[float, Lent]]] = defaultdict(list)
        self._timer: threading.Timer | None = None

    def lend(self, conninfo: Conninfo) -> Lent:
        """Lend a connection that was kept, or a new one; raise the driver's errors."""
        while (lent := self._take(conninfo)) is not None:
            if not _has_news(lent.connection):
                return lent
            # The server has ended it.
            lent.connection.close()
        return self.lend_new(conninfo)

    def lend_new(self, conninfo: Conninfo) -> Lent:
        """Lend a connection without a past; raise the driver's errors."""
        connection = connect(conninfo, _NAME)
        connection.prepare_threshold = _PREPARED_AFTER
        return Lent(conninfo=conninfo, connection=connection)

    def take_back(self, lent: Lent) -> bool:
        """Take a connection back without its settings and locks; tell whether that could be done."""
        lent.used += 1
        if not _cleaned(lent.connection):
            return False
        if lent.used >= _MOST_USES:
            lent.connection.close()
            return True
        with self._guard:
            self._idle[_key(lent.conninfo)].append((time.monotonic(), lent))
            self._wait()
        return True

    def close(self) -> None:
        """Close those that nobody has."""
        with self._guard:
            old = [lent for idle in self._idle.values() for _, lent in idle]
            self._idle.clear()
            if self._timer is not None:
                self._timer.cancel()
        for lent in old:
            lent.connection.close()

    def _take(self, conninfo: Conninfo) -> Lent | None:
        with self._guard:
            idle = self._idle.get(_key(conninfo))
            return idle.pop()[1] if idle else None

    def _wait(self) -> None:
        if self._timer is None:
            self._timer = threading.Timer(self._idle_seconds, self._close_old)
            self._timer.daemon = True
            self._timer.start()

    def _close_old(self) -> None:
        with self._guard:
            self._timer = None
            oldest = time.monotonic() - self._idle_seconds
            old = [lent for idle in self._idle.values() for since, lent in idle if since <= oldest]
            for key, idle in list(self._idle.items()):
                if young := [one for one in idle if one[0] > oldest]:
                    self._idle[key] = young
                else:
                    del self._idle[key]
            if self._idle:
                self._wait()
        for lent in old:
            lent.connection.close()


def _key(conninfo: Conninfo) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(conninfo.items()))


def _cleaned(connection: Raw) -> bool:
    if connection.info.transaction_status is not TransactionStatus.IDLE:
        return False
    try:
        connection.execute(_CLEAN, prepare=False)
    except psycopg.Error:
        return False
    return True


def _has_news(connection: Raw) -> bool:
    """Tell whether the server has something to say that nobody asked for: that it ends the connection."""
    socket = poll()
    socket.register(connection.fileno(), POLLIN)
    return bool(socket.poll(0))
