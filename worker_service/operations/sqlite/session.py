import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

import apsw

from worker_service.domain.errors import OperationCancelledError
from worker_service.domain.operation import Progress
from worker_service.domain.ports import Control
from worker_service.operations.sqlite.failures import is_interrupt
from worker_service.operations.sqlite.identity import file_key
from worker_service.operations.sqlite.location import Location
from worker_service.operations.sqlite.measures import (
    Statistics,
    read_measures,
    read_sizes,
    read_statistics,
    snapshot,
)
from worker_service.operations.sqlite.opening import opened
from worker_service.operations.sqlite.options import BUSY_TIMEOUT, Options

SqlValue = int | float | bytes | str | None
STEPS = 5_000
_NAP = 0.02
_GLANCE = 0.25


class Session:
    """One connection to one file, for one operation, that another thread may stop.

    Args:
        location: the file.
        options: the operation's options; ``busy_timeout_ms`` is among the numbers.
        control: the worker that runs the operation.
        stop: set when the operation has to stop; from then on no further statement starts.

    ``lock_wait`` is how many seconds it waited for the file's lock, measured and not sampled.
    """

    def __init__(self, *, location: Location, options: Options, control: Control, stop: threading.Event) -> None:
        self.location = location
        self.options = options
        self.stop = stop
        self._control = control
        self._waiting_since = 0.0
        self.lock_wait = 0.0
        self._file = file_key(location)
        self.connection = self._open()

    @property
    def moved(self) -> bool:
        """Whether the file that is open lies in its place no more; SQLite asks only before it makes a journal."""
        try:
            return file_key(self.location) != self._file
        except OSError:
            return True

    def rows(self, sql: str, *bindings: SqlValue) -> list[tuple[SqlValue, ...]]:
        """Run one statement to its end and return its rows.

        A cursor left half read would free one page instead of all, and keep VACUUM from starting.

        Raises:
            OperationCancelledError: the operation was stopped, before or within the statement.
            apsw.Error: SQLite refused it.
        """
        if self.stop.is_set():
            raise OperationCancelledError("The operation was stopped between two statements.")
        try:
            return [tuple(row) for row in self.connection.execute(sql, bindings)]
        except apsw.Error as error:
            if is_interrupt(error):
                raise OperationCancelledError("The statement was interrupted.") from error
            if isinstance(error, apsw.BusyError) and self.stop.is_set():
                raise OperationCancelledError("The operation was stopped while it waited for a lock.") from error
            if isinstance(error, apsw.BusyError) and self.moved:
                raise apsw.exception_for(apsw.SQLITE_READONLY_DBMOVED) from error
            raise

    def value(self, sql: str, *bindings: SqlValue) -> SqlValue:
        """Run one statement and return the first column of its first row."""
        return self.rows(sql, *bindings)[0][0]

    def number(self, sql: str, *bindings: SqlValue) -> int:
        """Run one statement that answers a whole number."""
        value = self.value(sql, *bindings)
        return value if isinstance(value, int) else 0

    def names(self, sql: str, *bindings: SqlValue) -> list[str]:
        """Run one statement that answers names, one a row."""
        return [str(row[0]) for row in self.rows(sql, *bindings)]

    def snapshot(self) -> AbstractContextManager[None]:
        """Let every statement of a block read the same state of the file, locked once for all of them."""
        return snapshot(self.connection)

    def journal_mode(self) -> str:
        """How the file is journalled: ``delete``, ``wal``, ..."""
        return str(self.value("PRAGMA main.journal_mode"))

    def measures(self) -> dict[str, float]:
        """Read the measures that every operation reports, also after a stop."""
        if not self.stop.is_set():
            with _interruptible():
                return read_measures(self.connection, self.location)
        return glance(self.location)

    def statistics(self) -> Statistics | None:
        """Read the optimizer's statistics, also after a stop; ``None`` when they cannot be read then."""
        if not self.stop.is_set():
            with _interruptible():
                return read_statistics(self.connection)
        with suppress(apsw.Error), looking(self.location) as connection:
            return read_statistics(connection)
        return None

    def checkpoint(self) -> None:
        """Wait between two statements while the lease is in doubt; raise when the operation has to stop."""
        self._control.checkpoint()

    def progress(self, phase: str, done: int | None = None, total: int | None = None, unit: str = "") -> None:
        """Tell how far the operation is."""
        self._control.progress(Progress(phase=phase, done=done, total=total, unit=unit))

    def log(self, level: str, message: str) -> None:
        """Append a line to the child job's log."""
        self._control.log(level, message)

    def close(self) -> None:
        """Close the connection; SQLite then removes a log that nobody else uses."""
        self.connection.close()

    def _open(self) -> apsw.Connection:
        connection = opened(self.location, "rw")
        connection.set_busy_handler(self._wait)
        # An interrupt that falls between the look at ``stop`` and a statement's first step is lost to SQLite.
        connection.set_progress_handler(self.stop.is_set, STEPS)
        return connection

    def _wait(self, tries: int) -> bool:
        # SQLite's own busy timeout sleeps through an interrupt; this one ends with the operation, and does not
        # wait for a file that was replaced meanwhile.
        now = time.monotonic()
        if tries == 0:
            self._waiting_since = now
        if now - self._waiting_since >= self.options.numbers[BUSY_TIMEOUT.name] / 1000:
            return False
        stopped = self.moved or self.stop.wait(_NAP)
        self.lock_wait += time.monotonic() - now
        return not stopped


@contextmanager
def looking(location: Location, *, seconds: float = _GLANCE) -> Iterator[apsw.Connection]:
    """Open a connection that only reads, and leaves no file behind that was not there.

    Beside a log or a journal it opens with ``mode=ro``, which neither checkpoints nor rolls back. Where
    there is none, ``ro`` would leave the log's files behind in WAL mode, which ``rw`` removes when it closes.
    """
    waiting = any(size for size in (read_sizes(location)["wal_bytes"], _journal_size(location)))
    connection = opened(location, "ro" if waiting else "rw")
    try:
        connection.set_busy_timeout(int(seconds * 1000))
        connection.execute("PRAGMA query_only = 1")
        yield connection
    finally:
        connection.close()


def glance(location: Location) -> dict[str, float]:
    """Read what can be read of the measures without the operation's connection and without waiting."""
    try:
        with looking(location) as connection:
            return read_measures(connection, location)
    except apsw.Error:
        return read_sizes(location)


def _journal_size(location: Location) -> int:
    return Location(path=location.journal).size()


@contextmanager
def _interruptible() -> Iterator[None]:
    """Go on after an interrupt as if the block had not been."""
    try:
        yield
    except apsw.Error as error:
        if not is_interrupt(error):
            raise
