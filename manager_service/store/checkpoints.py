"""Copies the write-ahead log into the database beside the event loop."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final

from pysqlite3 import dbapi2

# How many new pages in the log are copied together, as many as SQLite takes by itself.
_PAGES: Final = 1_000
# From how many on, 32 MB of them, the log is to begin anew.
_LOG: Final = 8_000
# Copies what can be copied without waiting for anybody, or says only how many pages there are and were copied.
_COPY, _LOOK = (f"PRAGMA wal_checkpoint({mode})" for mode in ("PASSIVE", "NOOP"))


class Checkpoints:
    """Copies pages in a thread with a connection of its own, because SQLite would do it within a commit.

    There the event loop would wait for the disk, six milliseconds and more at every thirtieth report. Under steady
    writing the thread never reaches the end of the log, which would grow for ever: once it is long, the pages that
    came while the thread worked are copied in the loop, and the next transaction begins the log anew.

    What cannot be copied now, as on a full disk, stays in the log and is none the worse for it.

    Args:
        connect: opens the connection; called in the thread, once there is something to copy.
        writer: the connection that writes, in the loop.
    """

    def __init__(self, connect: Callable[[], Any], writer: Any) -> None:
        self._connect = connect
        self._writer = writer
        self._thread = ThreadPoolExecutor(1, "store-checkpoints")
        self._raw: Any = None
        self._copying: Future[None] | None = None
        self._rest_is_next = False

    def look(self) -> None:
        """Have pages copied if there are many; called after each commit, which stands whatever comes of this."""
        if self._copying is not None and not self._copying.done():
            return
        # Besides what the database may say: no thread can be started where memory or a limit is exhausted.
        with suppress(dbapi2.Error, RuntimeError):
            self._look()

    def _look(self) -> None:
        _, pages, copied = self._writer.execute(_LOOK).fetchone()
        if pages < _LOG:
            self._rest_is_next = False
            if pages - copied >= _PAGES:
                self._copying = self._thread.submit(self._copy_beside)
        elif self._rest_is_next:
            self._rest_is_next = False
            _copy(self._writer)
        elif copied < pages:
            self._copying = self._thread.submit(self._copy_beside)
            self._rest_is_next = True

    def close(self) -> None:
        """Wait for what is being copied, and close the connection."""
        if self._copying is not None:
            self._thread.submit(self._close)
        self._thread.shutdown()

    def _copy_beside(self) -> None:
        # An error ends up in the future, where nobody looks: the next time tries again.
        self._raw = self._raw or self._connect()
        _copy(self._raw)

    def _close(self) -> None:
        if self._raw is not None:
            self._raw.close()


def _copy(raw: Any) -> None:
    raw.execute(_COPY).fetchall()
