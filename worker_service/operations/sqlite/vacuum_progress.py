import threading
from types import TracebackType
from typing import Self

import apsw

from worker_service.domain.outcome import Measures
from worker_service.operations.sqlite.location import size_of
from worker_service.operations.sqlite.session import Session

COPY = "copy"
WRITE_BACK = "write back"
_STEPS = 5_000
INTERVAL = 0.2
"""Seconds between two samples."""
WATCHED_BYTES = 1 << 20
"""Of fewer live bytes nothing is told: they are rewritten sooner than a thread has taken its first sample."""


class VacuumProgress:
    """Tell how far a VACUUM is, from a thread of its own; ``before`` are the measures before it.

    VACUUM first copies every live page into a temporary file, then writes that file back through the
    journal or the log. While it copies, SQLite calls back in the operation's thread, and the connection's
    own counters say how many live pages were read and how many were written. They belong to this
    connection, where the open temporary files of a process cannot be told apart. While it writes back there
    is no call at all, and the growth of the journal or the log tells.
    """

    def __init__(self, session: Session, before: Measures) -> None:
        self._session = session
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._live = int(before["pages"] - before["free_pages"])
        self._page_bytes = int(before["page_bytes"])
        self._read_before = 0
        self._written_before = 0
        self._read = 0
        self._written = 0
        self._beside_before = 0
        self._returned = 0

    def __enter__(self) -> Self:
        if self._live * self._page_bytes >= WATCHED_BYTES:
            self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is None:
            return
        self._ended.set()
        self._thread.join()
        self._session.connection.set_progress_handler(None, id=self)

    def sample(self) -> None:
        """Publish where VACUUM is now."""
        grown = max(0, self._beside() - self._beside_before) // self._page_bytes
        self._returned = max(self._returned, grown)
        if self._returned == 0:
            self._session.progress(COPY, min(self._read, self._live), self._live, "pages")
            return
        # What the cache still holds of the copy is missing from the count of pages written, a few MB at most.
        total = max(self._written, self._returned)
        self._session.progress(WRITE_BACK, self._returned, total, "pages")

    def _begin(self) -> None:
        self._read_before = self._counter(apsw.SQLITE_DBSTATUS_CACHE_MISS)
        self._written_before = self._counter(apsw.SQLITE_DBSTATUS_CACHE_WRITE)
        self._beside_before = self._beside()
        self._session.connection.set_progress_handler(self._count, _STEPS, id=self)
        self._thread = threading.Thread(target=self._watch, name="vacuum-progress", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._ended.wait(INTERVAL):
            self.sample()

    def _count(self) -> bool:
        self._read = self._counter(apsw.SQLITE_DBSTATUS_CACHE_MISS) - self._read_before
        self._written = self._counter(apsw.SQLITE_DBSTATUS_CACHE_WRITE) - self._written_before
        return False

    def _counter(self, which: int) -> int:
        return self._session.connection.status(which)[0]

    def _beside(self) -> int:
        return size_of(self._session.location.journal) + size_of(self._session.location.log)
