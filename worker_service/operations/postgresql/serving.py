"""What the engine does with the driver at hand."""

from typing import Any
from weakref import finalize

import psycopg

from worker_service.domain.errors import TargetUnavailableError
from worker_service.domain.operation import Operation
from worker_service.domain.ports import Control
from worker_service.domain.target import Target, TargetDescription
from worker_service.operations.postgresql import throttling
from worker_service.operations.postgresql.address import conninfo_of, looking
from worker_service.operations.postgresql.catalog import Reader
from worker_service.operations.postgresql.failures import failure_of
from worker_service.operations.postgresql.identity import identity_of, lock_on
from worker_service.operations.postgresql.kept import Kept, Place
from worker_service.operations.postgresql.operations import find, specs
from worker_service.operations.postgresql.worker import PostgresqlWorker

OLDEST = 140_000


class Serving:
    """Describes, plans and works on databases, and remembers which each one was when it was described."""

    def __init__(self) -> None:
        self._described: dict[str, str] = {}
        self._kept = Kept()
        # At the latest when the process ends.
        finalize(self, self._kept.close)

    def check(self, target: Target) -> None:
        """Check the form of the URL; whether the server answers shows when it is described."""
        conninfo_of(target.url)

    def describe(self, target: Target) -> TargetDescription:
        """Read the server's version and which database this is."""
        conninfo = conninfo_of(target.url)
        try:
            with looking(conninfo) as connection:
                version = connection.info.parameter_status("server_version") or ""
                _refuse_old(connection.info.server_version, version)
                identity = target.identity or identity_of(reader(connection))
        except psycopg.Error as error:
            raise TargetUnavailableError(failure_of(error).message) from error
        self._described[target.name] = identity
        return TargetDescription(
            engine_version=version.split(" ")[0], identity=identity, operations=specs(lock_on(identity))
        )

    def worker(self, target: Target, control: Control) -> PostgresqlWorker:
        """Make the worker of one lease; with an identity of its own the target may be another by then."""
        expected = None if target.identity else self._described.get(target.name)
        return PostgresqlWorker(
            place=Place(conninfo=conninfo_of(target.url), identity=target.identity),
            expected=expected,
            control=control,
            kept=self._kept,
        )

    def plan(self, target: Target, operation: Operation) -> tuple[str, ...]:
        """Tell the statements that would run on the database as it is."""
        procedure, options, subject = find(operation)
        try:
            with looking(conninfo_of(target.url)) as connection:
                return procedure.plan(reader(connection), options, subject)
        except psycopg.Error as error:
            raise TargetUnavailableError(failure_of(error).message) from error

    def held_back(self, target: Target, *, seconds: float) -> str:
        """Look at what the target's throttle asks for."""
        return throttling.held_back(target, seconds=seconds)


def reader(connection: psycopg.Connection[tuple[Any, ...]]) -> Reader:
    """Make what runs a query with its values and returns the rows."""

    def read(query: str, *values: object) -> list[tuple[Any, ...]]:
        return connection.execute(query.encode(), values or None).fetchall()

    return read


def _refuse_old(number: int, version: str) -> None:
    if number < OLDEST:
        raise TargetUnavailableError(f"PostgreSQL {version} is too old: Overhaul maintains 14 and later.")
