"""How a sweep over many objects becomes one result."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache

from worker_service.domain.outcome import Failure, FailureCategory, Measures, Outcome, Result, Verdict
from worker_service.operations.postgresql.catalog import Reader
from worker_service.operations.postgresql.measures import whole_measures
from worker_service.operations.postgresql.names import Name
from worker_service.operations.postgresql.procedure import cancelled, completed, skipped
from worker_service.operations.postgresql.session import Session
from worker_service.operations.postgresql.sweep import Swept
from worker_service.operations.wording import count, listed

Words = tuple[str, str, str]
"""An object, objects, and what is done to them: ``table``, ``tables``, ``vacuumed``."""

_VERSION_15 = 150_000
_NOT_SEEN = Failure(
    reason="NOT_DONE",
    message="The statement ended without an error, and the server's counters show that nothing was done.",
    category=FailureCategory.INTERNAL,
    retryable=False,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The objects of a sweep, those that the catalogues show as done, and what their statements said."""

    names: frozenset[Name]
    done: frozenset[Name]
    swept: Swept

    @property
    def failures(self) -> dict[str, Failure]:
        """Why each of those failed that were tried and are not done; the catalogues outdo what was said."""
        missed = {name: failure for name, failure in self.swept.failures.items() if name not in self.done}
        unseen = dict.fromkeys(sorted(self.swept.ran - self.done, key=str), _NOT_SEEN)
        return {name.shown: failure for name, failure in {**missed, **unseen}.items()}

    @property
    def total(self) -> int:
        """How many there were, without those that are gone."""
        return len(self.names) - len(self.swept.gone)


def judge(
    ledger: Ledger, words: Words, found: tuple[Verdict, str], *, before: Measures, after: Measures
) -> Result:
    """Word what the sweep did; ``found`` is the verdict on what was done, with its reason."""
    noun, plural, verb = words
    verdict, reason = found
    failures, number = ledger.failures, len(ledger.done)
    done = f"{verb} {number} of {count(ledger.total, noun, plural)}"
    text = f"{verb} {count(number, noun, plural)}: {reason}" if reason else f"{verb} {count(number, noun, plural)}"
    if ledger.swept.stopped and number < ledger.total:
        return cancelled(f"stopped after it {done}; what was done stays.", before, after)
    if ledger.swept.end and number < ledger.total:
        return _failed(ledger.swept.end, f"{ledger.swept.end.message} It {done}.", before, after)
    if ledger.total == 0:
        return skipped(f"every {noun} is gone meanwhile.", before)
    if not failures:
        return completed(verdict, f"{text}.", before, after)
    if not number:
        return _failed(
            _leading(failures),
            f"None of {count(ledger.total, noun, plural)} could be {verb}: {_list(failures)}",
            before,
            after,
        )
    told = f"{done} ({reason})" if reason else done
    return completed(Verdict.PARTIALLY_EFFECTIVE, f"{told}; not done: {_list(failures)}", before, after)


def with_numbers(measures: Measures, ledger: Ledger, words: Words) -> dict[str, float]:
    """Add how many objects were done and how many failed."""
    _, plural, verb = words
    return {
        **measures,
        f"{plural}_{verb}": float(len(ledger.done)),
        f"{plural}_failed": float(len(ledger.failures)),
    }


def missing(noun: str, subject: Name | None, session: Session) -> Result:
    """Make the result where there is no such object, or none at all."""
    return skipped(nothing_there(noun, subject), whole_measures(session.rows, subject))


def nothing_there(noun: str, subject: Name | None) -> str:
    """Word that there is no such object, or none at all."""
    return f"the database has no {noun}{'' if subject is None else f' {subject}'}."


def _leading(failures: Mapping[str, Failure]) -> Failure:
    """Return the failure that stands for all: one that may pass when it is tried again, if there is any."""
    return next((one for one in failures.values() if one.retryable), next(iter(failures.values())))


def _failed(failure: Failure, message: str, before: Measures, after: Measures) -> Result:
    failure = replace(failure, message=message)
    return Result(outcome=Outcome.FAILED, reason=message, failure=failure, before=before, after=after)


def _list(failures: Mapping[str, Failure]) -> str:
    return listed([f"{name}: {failure.message}" for name, failure in failures.items()])


def counting(session: Session) -> Callable[[], bool]:
    """Make what tells whether the server counts what is done to tables and tells it at once; it is asked once."""

    @cache
    def counts() -> bool:
        return session.version >= _VERSION_15 and session.value("SELECT current_setting('track_counts')") == "on"

    return counts


def version_of(read: Reader) -> int:
    """Return the server's version as a number, such as 150018."""
    return int(read("SELECT current_setting('server_version_num')::int")[0][0])
