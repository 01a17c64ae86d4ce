import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import errors

from worker_service.domain.errors import OperationCancelledError
from worker_service.domain.lock_waits import LockWaits
from worker_service.domain.operation import Operation, Progress
from worker_service.domain.ports import Control
from worker_service.operations.postgresql.address import beside, connect
from worker_service.operations.postgresql.kept import Kept, Lent, Place
from worker_service.operations.postgresql.options import COST_DELAY, COST_LIMIT, MAINTENANCE_MEMORY, Options
from worker_service.operations.postgresql.prologue import (
    application_name,
    looking_settings,
    operation_settings,
    state,
)
from worker_service.operations.postgresql.waiting import INTERVAL

Row = tuple[Any, ...]
_CANCEL_SECONDS = 5.0
_TRIES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What the server said beside its answer; ``severity`` and ``function`` are the same in every language."""

    severity: str
    sqlstate: str
    function: str
    text: str
    detail: str = ""


class Session:
    """The connection of one operation, that another thread may stop.

    From then on no further statement starts. What is read to judge what was done comes over a second
    connection, which no cancel meets.

    Args:
        place: where the database is.
        operation: the operation, for the session's name and its timeout.
        options: the operation's options.
        control: the worker that runs the operation.
        stop: set when the operation has to stop.
        kept: lends the connection, which may have been an earlier operation's.

    ``identity`` tells which database this is, once that is known: a connection that is kept leads to the same.
    ``waits`` is what was seen of waits for locks.
    ``answer`` has the rows that the last statement of the operation answered.
    """

    def __init__(
        self,
        *,
        place: Place,
        operation: Operation,
        options: Options,
        control: Control,
        stop: threading.Event,
        kept: Kept,
    ) -> None:
        self.operation = operation
        self.options = options
        self.stop = stop
        self.waits = LockWaits(INTERVAL)
        self.answer: Sequence[Row] = ()
        self._control = control
        self._notices: list[Notice] = []
        self._busy = False
        self._struck = False
        self._lanes: tuple[Session, ...] = ()
        self._spare: psycopg.Connection[Row] | None = None
        self._kept = kept
        self._lent, self.pid = self._borrow(place)
        self.identity = str(self._lent.known or "")
        self._connection = self._lent.connection
        self._connection.add_notice_handler(self._note)
        self.conninfo = beside(place.conninfo, self._connection)
        self.version: int = self._connection.info.server_version

    def run(self, statement: str) -> Sequence[Notice]:
        """Run one statement of the operation to its end, and return the server's warnings and notices.

        Raises:
            OperationCancelledError: the operation was stopped, before or within the statement.
            psycopg.Error: the server refused it.
        """
        if self.stop.is_set():
            raise OperationCancelledError("The operation was stopped between two statements.")
        self._notices = []
        try:
            self.answer = self._execute(self._connection, statement)
        except errors.QueryCanceled as error:
            if self.stop.is_set():
                raise OperationCancelledError("The statement was cancelled.") from error
            raise
        return self._notices

    def rows(self, query: str, *values: object) -> list[Row]:
        """Read from the catalogues, also after a stop."""
        if not self.stop.is_set():
            try:
                return self._execute(self._connection, query, values)
            except errors.QueryCanceled:
                if not self.stop.is_set():
                    raise
        return self._execute(self._beside(), query, values)

    def measure(self, query: str) -> Sequence[Row]:
        """Read what may take long, so that it can be stopped as a statement of the operation."""
        self.run(query)
        return self.answer

    def value(self, query: str, *values: object) -> Any:
        """Read the first column of the first row."""
        return self.rows(query, *values)[0][0]

    def repair(self, statement: str) -> None:
        """Run a statement that cleans up behind the operation, also after a stop."""
        self._execute(self._beside() if self.stop.is_set() else self._connection, statement)

    @property
    def pids(self) -> list[int]:
        """The server's numbers of all sessions of the operation."""
        return [self.pid, *(lane.pid for lane in self._lanes)]

    def another(self) -> "Session":
        """Open one more session of the same operation, for another thread; whoever stops this one stops both."""
        lane = Session(
            place=Place(conninfo=self.conninfo, identity=self._lent.place.identity),
            operation=self.operation,
            options=self.options,
            control=self._control,
            stop=self.stop,
            kept=self._kept,
        )
        lane.waits = self.waits
        self._lanes = (*self._lanes, lane)
        return lane

    def leave(self, lane: "Session") -> None:
        """Close one that was opened so."""
        self._lanes = tuple(one for one in self._lanes if one is not lane)
        lane.close()

    def interrupt(self) -> None:
        """Cancel the statements that run on the operation's connections; harmless when none does."""
        for lane in self._lanes:
            lane.interrupt()
        self.cancel()

    def cancel(self) -> None:
        """Cancel the statement that runs on this session's own connection; harmless when none does."""
        if self._busy:
            self._struck = True
            with suppress(psycopg.Error):
                self._connection.cancel_safe(timeout=_CANCEL_SECONDS)

    def checkpoint(self) -> None:
        """Wait between two statements while the lease is in doubt; raise when the operation has to stop."""
        self._control.checkpoint()

    def progress(self, progress: Progress) -> None:
        """Tell how far the operation is."""
        self._control.progress(progress)

    def log(self, level: str, message: str) -> None:
        """Append a line to the child job's log."""
        self._control.log(level, message)

    def close(self) -> None:
        """Give the locks in the target back, and the connection; one that a cancel may still strike is closed."""
        if self._spare is not None:
            self._spare.close()
        self._connection.remove_notice_handler(self._note)
        self._lent.known = self.identity
        if self._struck or self.stop.is_set() or not self._kept.take_back(self._lent):
            self._give_back()
            self._connection.close()

    def _give_back(self) -> None:
        # The server frees them with the connection too, but a moment after it has ended here: the next operation
        # would find the database busy. A cancel that came too late for a statement may strike this one, once.
        for _ in range(_TRIES):
            with suppress(psycopg.Error):
                self._connection.execute(b"SELECT pg_catalog.pg_advisory_unlock_all()")
                return

    def _borrow(self, place: Place) -> tuple[Lent, int]:
        """Borrow a connection and state what holds for this operation, before anything else is done on it."""
        lent = self._kept.lend(place)
        while True:
            try:
                settings = self._settings(lent.connection.info.server_version)
                pid = state(lent.connection, settings, outlives_client=self.options.waits_for_former_attempt)
            except psycopg.Error as error:
                lent.connection.close()
                if not lent.used or not isinstance(error, psycopg.OperationalError):
                    raise
                # It was lost while nobody had it.
                lent = self._kept.lend_new(place)
            else:
                return lent, pid

    def _settings(self, version: int) -> dict[str, str]:
        return {
            "application_name": application_name(self.operation),
            **operation_settings(
                version,
                lock_timeout_ms=self.options.lock_timeout_ms,
                timeout=self.operation.timeout,
                cost_delay_ms=self.options.numbers.get(COST_DELAY.name),
                cost_limit=self.options.numbers.get(COST_LIMIT.name),
                memory_mb=self.options.numbers.get(MAINTENANCE_MEMORY.name),
            ),
        }

    def _beside(self) -> psycopg.Connection[Row]:
        if self._spare is None:
            self._spare = connect(self.conninfo, "overhaul-look")
            readable = dict(looking_settings(self.version)) | {"default_transaction_read_only": "off"}
            state(self._spare, readable)
        return self._spare

    def _execute(
        self, connection: psycopg.Connection[Row], statement: str, values: Sequence[object] = ()
    ) -> list[Row]:
        self._busy = connection is self._connection
        try:
            # Without values nothing is looked for in the text, so that a name may hold a percent sign; and what
            # comes with them is a question that many operations ask.
            cursor = connection.execute(statement.encode(), values or None, prepare=bool(values))
            return cursor.fetchall() if cursor.description else []
        finally:
            self._busy = False

    def _note(self, said: errors.Diagnostic) -> None:
        # libpq forgets the notice when this returns.
        self._notices.append(
            Notice(
                severity=said.severity_nonlocalized or said.severity or "",
                sqlstate=said.sqlstate or "",
                function=said.source_function or "",
                text=said.message_primary or "",
                detail=said.message_detail or "",
            )
        )
