from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from worker_service.domain.errors import OperationCancelledError
from worker_service.domain.outcome import Failure, FailureCategory
from worker_service.operations.mariadb.answers import Answer, Fate, of_error, of_rows
from worker_service.operations.mariadb.connection import Row, ServerError
from worker_service.operations.mariadb.failures import STATEMENT_TIMEOUT, failure_from, meets_all
from worker_service.operations.mariadb.session import Session
from worker_service.operations.mariadb.watching import Watch

_KILLED = "a statement was killed in the server meanwhile, and a check that is killed says OK all the same"
_TRIES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What became of one statement for each of many tables.

    ``end`` is the failure that ended the sweep before its last table, because it would meet each of the others.
    """

    answers: Mapping[str, Answer] = field(default_factory=dict)
    total: int = 0
    stopped: bool = False
    end: Failure | None = None

    def having(self, *fates: Fate) -> list[str]:
        """Return the tables that met one of these fates."""
        return [name for name, answer in self.answers.items() if answer.fate in fates]


class Sweep:
    """Runs one statement for each of many tables; warns of one that fails, and goes on with the next.

    Args:
        session: what runs them.
        statements: by the name of their table.
        distrust: whether the server says OK of a statement that was killed, so that kills have to be looked for.
    """

    def __init__(self, session: Session, statements: Mapping[str, str], *, distrust: bool) -> None:
        self._session = session
        self._statements = statements
        self._distrust = distrust
        self._answers: dict[str, Answer] = {}
        self._kills: Row = ()

    def run(self) -> Swept:
        """Run them all, and those whose lock was not to be had once more after others that were done.

        Raises:
            OperationCancelledError: it was stopped before anything was done.
        """
        try:
            end = self._run(self._statements) or self._run(self._locked())
        except OperationCancelledError:
            if not self._answers:
                raise
            return self._swept(stopped=True)
        if end is None and (total := len(self._statements)) > 1:
            self._session.progress(self._session.operation.name, total, total, "tables")
        return self._swept(end=end)

    def _swept(self, *, stopped: bool = False, end: Failure | None = None) -> Swept:
        return Swept(answers=self._answers, total=len(self._statements), stopped=stopped, end=end)

    def _run(self, names: Iterable[str]) -> Failure | None:
        for name in names:
            self._session.checkpoint()
            try:
                answer = self._one(name)
            except ServerError as error:
                failure = failure_from(error)
                self._answers[name] = Answer(fate=Fate.FAILED, text=error.text, failure=failure)
                return self._end(name, failure)
            self._answers[name] = answer
            if answer.fate is Fate.INTERRUPTED and self._session.stop.is_set():
                raise OperationCancelledError("The statement was interrupted.")
            if answer.failure is not None and answer.failure.category is FailureCategory.TIMEOUT:
                return self._end(name, answer.failure)
            self._tell(name, answer)
        return None

    def _one(self, name: str) -> Answer:
        done = len(self._answers) - (name in self._answers)
        statement = self._statements[name]
        with Watch(self._session, table=name, done=done, total=len(self._statements)):
            return self._trusted(statement) if self._distrust else self._answer(statement)

    def _answer(self, statement: str) -> Answer:
        try:
            reply = self._session.run(statement)
        except ServerError as error:
            if meets_all(error):
                raise
            return of_error(error.number, error.text)
        if reply.rows:
            return of_rows(reply.rows, reply.warnings)
        return Answer(fate=Fate.DONE, notes=tuple(str(row[2]) for row in reply.warnings))

    def _trusted(self, statement: str) -> Answer:
        """Run a statement whose OK may be a lie, and once more if something was killed while it ran."""
        for _ in range(_TRIES):
            late = self._session.time_outs()
            before = self._kills or self._session.kills()
            answer = self._answer(statement)
            if answer.fate is not Fate.DONE:
                return answer
            if self._session.stop.is_set():
                return Answer(fate=Fate.INTERRUPTED, text="stopped")
            if self._session.time_outs() != late:
                return of_error(STATEMENT_TIMEOUT, "max_statement_time exceeded")
            self._kills = self._session.kills()
            if self._kills == before:
                return answer
        return Answer(fate=Fate.DOUBTFUL, text=_KILLED)

    def _locked(self) -> list[str]:
        if all(answer.failure is not None for answer in self._answers.values()):
            return []  # nothing took time meanwhile, and trying at once would only keep everyone waiting again
        return [
            name
            for name, answer in self._answers.items()
            if answer.failure is not None and answer.failure.category is FailureCategory.LOCKED
        ]

    def _end(self, name: str, failure: Failure) -> Failure:
        self._session.log("error", f"{name}: {failure.message}")
        return failure

    def _tell(self, name: str, answer: Answer) -> None:
        for note in answer.notes:
            self._session.log("info", f"{name}: {note}")
        if answer.failure is not None:
            self._session.log("warning", f"{name}: {answer.failure.message} Going on with the next.")
        elif answer.fate is not Fate.DONE:
            self._session.log("info", f"{name}: {answer.text}.")
