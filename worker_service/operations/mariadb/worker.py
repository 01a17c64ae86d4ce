import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from worker_service.domain.errors import OperationCancelledError
from worker_service.domain.inspection import INSPECT, Inspection
from worker_service.domain.operation import WORKER_TYPE, Operation
from worker_service.domain.outcome import FailureCategory, Outcome, Result
from worker_service.domain.ports import Control
from worker_service.domain.settlement import with_waits
from worker_service.domain.target import Target
from worker_service.operations.mariadb.address import Address
from worker_service.operations.mariadb.catalogue import find, find_wanted
from worker_service.operations.mariadb.connection import Connection, ServerError
from worker_service.operations.mariadb.failures import failed, failed_with, failure_from
from worker_service.operations.mariadb.former import take_over
from worker_service.operations.mariadb.inspecting import Wanted, inspect
from worker_service.operations.mariadb.kept import Kept
from worker_service.operations.mariadb.options import Options
from worker_service.operations.mariadb.procedure import Facts, Plan, Procedure, make_plan
from worker_service.operations.mariadb.session import Session
from worker_service.operations.mariadb.state import State, now, read_state, renewed_since
from worker_service.operations.mariadb.sweep import Sweep, Swept
from worker_service.operations.mariadb.tables import read_tables

_STOPPED = Result(outcome=Outcome.CANCELLED, reason="stopped while it looked; nothing was changed.")


class MariadbWorker:
    """Runs the operations of one lease on one database, or on one table of it.

    Args:
        target: the database.
        expected: the database's identity as it was registered; ``None`` when any will do.
        control: the worker that holds the lease.
        kept: lends connections.
    """

    worker_type = WORKER_TYPE

    def __init__(self, *, target: Target, expected: str | None, control: Control, kept: Kept) -> None:
        self._target = target
        self._expected = expected
        self._control = control
        self._kept = kept
        self._stop = threading.Event()
        self._session: Session | None = None

    def validate(self, operation: Operation) -> None:
        """Check the operation's name and options, and those of what an ``inspect`` looks for."""
        self._prepared(operation)

    def execute(self, operation: Operation) -> Result:
        """Run the operation while holding the lock in the server of what it is done to."""
        options, work = self._prepared(operation)
        address = Address.of(self._target)
        self._stop.clear()
        self._control.checkpoint()
        session = Session(
            address=address,
            operation=operation,
            options=options,
            control=self._control,
            stop=self._stop,
            kept=self._kept,
        )
        self._session = session
        result: Result | None = None
        try:
            refused = session.open(lambda: take_over(session)) or self._refusal(session)
            result = with_waits(refused or work(session), session.waits, session.log)
        except ServerError as error:
            result = failed_with(failure_from(error))
        finally:
            self._session = None
            # What a role is granted after a failure, only a new connection is told.
            session.close(fit=result is not None and result.failure is None)
        return result

    def interrupt(self) -> None:
        """Stop the statement that runs, and let no other start; harmless when no operation runs."""
        session = self._session
        if session is not None:
            self._stop.set()
            session.interrupt()

    def _prepared(self, operation: Operation) -> tuple[Options, Callable[[Session], Result]]:
        if operation.name == INSPECT:
            inspection, wanted, options = find_wanted(operation)
            return options, lambda session: self._inspect(session, inspection, wanted)
        procedure, options = find(operation)
        return options, lambda session: self._run(session, procedure)

    def _refusal(self, session: Session) -> Result | None:
        if self._expected in {None, session.server.identity(self._target)}:
            return None
        text = "Another database answers at the target's URL than the one that was registered: look at it."
        return failed("TARGET_REPLACED", text, FailureCategory.UNAVAILABLE)

    def _inspect(self, session: Session, inspection: Inspection, wanted: Sequence[Wanted]) -> Result:
        try:
            return inspect(session, session.server.lock_key(self._target), inspection, wanted)
        except OperationCancelledError:
            return _STOPPED
        except ServerError:
            if not self._stop.is_set():
                raise
            return _STOPPED

    def _run(self, session: Session, procedure: Procedure) -> Result:
        name = session.operation.object
        tables = read_tables(session.connection, name)
        if not tables:
            what = f"there is no table {name!r}" if name is not None else "there is no table"
            return Result(outcome=Outcome.SKIPPED, reason=f"{what} in the database that the role may see.")
        plan = make_plan(procedure, tables, session.options)
        for table, reason in plan.left_alone.items():
            session.log("info", f"{table} is left alone: {reason}.")
        before = read_state(session.connection, name, books=not procedure.only_looks)
        return self._sweep(session, procedure, plan, before)

    def _sweep(self, session: Session, procedure: Procedure, plan: Plan, before: State) -> Result:
        moment = now(session.connection)
        try:
            swept = Sweep(session, plan.statements, distrust=procedure.only_looks).run()
        except OperationCancelledError as error:
            swept = Swept(total=len(plan.statements), stopped=True)
            session.log("info", str(error))
        if procedure.only_looks:
            result = procedure.judge(Facts(swept=swept, before=before, after=before, left_alone=plan.left_alone))
            return replace(result, before=before.counts(), after={**before.counts(), **result.after})
        facts = self._facts(session, swept, plan, before, moment)
        result = procedure.judge(facts)
        measures = facts.after.measures() if facts.after else {}
        return replace(result, before=before.measures(), after={**measures, **result.after})

    def _facts(self, session: Session, swept: Swept, plan: Plan, before: State, moment: str) -> Facts:
        """Read the state again, over a connection that no kill was sent to and that the server did not break."""
        facts = Facts(swept=swept, before=before, after=None, left_alone=plan.left_alone)

        def seen(reader: Connection) -> Facts:
            name = session.operation.object
            return replace(facts, after=read_state(reader, name), renewed=renewed_since(reader, moment, name))

        try:
            if not swept.stopped and swept.end is None and not self._stop.is_set():
                return seen(session.connection)
        except ServerError:
            pass  # a kill came meanwhile, or the connection broke
        try:
            with session.look() as reader:
                return seen(reader)
        except ServerError as error:
            session.log("warning", f"The state after it cannot be read: {failure_from(error).message}")
            return facts
