"""The transactions of an embedded store: one connection writes, one reads, and the clock is this process's.

A third connection copies the log, in a thread.
"""

from collections import deque
from collections.abc import Coroutine
from typing import Any, TypeVar

from manager_service.domain.fleet import Timing
from manager_service.domain.ports import Clock, Hints, IdSource, Listener
from manager_service.store.clock import MarkOfLife, StoreClock
from manager_service.store.exclusion import Alone
from manager_service.store.schema import prepare
from manager_service.store.sqlite import SqliteFile, opening, parse
from manager_service.store.store import Query, SqlJobStore
from manager_service.store.unit_of_work import UnitOfWork
from manager_service.store.writer import Entry

T = TypeVar("T")
_ALONE = Alone()


class EmbeddedTransactions:
    """Begins and ends the units of work on the connection that writes."""

    def __init__(self, file: SqliteFile, *, clock: Clock, ids: IdSource, timing: Timing) -> None:
        self._file = file
        self._writer = file.writer
        self._reader = file.reader
        self._ids = ids
        self._timing = timing
        self._mark = MarkOfLife(timing)
        self._changes = 0
        self._clock = StoreClock(clock)
        self.leasing = self.steering = (self,)

    def open(self) -> None:
        """Make up for the time in which no manager ran."""
        self._writer.begin()
        self._mark.open(self._writer, self._clock.now())
        self._writer.commit()

    def begin(self) -> UnitOfWork:
        """Begin a transaction; what an outage did to expire times is made good before anything else."""
        self._file.check_place()
        self._writer.begin()
        now = self._clock.now()
        self._mark.check(self._writer, now)
        self._changes = self.changes()
        return UnitOfWork(self._writer, _ALONE, moment=lambda: now, about=now, ids=self._ids, timing=self._timing)

    def changes(self) -> int:
        """Return how many rows were changed so far."""
        return self._writer.changes()

    def mark_alive(self, tx: UnitOfWork) -> None:
        """Write the mark of life."""
        self._mark.write(tx, tx.now)

    def commit(self, tx: UnitOfWork) -> Hints:
        """Write what the unit of work owes, commit, and return what listeners are to look at."""
        tx.flush()
        hints = tx.hints()
        if self.changes() != self._changes:
            self._mark.refresh(self._writer, tx.now)
        self._writer.commit()
        self._mark.committed()
        self._file.checkpoints.look()
        return hints

    def rollback(self) -> None:
        """Undo the transaction, if one is open."""
        self._mark.rolled_back()
        self._writer.rollback()

    async def drive(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a transaction in the event loop."""
        return await work

    def choose(self, queue: deque[Entry]) -> list[Entry]:
        """Take all commands that wait, as they came."""
        entries = list(queue)
        queue.clear()
        return entries

    async def read(self, query: Query[T]) -> T:
        """Run a query on a snapshot of what was committed last."""
        with self._reader.snapshot():
            return query(self._reader, self._clock.now)

    def listen(self, listener: Listener) -> None:
        """There are no other managers."""

    def tell(self, hints: Hints) -> None:
        """There are no other managers."""

    def close(self) -> None:
        """Close the connections and let go of the file."""
        self._file.close()


def open_embedded(url: str, *, clock: Clock, ids: IdSource, timing: Timing, synchronous: str) -> SqlJobStore:
    """Open the job store in an SQLite file; raise ``InvalidStoreError`` or ``StoreInUseError``."""
    path = parse(url)
    file = SqliteFile(path, synchronous=synchronous)
    try:
        with opening(path):
            prepare(file.engine, file.tables, str(path))
            backend = EmbeddedTransactions(file, clock=clock, ids=ids, timing=timing)
            backend.open()
    except BaseException:
        file.close()
        raise
    return SqlJobStore(backend, timing=timing)
