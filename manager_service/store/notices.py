"""What the managers of a PostgreSQL store tell each other: the hints of their commits, by LISTEN and NOTIFY."""

import asyncio
import json
import os
import select
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final
from uuid import uuid4

import psycopg
import structlog

from manager_service.domain.ports import Hints, Listener

log = structlog.get_logger("manager.store")

_CHANNEL: Final = "overhaul_hints"
# PostgreSQL refuses a payload of 8,000 bytes.
_MOST_BYTES: Final = 7_500
# What does not go into so many messages is left to the looks that need no hint.
_MOST_MESSAGES: Final = 20
# A message that follows another waits this long for more to tell, in seconds; the first one does not.
_APART: Final = 0.02
_LOOK_EVERY: Final = 5.0
_LONGEST_PAUSE: Final = 5.0
# So much is kept to be told while the connection is broken.
_MOST_PENDING: Final = 1_000
# So long the end waits for the thread, which may be about to connect, in seconds.
_LONGEST_END: Final = 1.0
_SETS: Final = ("parents", "sessions", "renewed", "logs", "ending")


class Notices:
    """A connection, in a thread of its own, on which hints come and go.

    A hint that is lost costs a second or two: whoever waits looks unasked as well. So nothing is repeated here.

    Args:
        connect: opens a connection that commits by itself.
        hear: takes the hints of other managers, in the event loop.
    """

    def __init__(self, connect: Callable[[], psycopg.Connection[Any]], hear: Listener) -> None:
        self._connect = connect
        self._hear = hear
        self._own = uuid4().hex
        self._lock = threading.Lock()
        self._pending: list[Hints] = []
        self._bell, self._rung = os.pipe()
        self._closing = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="store-notices", daemon=True)

    def tell(self, hints: Hints) -> None:
        """Tell other managers, soon. From the event loop."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._thread.start()
        with self._lock:
            if len(self._pending) < _MOST_PENDING:
                self._pending.append(hints)
            first = len(self._pending) == 1
        if first:
            os.write(self._rung, b"!")

    def listen(self) -> None:
        """Begin to hear; before the event loop runs, the first telling begins it."""
        with suppress(RuntimeError):
            self.tell(Hints())

    def close(self) -> None:
        """Stop to hear and to tell."""
        self._closing.set()
        os.write(self._rung, b"!")
        if self._thread.ident is not None:
            self._thread.join(_LONGEST_END)
        if not self._thread.is_alive():
            os.close(self._bell)
            os.close(self._rung)

    def _run(self) -> None:
        pause = 0.1
        while not self._closing.is_set():
            try:
                with self._connect() as connection:
                    connection.execute(f"LISTEN {_CHANNEL}")
                    connection.execute("SET synchronous_commit = off")
                    connection.add_notify_handler(self._notified)
                    pause = 0.1
                    self._serve(connection)
            except psycopg.Error as error:
                log.warning("managers cannot be told and heard", why=str(error).strip(), again_in=pause)
                self._closing.wait(pause)
                self._taken()  # by now whoever it concerned has looked
                pause = min(_LONGEST_PAUSE, 2 * pause)

    def _serve(self, connection: psycopg.Connection[Any]) -> None:
        """Hear and tell until the connection breaks or the store is closed."""
        # Not select.select: a manager of a thousand workers has more files than that can name.
        waiting = select.poll()
        for number in (self._bell, connection.fileno()):
            waiting.register(number, select.POLLIN)
        while not self._closing.is_set():
            if self._bell in dict(waiting.poll(1_000 * _LOOK_EVERY)):
                os.read(self._bell, 4_096)
                for payload in self._payloads():
                    connection.execute("SELECT pg_notify(%s, %s)", (_CHANNEL, payload))
                time.sleep(_APART)
            else:
                # Whatever came is handed to the handler while a statement runs; and a server that is gone shows.
                connection.execute("SELECT 1")

    def _payloads(self) -> Sequence[str]:
        return list(_messages(self._own, _merged(self._taken())))[:_MOST_MESSAGES]

    def _taken(self) -> list[Hints]:
        """Take what is to be told."""
        with self._lock:
            pending, self._pending = self._pending, []
        return pending

    def _notified(self, notice: psycopg.Notify) -> None:
        message = json.loads(notice.payload)
        if message["from"] == self._own or self._loop is None:
            return
        sets: dict[str, Any] = {name: frozenset(message.get(name, ())) for name in _SETS}
        hints = Hints(ready=message["ready"], **sets)
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._hear, hints)


def _merged(many: Sequence[Hints]) -> Hints:
    ready: Counter[str] = Counter()
    for hints in many:
        ready.update(hints.ready)
    sets: dict[str, Any] = {name: frozenset().union(*(getattr(hints, name) for hints in many)) for name in _SETS}
    return Hints(ready=dict(ready), **sets)


def _messages(own: str, hints: Hints) -> Iterator[str]:
    """Cut hints into messages that PostgreSQL takes; nothing to tell is no message."""
    items = [(name, one, 1) for name in _SETS for one in sorted(getattr(hints, name))]
    items += [("ready", target, number) for target, number in hints.ready.items()]
    message, size = _empty(own), 0
    for name, one, number in items:
        length = len(json.dumps(one)) + 12
        if size and size + length > _MOST_BYTES:
            yield json.dumps(message)
            message, size = _empty(own), 0
        if name == "ready":
            message[name][one] = number
        else:
            message[name].append(one)
        size += length
    if size:
        yield json.dumps(message)


def _empty(own: str) -> dict[str, Any]:
    return {"from": own, "ready": {}, **{name: [] for name in _SETS}}
