import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from worker_service.domain.errors import OperationCancelledError
from worker_service.domain.inspection import INSPECT
from worker_service.domain.lock_waits import LockWaits
from worker_service.domain.operation import Operation, Progress
from worker_service.domain.ports import Control
from worker_service.operations.mariadb.address import Address
from worker_service.operations.mariadb.connection import Connection, Row, ServerError, Value
from worker_service.operations.mariadb.failures import INTERRUPTED, is_not_here
from worker_service.operations.mariadb.kept import Kept, Known, Lent
from worker_service.operations.mariadb.killing import Killer
from worker_service.operations.mariadb.options import BINLOG, LOCK_TIMEOUT, Options
from worker_service.operations.mariadb.server import Server
from worker_service.operations.mariadb.target_lock import TargetLock
from worker_service.operations.mariadb.waiting import INTERVAL, Waiters
from worker_service.operations.mariadb.wording import tag

T = TypeVar("T")
_FRESH_BOOKS = ("information_schema_stats_expiry = 0",)
_IDLE_SECONDS = 86_400
_LONGEST = 31_536_000.0
# Nothing is changed silently by a rebuild, and zero dates of old rows are let through as they are.
_SQL_MODE = "STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came back for one statement: its rows and the warnings after it."""

    rows: Sequence[Row]
    warnings: Sequence[Row]


