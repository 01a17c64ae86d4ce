import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import apsw

from worker_service.domain.errors import OperationCancelledError
from worker_service.domain.inspection import INSPECT, Inspection
from worker_service.domain.lock_waits import LOCK_WAIT
from worker_service.domain.operation import WORKER_TYPE, Operation
from worker_service.domain.outcome import FailureCategory, Measures, Outcome, Result, Verdict
from worker_service.domain.ports import Control
from worker_service.operations.sqlite.catalogue import find, find_wanted
from worker_service.operations.sqlite.failures import failed, failed_with, is_interrupt
from worker_service.operations.sqlite.filelock import hold
from worker_service.operations.sqlite.identity import file_key, several_links
from worker_service.operations.sqlite.inspecting import Wanted, inspect
from worker_service.operations.sqlite.location import Location
from worker_service.operations.sqlite.measures import empty_measures, read_sizes
from worker_service.operations.sqlite.options import BUSY_TIMEOUT, Options
from worker_service.operations.sqlite.procedure import Procedure, cancelled, completed, skipped
from worker_service.operations.sqlite.rights import failure_on, unreachable
from worker_service.operations.sqlite.session import STEPS, Session, glance, looking
from worker_service.operations.wording import count

_MOVED = "SQLITE_READONLY_DBMOVED"
_MOVED_TEXT = (
    "The file was moved or replaced while the operation ran, and what was done is not in the file that lies there "
    "now: check the target's path."
)


class SqliteWorker:
    """Runs the operations of one lease on one file.

    Args:
        location: the file.
        expected: device and inode of the file as it was registered; ``None`` when any file will do.
        control: the worker that holds the lease.
    """

    worker_type = WORKER_TYPE

    def __init__(self, *, location: Location, expected: str | None, control: Control) -> None:
        self._location = location
        self._expected = expected
        self._control = control
        self._stop = threading.Event()
        self._guard = threading.Lock()
        self._session: Session | None = None
        self._running = False

    def validate(self, operation: Operation) -> None:
        """Check the operation's name, object and options, and those of what an ``inspect`` looks for."""
        if operation.name == INSPECT:
            find_wanted(operation)
        else:
            find(operation)

    def execute(self, operation: Operation) -> Result:
        """Run the operation while holding the file against all others on this host; an inspection only looks."""
        work = self._prepared(operation)
        self._begin()
        try:
            self._control.checkpoint()
            return self._refusal() or work()
        except OSError as error:
            denied = isinstance(error, PermissionError)
            category = FailureCategory.PERMISSION if denied else FailureCategory.IO
            text = str(error).removesuffix(".")
            return failed("OS_ERROR", f"The operating system refused: {text}.", category, retryable=not denied)
        finally:
            self._running = False

    def interrupt(self) -> None:
        """Stop the statement that runs, and let no other start; harmless when no operation runs."""
        with self._guard:
            if self._running:
                self._stop.set()
            if self._session:
                self._session.connection.interrupt()

    def _begin(self) -> None:
        with self._guard:
            self._stop.clear()
            self._running = True

    def _refusal(self) -> Result | None:
        try:
            key = file_key(self._location)
        except OSError as error:
            return failed_with(unreachable(error))
        # Released, the lease would come back for ever: the manager refuses the target's new identity until
        # somebody looks at it. A failure is seen.
        if self._expected not in {None, key}:
            text = "Another file is in the place of the one that was registered: register the target again."
            return failed("TARGET_REPLACED", text, FailureCategory.UNAVAILABLE)
        if refusal := several_links(self._location):
            return failed("SEVERAL_LINKS", refusal, FailureCategory.INVALID)
        if self._location.size() == 0 and read_sizes(self._location)["wal_bytes"] == 0:
            return replace(
                skipped("the file has zero bytes: nothing to do.", empty_measures()), before=empty_measures()
            )
        # SQLite takes a file of one byte for an empty one and would write over it.
        if self._location.size() == 1:
            text = "The file is not a SQLite database: it holds a single byte. Check the target's path."
            return failed("SQLITE_NOTADB", text, FailureCategory.NOT_A_DATABASE)
        return None

    def _prepared(self, operation: Operation) -> Callable[[], Result]:
        if operation.name == INSPECT:
            inspection, wanted, options = find_wanted(operation)
            return lambda: self._inspect(inspection, wanted, options)
        procedure, options = find(operation)
        return lambda: self._held(procedure, options)

    def _inspect(self, inspection: Inspection, wanted: Sequence[Wanted], options: Options) -> Result:
        try:
            with looking(self._location, seconds=options.numbers[BUSY_TIMEOUT.name] / 1000) as connection:
                connection.set_progress_handler(self._stop.is_set, STEPS)
                found = inspect(connection, self._location, inspection, wanted)
        except apsw.Error as error:
            return _stopped() if is_interrupt(error) else failed_with(failure_on(self._location, error))
        if found.not_known:
            self._control.log("info", f"What is unused in its pages is not known: {found.not_known}.")
        told = f"found {count(sum(not one.left_out for one in found.objects), 'object')}."
        result = completed(Verdict.EFFECTIVE, told, found.measures)
        return replace(result, before=found.measures, inspection=found.result())

    def _held(self, procedure: Procedure, options: Options) -> Result:
        with hold(file_key(self._location)):
            return self._run(procedure, options)

    def _run(self, procedure: Procedure, options: Options) -> Result:
        before: Measures = read_sizes(self._location)
        try:
            session = Session(location=self._location, options=options, control=self._control, stop=self._stop)
        except apsw.Error as error:
            return replace(failed_with(failure_on(self._location, error)), before=before)
        try:
            self._enter(session)
            before = session.measures()
            result = _in_place(session, procedure.run(session, before))
        except OperationCancelledError:
            result = _stopped()
        except apsw.Error as error:
            result = _stopped() if is_interrupt(error) else failed_with(failure_on(self._location, error))
        finally:
            self._leave(session)
        if session.lock_wait:
            session.log("info", f"It waited for the file's lock for {session.lock_wait:.1f} s.")
        after = {**self._after(result), LOCK_WAIT: round(session.lock_wait, 3)}
        return replace(result, before=before, after=after)

    def _enter(self, session: Session) -> None:
        with self._guard:
            self._session = session

    def _leave(self, session: Session) -> None:
        with self._guard:
            self._session = None
        session.close()

    def _after(self, result: Result) -> Mapping[str, float]:
        # Closing the last connection empties the log into the file, so the sizes are read after it.
        known = result.after if "pages" in result.after else {**glance(self._location), **result.after}
        if result.outcome is Outcome.SKIPPED:
            return known
        return {**known, **read_sizes(self._location)}


def _in_place(session: Session, result: Result) -> Result:
    """Keep a result only when it is one of the file that lies in the place now."""
    told = result.failure is not None and result.failure.reason == _MOVED
    if told or result.outcome is Outcome.CANCELLED or not session.moved:
        return result
    return failed(_MOVED, _MOVED_TEXT, FailureCategory.UNAVAILABLE)


def _stopped() -> Result:
    return cancelled("stopped; the database is as it was.", {})
