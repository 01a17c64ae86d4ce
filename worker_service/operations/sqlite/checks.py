"""The operations that look and change nothing.

A check that ran to its end and found nothing is completed and effective: what it was asked for, it gave. A
check that found something is failed, so that a job cannot look well when its database is not.
"""

from collections import Counter

import apsw

from worker_service.domain.outcome import FailureCategory, Measures, Outcome, Result, Verdict
from worker_service.operations.options import NumberOption
from worker_service.operations.sqlite.failures import failed
from worker_service.operations.sqlite.options import BUSY_TIMEOUT, Option, Options
from worker_service.operations.sqlite.procedure import completed
from worker_service.operations.sqlite.session import Session
from worker_service.operations.wording import count, listed

_MAX_ERRORS = NumberOption(
    name="max_errors",
    description="Stop after this many errors (default 100).",
    default=100,
    least=1,
    most=100_000,
)
_SHOWN = 3
_LOGGED = 100


class _PageCheck:
    """What integrity_check and quick_check share."""

    name: str
    options: tuple[Option, ...] = (_MAX_ERRORS, BUSY_TIMEOUT)
    _caveat: str

    def plan(self, _connection: apsw.Connection, options: Options, /) -> tuple[str, ...]:
        """One pragma."""
        return (self._statement(options),)

    def run(self, session: Session, _before: Measures, /) -> Result:
        """Read the rows: a single ``ok``, or one row an error."""
        session.progress("check")
        errors = _errors(session.names(self._statement(session.options)))
        after = session.measures() | {"errors_found": float(len(errors))}
        if not errors:
            return completed(Verdict.EFFECTIVE, f"checked, no errors{self._caveat}.", after)
        for error in errors[:_LOGGED]:
            session.log("error", error)
        found = count(len(errors), "error")
        limit = " or more" if len(errors) >= session.options.numbers[_MAX_ERRORS.name] else ""
        text = f"The database is damaged, {found}{limit}: {listed(errors, _SHOWN)}. Keep a copy, restore a backup."
        return _with_measures(failed("DAMAGED", text, FailureCategory.CORRUPT), after)

    def _statement(self, options: Options) -> str:
        return f"PRAGMA main.{self.name}({options.numbers[_MAX_ERRORS.name]})"


class IntegrityCheck(_PageCheck):
    """Check every page, every index entry and every constraint but foreign keys."""

    name = "integrity_check"
    description = "Check every page and index entry; foreign keys are another check."
    _caveat = ""


class QuickCheck(_PageCheck):
    """Check the pages' structure, far faster and far less."""

    name = "quick_check"
    description = "Check the pages' structure only; much faster than integrity_check."
    _caveat = " in the pages' structure; no certificate, index entries and uniqueness were not looked at"


class ForeignKeyCheck:
    """Look for rows whose parent is missing, whether or not enforcement is on."""

    name = "foreign_key_check"
    description = "Look for rows whose foreign key has no parent row."
    options = (BUSY_TIMEOUT,)

    def plan(self, _connection: apsw.Connection, _options: Options, /) -> tuple[str, ...]:
        """One pragma."""
        return ("PRAGMA main.foreign_key_check",)

    def run(self, session: Session, _before: Measures, /) -> Result:
        """Count the violations by table."""
        session.progress("check")
        sql = "SELECT \"table\", count(*) FROM pragma_foreign_key_check(NULL, 'main') GROUP BY 1 ORDER BY 1"
        found = Counter({str(table): int(str(number)) for table, number in session.rows(sql)})
        after = session.measures() | {"errors_found": float(found.total())}
        if not found:
            return completed(Verdict.EFFECTIVE, "checked, no violations.", after)
        tables = listed([f"{table} {number}" for table, number in found.most_common()])
        session.log("error", tables)
        text = f"{count(found.total(), 'row')} without the parent row of a foreign key: {tables}."
        return _with_measures(failed("FOREIGN_KEY_VIOLATIONS", text, FailureCategory.SCHEMA), after)


def _errors(rows: list[str]) -> list[str]:
    # One row may hold several errors, a line each, under a heading.
    lines = [line for row in rows for line in row.splitlines()]
    return [line for line in lines if line != "ok" and not line.startswith("*** in database")]


def _with_measures(result: Result, after: Measures) -> Result:
    return Result(outcome=Outcome.FAILED, reason=result.reason, failure=result.failure, after=after)