class Session:
    """The connection of one attempt, whose statements another thread may stop.

    It holds the lock in the server, once it was taken, to its end, so that a statement which outlives its worker
    keeps the next one off. To inspect needs none.

    Args:
        address: where the database is.
        operation: what is done, and by which attempt.
        options: the operation's options.
        control: the worker that runs the operation.
        stop: set when the operation has to stop; from then on no further statement starts.
        kept: lends the connection, which may have been an earlier operation's.
    """

    def __init__(
        self,
        *,
        address: Address,
        operation: Operation,
        options: Options,
        control: Control,
        stop: threading.Event,
        kept: Kept,
    ) -> None:
        self.address = address
        self.operation = operation
        self.options = options
        self.stop = stop
        self.tag = tag(operation.child_job_id, operation.attempt)
        self._control = control
        self._guard = threading.Lock()
        self._in_statement = False
        self.waits = LockWaits(INTERVAL)
        self._killer = Killer(address, "overhaul:killer")
        self._kept = kept
        self._lent: Lent | None = None
        self._lock: TargetLock | None = None

    def open(self, first: Callable[[], T]) -> T:
        """Borrow a connection, set what holds for this operation, and do what comes first on it.

        What was lost while nobody had it is noticed no sooner: then another is borrowed, and it is begun again.

        Raises:
            ServerError: the server cannot be reached, or refuses what every operation needs.
        """
        lent = self._kept.lend(self.address)
        while True:
            self._lent = lent
            try:
                self._set_up(lent)
                self._lock = TargetLock(lent.connection, self.server.database, self.tag)
                self.waiters = Waiters(lent.connection.number, self.waits)
                return first()
            except ServerError as error:
                if not lent.used or error.is_answer:
                    raise
                lent.connection.close()
                lent = self._kept.lend_new(self.address)

    @property
    def connection(self) -> Connection:
        """The connection that works, once it is open."""
        if self._lent is None:
            raise AssertionError("the session is not open")
        return self._lent.connection

    def take_the_lock(self) -> None:
        """Take the lock in the server, of the table that is meant or of the whole database.

        Raises:
            TargetBusyError: another operation holds it.
            ServerError: the connection broke.
        """
        if self._lock is not None and self.operation.name != INSPECT:
            self._lock.take(self.operation.object)

    @property
    def time_limit(self) -> float:
        """The seconds after which the server stops a statement by itself; 0 for never."""
        timeout = self.operation.timeout
        return min(timeout.total_seconds(), _LONGEST) if timeout and self.server.is_mariadb else 0.0

    def run(self, statement: str) -> Reply:
        """Run one statement that maintains, and read the warnings after it.

        Raises:
            OperationCancelledError: the operation was stopped before it began.
            ServerError: the server refused it, or the connection broke.
        """
        rows = self.rows(statement)
        return Reply(rows=rows, warnings=self._warnings())

    def rows(self, sql: str, *arguments: Value) -> list[Row]:
        """Run one statement that may be stopped, tagged so that it can be told in the server's list of processes.

        Raises:
            OperationCancelledError: the operation was stopped before it began.
            ServerError: the server refused it, or the connection broke.
        """
        with self._guard:
            if self.stop.is_set():
                raise OperationCancelledError("The operation was stopped between two statements.")
            self._in_statement = True
        try:
            return self.connection.rows(f"/* {self.tag} */ {sql}", *arguments)
        finally:
            with self._guard:
                self._in_statement = False

    def interrupt(self) -> None:
        """Stop the statement that runs; harmless when none does."""
        with self._guard:
            if self._in_statement:
                self._killer.kill_query(self.connection.number, softly=self.server.is_mariadb)

    def kills(self) -> Row:
        """Count the kills that the server was asked for, to be compared: CHECK TABLE does not tell of one."""
        return self._count("GLOBAL", "Com_kill")

    def time_outs(self) -> Row:
        """Count the statements of this session that met their time limit, to be compared for the same reason."""
        return self._count("SESSION", "Max_statement_time_exceeded") if self.time_limit else ()

    def look(self) -> Connection:
        """Open another connection that only reads: for the state after a stop, or while a statement runs."""
        reader = Connection(self.address, program="overhaul:reader")
        if not self.server.is_mariadb:
            # Otherwise MySQL answers from books of up to a day ago.
            _set(reader, *_FRESH_BOOKS)
        return reader

    def checkpoint(self) -> None:
        """Wait while the lease is in doubt; raise ``OperationCancelledError`` when the operation has to stop."""
        self._control.checkpoint()

    def progress(self, phase: str, done: int | None = None, total: int | None = None, unit: str = "") -> None:
        """Publish how far the operation is."""
        self._control.progress(Progress(phase=phase, done=done, total=total, unit=unit))

    def log(self, level: str, message: str) -> None:
        """Append a line to the child job's log."""
        self._control.log(level, message)

    def close(self, *, fit: bool) -> None:
        """Give the lock back, and the connection; one that is unfit, or that a kill may still strike, is ended."""
        released = self._lock is not None and self._lock.release()
        fit = fit and released and not self.stop.is_set() and not self._hides_from_replicas
        if self._lent is not None and not (fit and self._kept.take_back(self._lent)):
            self._lent.connection.close()
        self._killer.close()

    def _count(self, scope: str, name: str) -> Row:
        return tuple(value for _, value in self.connection.rows(f"SHOW {scope} STATUS LIKE %s", name))

    def _warnings(self) -> Sequence[Row]:
        # A kill that came a moment too late for the statement may strike this one, and only once.
        try:
            return self.connection.rows("SHOW WARNINGS")
        except ServerError as error:
            if error.number != INTERRUPTED:
                raise
            return self.connection.rows("SHOW WARNINGS")

    @property
    def _hides_from_replicas(self) -> bool:
        return not self.options.get(BINLOG.name, 1)

    def _set_up(self, lent: Lent) -> None:
        known = lent.known if isinstance(lent.known, Known) else None
        self.server = known.server if known else Server.on(lent.connection)
        settings = self._settings()
        if known is None or known.settings != settings:
            if not _set(lent.connection, *settings):
                # The release does not know each of them, or the role is not free to set it.
                for setting in settings:
                    _set(lent.connection, setting)
            lent.known = Known(server=self.server, settings=settings)
        elif self.operation.name == INSPECT:
            # It takes no lock, by which another would notice that the connection was lost.
            lent.connection.rows("DO 1")
        if self._hides_from_replicas:
            lent.connection.rows("SET SESSION sql_log_bin = 0")

    def _settings(self) -> Sequence[str]:
        lock_timeout = self.options[LOCK_TIMEOUT.name]
        own = (
            (
                f"max_statement_time = {self.time_limit:.3f}",
                "system_versioning_alter_history = 'KEEP'",
                # Some servers are set to refuse what copies a table, and a rebuild does nothing else.
                "alter_algorithm = 'DEFAULT'",
            )
            if self.server.is_mariadb
            else _FRESH_BOOKS
        )
        return (
            "lc_messages = 'en_US'",
            f"sql_mode = '{_SQL_MODE}'",
            f"lock_wait_timeout = {lock_timeout}",
            f"innodb_lock_wait_timeout = {lock_timeout}",
            f"wait_timeout = {_IDLE_SECONDS}",
            *own,
        )


def _set(connection: Connection, *settings: str) -> bool:
    """Set what a session goes by, all or nothing; tell whether the server took it."""
    try:
        connection.rows(f"SET SESSION {', '.join(settings)}")
    except ServerError as error:
        if not is_not_here(error):
            raise
        return False
    return True
