from collections.abc import Mapping
from typing import Protocol

from worker_service.domain.inspection import Scope
from worker_service.domain.outcome import Failure, Measures, Outcome, Result, Verdict
from worker_service.operations.options import Option
from worker_service.operations.postgresql.catalog import Reader
from worker_service.operations.postgresql.inventory import Inventory
from worker_service.operations.postgresql.names import Name
from worker_service.operations.postgresql.options import Options
from worker_service.operations.postgresql.session import Session
from worker_service.operations.postgresql.wanted import Keeps, Wanted


class Procedure(Protocol):
    """How one operation is carried out on a PostgreSQL database, and how it is judged."""

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

    def check(self, options: Options, /) -> None:
        """Refuse options that exclude each other; raise ``InvalidOperationError``."""

    def plan(self, read: Reader, options: Options, subject: Name | None, /) -> tuple[str, ...]:
        """Tell the statements that would run, in order; nothing is changed."""

    def run(self, session: Session, subject: Name | None, /) -> Result:
        """Run the operation and read from the catalogues what it did.

        Raises:
            OperationCancelledError: it was stopped and nothing of it remains.
            psycopg.Error: the server refused it before anything was done.
        """


class Maintenance(Procedure, Protocol):
    """An operation that can be planned object by object."""

    @property
    def scope(self) -> Scope:
        """The narrowest that it is done to: an index, a table, or the whole database."""
        ...

    def refusal(self, read: Reader, version: int, options: Options, /) -> Failure | None:
        """Tell what it would fail with whatever it is done to; nothing where it may succeed."""
        ...

    def keeps(self, options: Options, /) -> Keeps:
        """Tell whom its statements keep out of a table."""
        ...

    def wanted(
        self, read: Reader, inventory: Inventory, options: Options, scope: Scope, /
    ) -> Mapping[int, Wanted]:
        """Tell by number what it would do to each table, or at scope index to each index.

        What it passes over is not among them. The server is asked no more for many objects than for one.
        """
        ...


def completed(verdict: Verdict, reason: str, before: Measures, after: Measures) -> Result:
    """Make the result of an operation that ran to its end."""
    return Result(outcome=Outcome.COMPLETED, verdict=verdict, reason=reason, before=before, after=after)


def skipped(reason: str, measures: Measures) -> Result:
    """Make the result of an operation that had nothing to do; the reason tells the measure."""
    return Result(outcome=Outcome.SKIPPED, reason=reason, before=measures, after=measures)


def cancelled(reason: str, before: Measures, after: Measures) -> Result:
    """Make the result of an operation that was stopped on its way."""
    return Result(outcome=Outcome.CANCELLED, reason=reason, before=before, after=after)
