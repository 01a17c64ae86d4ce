from typing import Protocol

import apsw

from worker_service.domain.outcome import Measures, Outcome, Result, Verdict
from worker_service.operations.sqlite.options import Option, Options
from worker_service.operations.sqlite.session import Session


class Procedure(Protocol):
    """How one operation is carried out on a SQLite file, and how it is judged."""

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

    def plan(self, connection: apsw.Connection, options: Options, /) -> tuple[str, ...]:
        """Tell the statements that would run, in order; ``connection`` only reads."""

    def run(self, session: Session, before: Measures, /) -> Result:
        """Run the operation and read from the file what it did; ``after`` holds the measures.

        Raises:
            OperationCancelledError: it was stopped and nothing of it remains.
            apsw.Error: SQLite refused a statement and nothing of the operation remains.
        """


def completed(verdict: Verdict, reason: str, after: Measures) -> Result:
    """Make the result of an operation that ran to its end."""
    return Result(outcome=Outcome.COMPLETED, verdict=verdict, reason=reason, after=after)


def skipped(reason: str, after: Measures) -> Result:
    """Make the result of an operation that had nothing to do; the reason tells the measure."""
    return Result(outcome=Outcome.SKIPPED, reason=reason, after=after)


def cancelled(reason: str, after: Measures) -> Result:
    """Make the result of an operation that was stopped on its way."""
    return Result(outcome=Outcome.CANCELLED, reason=reason, after=after)
