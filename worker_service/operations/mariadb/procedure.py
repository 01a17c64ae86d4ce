from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from worker_service.domain.outcome import Failure, Measures, Outcome, Result, Verdict
from worker_service.operations.mariadb.answers import Answer, Fate
from worker_service.operations.mariadb.options import Options
from worker_service.operations.mariadb.state import State
from worker_service.operations.mariadb.sweep import Swept
from worker_service.operations.mariadb.tables import Table
from worker_service.operations.options import Option
from worker_service.operations.wording import count, listed


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is run for which table, and which are left alone, each with its reason."""

    statements: Mapping[str, str]
    left_alone: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that is known after a sweep, for the verdict.

    ``renewed`` tells of each InnoDB table whether its kept statistics are of this run; ``None`` where the role may
    not read them. ``after`` is ``None`` where the server could not be asked any more.
    """

    swept: Swept
    before: State
    after: State | None
    left_alone: Mapping[str, str] = field(default_factory=dict)
    renewed: Mapping[str, bool] | None = None


class Procedure(Protocol):
    """How one operation is carried out, table by table, and how it is judged."""

    @property
    def name(self) -> str:
        """The operation's name."""
        ...

    @property
    def description(self) -> str:
        """What it does, in one sentence."""
        ...

    @property
    def options(self) -> tuple[Option, ...]:
        """The options it understands."""
        ...

    @property
    def only_looks(self) -> bool:
        """Whether it changes nothing.

        Then the sizes and dates are not read either, and an OK is not believed if anything was killed meanwhile.
        """
        ...

    @property
    def copies(self) -> bool:
        """Whether it writes tables a second time beside themselves."""
        ...

    @property
    def engines_left_alone(self) -> Mapping[str, str]:
        """The storage engines whose tables get no statement, each with the reason."""
        ...

    def statement(self, table: Table, options: Options, /) -> str:
        """Word the statement for one table."""
        ...

    def keeps_out(self, table: Table, options: Options, /) -> str:
        """Say whom the statement's locks keep waiting, and for how long."""
        ...

    def judge(self, facts: Facts, /) -> Result:
        """Say what was done; ``after`` holds what this operation adds to the measures."""
        ...


def make_plan(procedure: Procedure, tables: Iterable[Table], options: Options) -> Plan:
    """Choose a statement for each table, or the reason why it gets none."""
    statements: dict[str, str] = {}
    left_alone: dict[str, str] = {}
    for table in tables:
        if reason := table.left_alone(procedure.engines_left_alone):
            left_alone[table.name] = reason
        else:
            statements[table.name] = procedure.statement(table, options)
    return Plan(statements=statements, left_alone=left_alone)


Judge = Callable[[list[str]], tuple[Verdict, str]]


def judge(facts: Facts, done: str, measures: Measures, verdict: Judge) -> Result:
    """Word what a sweep did.

    Args:
        facts: what is known.
        done: what was done to a table, such as ``rebuilt``.
        measures: what the operation adds to the measures.
        verdict: tells the verdict and its reason of the tables that were done; asked when none failed.
    """
    swept = facts.swept
    finished = swept.having(Fate.DONE, Fate.NOTHING_TO_DO)
    told = f"{done} {len(finished)} of {count(swept.total, 'table')}"
    if swept.stopped:
        return Result(outcome=Outcome.CANCELLED, reason=f"stopped after it {told}.", after=measures)
    if swept.end is not None:
        return _failed(swept.end, f"{swept.end.message} It {told}.", measures)
    if swept.having(Fate.FAILED, Fate.INTERRUPTED, Fate.DAMAGED):
        return _with_failures(swept, done, told, measures)
    if doubtful := swept.having(Fate.DOUBTFUL):
        text = listed(f"{name}: {swept.answers[name].text}" for name in doubtful)
        return _completed(Verdict.UNKNOWN, f"{told}; not known of {text}.", measures)
    if not finished:
        return _nothing(facts, measures)
    found, reason = verdict(finished)
    return _with_hidden(facts, _completed(found, f"{reason}{_suffix(facts)}.", measures))


def _with_failures(swept: Swept, done: str, told: str, measures: Measures) -> Result:
    failures = {name: answer for name, answer in swept.answers.items() if answer.failure is not None}
    if not swept.having(Fate.DONE, Fate.NOTHING_TO_DO):
        first = _weightiest(failures)
        return _failed(
            first, f"None of {count(swept.total, 'table')} could be {done}: {_list(failures)}", measures
        )
    reason = f"{told}; failed: {_list(failures)}"
    return _completed(Verdict.PARTIALLY_EFFECTIVE, reason, measures)


def _nothing(facts: Facts, measures: Measures) -> Result:
    reasons = dict(facts.left_alone)
    reasons |= {name: facts.swept.answers[name].text for name in facts.swept.having(Fate.LEFT_ALONE)}
    reason = f"nothing to do: {listed(f'{name}: {why}' for name, why in reasons.items())}."
    return Result(outcome=Outcome.SKIPPED, reason=reason, after=measures)


def _suffix(facts: Facts) -> str:
    left = [*facts.left_alone, *facts.swept.having(Fate.LEFT_ALONE)]
    return f"; left alone, as the log explains: {listed(left)}" if left else ""


def _with_hidden(facts: Facts, result: Result) -> Result:
    hidden = facts.before.hidden
    if not hidden:
        return result
    reason = f"{result.reason.removesuffix('.')}; but the role may not see {count(len(hidden), 'table')}: "
    reason += f"{listed(hidden)}. Grant it SELECT on the database."
    verdict = Verdict.PARTIALLY_EFFECTIVE if result.verdict is Verdict.EFFECTIVE else result.verdict
    return replace(result, verdict=verdict, reason=reason)


def _weightiest(failures: Mapping[str, Answer]) -> Failure:
    found = [answer.failure for answer in failures.values() if answer.failure is not None]
    return next((failure for failure in found if failure.retryable), found[0])


def _list(failures: Mapping[str, Answer]) -> str:
    return listed(f"{name}: {answer.failure.message}" for name, answer in failures.items() if answer.failure)


def _failed(failure: Failure, message: str, measures: Measures) -> Result:
    failed = replace(failure, message=message)
    return Result(outcome=Outcome.FAILED, reason=message, failure=failed, after=measures)


def _completed(verdict: Verdict, reason: str, measures: Measures) -> Result:
    return Result(outcome=Outcome.COMPLETED, verdict=verdict, reason=reason, after=measures)
