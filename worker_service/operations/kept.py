"""Connections that outlive an operation, for the next one on the same database."""

import threading
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass
from select import POLLIN, poll
from typing import Generic, Protocol, TypeVar

IDLE_SECONDS = 5.0
"""So long a connection waits for the next operation: a database that is to be dropped waits as long."""
_MOST_USES = 1_000
"""A server's process remembers every table that it touched; after so many operations another one begins."""


class Closable(Protocol):
    """What can be kept."""

    def close(self) -> None:
        """End the connection; harmless when it is broken."""


P = TypeVar("P")
C = TypeVar("C", bound=Closable)


@dataclass(slots=True, kw_only=True)
class Lent(Generic[P, C]):
    """A connection in the hands of an operation, which has another's past if it was ``used`` before.

    ``known`` is what the operations before found out of the database and what holds for the next one too, such as
    which one it is.
    """

    place: P
    connection: C
    used: int = 0
    known: object = None


class Kept(ABC, Generic[P, C]):
    """Lends connections to places and takes them back; those that nobody wants for a while are closed."""

    def __init__(self, *, idle_seconds: float = IDLE_SECONDS) -> None:
        self._idle_seconds = idle_seconds
        self._guard = threading.Lock()
        self._idle: dict[Hashable, list[tuple[float, Lent[P, C]]]] = defaultdict(list)
        self._timer: threading.Timer | None = None

    @abstractmethod
    def connect(self, place: P) -> C:
        """Open a connection; raise the driver's errors."""

    @abstractmethod
    def key(self, place: P) -> Hashable:
        """Return what is the same for two places where one connection serves both."""

    @abstractmethod
    def descriptor(self, connection: C) -> int:
        """Return the file descriptor of the connection, negative where it has none any more."""

    @abstractmethod
    def is_clean(self, connection: C) -> bool:
        """Free the connection of what the operation had set or locked, and tell whether it is fit for another."""

    def lend(self, place: P) -> Lent[P, C]:
        """Lend a connection that was kept, or a new one; raise the driver's errors."""
        while (lent := self._take(place)) is not None:
            if not _has_news(self.descriptor(lent.connection)):
                return lent
            # The server has ended it.
            lent.connection.close()
        return self.lend_new(place)

    def lend_new(self, place: P) -> Lent[P, C]:
        """Lend a connection without a past; raise the driver's errors."""
        return Lent(place=place, connection=self.connect(place))

    def take_back(self, lent: Lent[P, C]) -> bool:
        """Take a connection back, without its settings and locks; tell whether that could be done."""
        lent.used += 1
        if not self.is_clean(lent.connection):
            return False
        if lent.used >= _MOST_USES:
            lent.connection.close()
            return True
        with self._guard:
            self._idle[self.key(lent.place)].append((time.monotonic(), lent))
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

    def _take(self, place: P) -> Lent[P, C] | None:
        with self._guard:
            idle = self._idle.get(self.key(place))
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


def _has_news(descriptor: int) -> bool:
    """Tell whether the server has something to say that nobody asked for: that it ends the connection."""
    if descriptor < 0:
        return True
    socket = poll()
    socket.register(descriptor, POLLIN)
    return bool(socket.poll(0))
