import threading
from dataclasses import replace

import psycopg

from worker_service.domain.errors import OperationCancelledError, TargetUnavailableError
from worker_service.domain.inspection import INSPECT
from worker_service.domain.operation import WORKER_TYPE, Operation
from worker_service.domain.outcome import FailureCategory, Outcome, Result
from worker_service.domain.ports import Control
from worker_service.domain.settlement import with_waits
from worker_service.operations.postgresql.exclusion import hold, locks_for
from worker_service.operations.postgresql.failures import failed, failed_with, failure_of
from worker_service.operations.postgresql.former import settle_former_attempts
from worker_service.operations.postgresql.identity import look
from worker_service.operations.postgresql.kept import Kept, Place
from worker_service.operations.postgresql.names import Name
from worker_service.operations.postgresql.operations import find
from worker_service.operations.postgresql.procedure import Procedure
from worker_service.operations.postgresql.session import Session

_STANDBY = (
    "The server is a standby, which only reads: name the primary in the target's URL, or all servers with "
    "?target_session_attrs=read-write."
)


class PostgresqlWorker:
    """Runs the operations of one lease in one database.

    Args:
        place: where the database is, and its identity where that was configured.
        expected: the database's identity as it was registered; ``None`` when any will do.
        control: the worker that holds the lease.
        kept: lends connections.
    """

    worker_type = WORKER_TYPE

    def __init__(self, *, place: Place, expected: str | None, control: Control, kept: Kept) -> None:
        self._place = place
        self._kept = kept
        self._expected = expected
        self._control = control
        self._stop = threading.Event()
        self._guard = threading.Lock()
        self._session: Session | None = None
        self._running = False

    def validate(self, operation: Operation) -> None:
        """Check the operation's name, options and object."""
        find(operation)

    def execute(self, operation: Operation) -> Result:
        """Run the operation while holding its table or the database against other operations of Overhaul."""
        procedure, options, subject = find(operation)
        self._begin()
        try:
            self._control.checkpoint()
            session = Session(
                place=self._place,
                operation=operation,
                options=options,
                control=self._control,
                stop=self._stop,
                kept=self._kept,
            )
            try:
                self._session = session
                return with_waits(self._run(session, procedure, subject), session.waits, session.log)
            except OperationCancelledError:
                return Result(outcome=Outcome.CANCELLED, reason="stopped; the database is as it was.")
            finally:
                self._leave(session)
        except psycopg.Error as error:
            return failed_with(failure_of(error))
        finally:
            self._running = False

    def interrupt(self) -> None:
        """Cancel the statement that runs, and let no other start; harmless when no operation runs."""
        with self._guard:
            if self._running:
                self._stop.set()
            session = self._session
        if session:
            session.interrupt()

    def _run(self, session: Session, procedure: Procedure, subject: Name | None) -> Result:
        if refused := self._look(session):
            return refused
        if self._expected not in {None, session.identity}:
            text = "Another database is in the place of the one that was registered: register the target again."
            return failed("TARGET_REPLACED", text, FailureCategory.UNAVAILABLE)
        if stopped := settle_former_attempts(session):
            return stopped
        hold(session, locks_for(session.rows, subject, alone=procedure.name != INSPECT))
        try:
            return procedure.run(session, subject)
        except psycopg.OperationalError as error:
            failure = failure_of(error)
            return failed_with(replace(failure, message=f"{failure.message} What was done before stays."))

    def _look(self, session: Session) -> Result | None:
        """Find out which database this is, and return why nothing can be done to it, if that is so."""
        if session.identity:
            return None
        try:
            standby, identity = look(session.rows, self._place.identity)
        except TargetUnavailableError as error:
            return failed("PERMISSION_DENIED", str(error), FailureCategory.PERMISSION)
        if standby:
            return failed("READ_ONLY", _STANDBY, FailureCategory.UNAVAILABLE)
        session.identity = identity
        return None

    def _begin(self) -> None:
        with self._guard:
            self._stop.clear()
            self._running = True

    def _leave(self, session: Session) -> None:
        with self._guard:
            self._session = None
        session.close()
