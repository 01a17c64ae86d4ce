"""Connections that outlive an operation, for the next one on the same database."""

import threading
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass, field
from select import POLLIN, poll
from typing import Generic, Protocol, TypeVar

IDLE_SECONDS = 5.0
"""So long a connection waits for the next operation: a database that is to be dropped waits as long."""
_MOST_USES = 1_000
"""A server's process remembers every table that it touched; after so many operations another one begins."""
_MOST_SECONDS = 60.0
"""What a role was granted meanwhile, some servers tell a new connection only."""


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
    since: float = field(default_factory=time.monotonic)


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
        now = time.monotonic()
        if lent.used >= _MOST_USES or now - lent.since >= _MOST_SECONDS:
            lent.connection.close()
            return True
        with self._guard:
            if not self._wait(self._idle_seconds):
                return False
            self._idle[self.key(lent.place)].append((now, lent))
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

    def _wait(self, seconds: float) -> bool:
        """See to it that somebody looks after those that wait; tell whether that could be done."""
        if self._timer is None:
            timer = threading.Timer(seconds, self._close_old)
            timer.daemon = True
            try:
                timer.start()
            except RuntimeError:  # there is no thread left
                return False
            self._timer = timer
        return True

    def _close_old(self) -> None:
        with self._guard:
            self._timer = None
            now = time.monotonic()
            old: list[Lent[P, C]] = []
            for key, idle in list(self._idle.items()):
                old += [lent for since, lent in idle if now - since >= self._idle_seconds]
                self._idle[key] = [one for one in idle if now - one[0] < self._idle_seconds]
                if not self._idle[key]:
                    del self._idle[key]
            waits = [since + self._idle_seconds - now for idle in self._idle.values() for since, _ in idle]
            if waits and not self._wait(min(waits)):
                old += [lent for idle in self._idle.values() for _, lent in idle]
                self._idle.clear()
        for lent in old:
            lent.connection.close()


def _has_news(descriptor: int) -> bool:
    """Tell whether the server has something to say that nobody asked for: that it ends the connection."""
    if descriptor < 0:
        return True
    socket = poll()
    socket.register(descriptor, POLLIN)
    return bool(socket.poll(0))
