from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import apsw

from worker_service.domain.errors import OperationCancelledError
from worker_service.domain.outcome import Failure, Measures, Outcome, Result, Verdict
from worker_service.operations.sqlite.failures import is_of_one_object
from worker_service.operations.sqlite.procedure import cancelled, completed
from worker_service.operations.sqlite.rights import failure_on
from worker_service.operations.sqlite.session import Session
from worker_service.operations.sqlite.wording import quoted
from worker_service.operations.wording import count, listed


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What became of one statement for each of many tables or indexes.

    ``end`` is the failure that ended the sweep before its last object: a lock or a full disk would meet
    each of the others too, one busy timeout after the other.
    """

    done: tuple[str, ...] = ()
    failures: Mapping[str, Failure] = field(default_factory=dict)
    total: int = 0
    stopped: bool = False
    end: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """How a sweep's result speaks of its objects: ``rebuilt`` 3 ``indexes``."""

    noun: str
    plural: str
    done: str

    def count(self, number: int) -> str:
        """Write a number of objects."""
        return count(number, self.noun, self.plural)


def sweep(session: Session, phase: str, statements: Mapping[str, str], unit: str) -> Sweep:
    """Run the statements, by the name of their object; warn of one that fails and go on.

    Raises:
        OperationCancelledError: it was stopped before anything was done.
    """
    result = Sweep(total=len(statements))
    for index, (name, statement) in enumerate(statements.items()):
        _tell(session, phase, index, len(statements), unit)
        try:
            session.checkpoint()
            session.rows(statement)
        except OperationCancelledError:
            if not result.done:
                raise
            return replace(result, stopped=True)
        except apsw.Error as error:
            result = _after(result, session, name, error)
            if result.end:
                return result
        else:
            result = replace(result, done=(*result.done, name))
    if len(statements) > 1:
        session.progress(phase, len(statements), len(statements), unit)
    return result


def _tell(session: Session, phase: str, done: int, total: int, unit: str) -> None:
    """Tell how many are done; of a single one that would only be an invented 0 %."""
    if total > 1:
        session.progress(phase, done, total, unit)
    else:
        session.progress(f"{phase}: SQLite does not tell how far it is")


def judge(swept: Sweep, words: Words, verdict: Verdict, reason: str, after: Measures) -> Result:
    """Word what the sweep did; ``verdict`` and ``reason`` are those of a sweep without a failure."""
    done = f"{words.done} {len(swept.done)} of {words.count(swept.total)}"
    if swept.stopped:
        return cancelled(f"stopped after it {done}.", after)
    if swept.end:
        return _failed(swept.end, f"{swept.end.message} It {done}.", after)
    if not swept.failures:
        return completed(verdict, reason, after)
    if not swept.done:
        first = next(iter(swept.failures.values()))
        return _failed(first, f"None of {words.count(swept.total)} could be {words.done}: {_list(swept)}", after)
    return completed(Verdict.PARTIALLY_EFFECTIVE, f"{done}; failed: {_list(swept)}", after)


def _after(result: Sweep, session: Session, name: str, error: apsw.Error) -> Sweep:
    failure = failure_on(session.location, error)
    if not is_of_one_object(error):
        session.log("error", f"{name}: {failure.message}")
        return replace(result, end=failure)
    session.log("warning", f"{name}: {failure.message} Going on with the next.")
    return replace(result, failures={**result.failures, name: failure})


def _failed(failure: Failure, message: str, after: Measures) -> Result:
    return Result(outcome=Outcome.FAILED, reason=message, failure=replace(failure, message=message), after=after)


def _list(swept: Sweep) -> str:
    return listed([f"{name}: {failure.message}" for name, failure in swept.failures.items()])


def statements_for(names: Iterable[str], verb: str) -> dict[str, str]:
    """Word one statement an object, such as ``REINDEX main."name"``.

    The schema before the name keeps ``REINDEX nocase`` from meaning the collation.
    """
    return {name: f"{verb} main.{quoted(name)}" for name in names}
