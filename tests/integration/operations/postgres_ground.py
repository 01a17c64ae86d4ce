"""Databases in a real server, the engine on them, and an eye on the catalogues that is not the engine's."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg

from tests.integration.operations.doubles import RecordingControl
from worker_service.domain.inspection import (
    INSPECT,
    InspectedObject,
    Inspection,
    InspectionResult,
    Scope,
    Selection,
    WantedOperation,
)
from worker_service.domain.operation import Operation
from worker_service.domain.outcome import Outcome, Result, Verdict
from worker_service.domain.ports import OperationWorker
from worker_service.domain.target import Target
from worker_service.operations.postgresql import PostgresqlEngine

CHILD = "01993f00-0000-7000-8000-00000000000a"
PATIENCE = 20.0
OWN = Selection(exclude=("pg_catalog.*", "information_schema.*", "pg_toast.*"))
Connection = psycopg.Connection[tuple[Any, ...]]


def target(url: str, identity: str | None = None) -> Target:
    return Target(name="app", url=url, engine="postgresql", identity=identity)


def operation(
    name: str,
    subject: str | None = None,
    *,
    child: str = CHILD,
    attempt: int = 1,
    timeout: timedelta | None = None,
    **options: object,
) -> Operation:
    given = {key: str(value).lower() for key, value in options.items()}
    return Operation(
        name=name,
        target="app",
        object=subject,
        options=given,
        child_job_id=child,
        attempt=attempt,
        timeout=timeout,
    )


def run(
    url: str, name: str, subject: str | None = None, control: RecordingControl | None = None, **more: Any
) -> Result:
    worker = PostgresqlEngine().worker(target(url), control or RecordingControl())
    return worker.execute(operation(name, subject, **more))


def plan(url: str, name: str, subject: str | None = None, **more: Any) -> tuple[str, ...]:
    return PostgresqlEngine().plan(target(url), operation(name, subject, **more))


def inspect(
    url: str,
    scope: Scope,
    *wanted: str | WantedOperation,
    selection: Selection = OWN,
    preview: bool = False,
    control: RecordingControl | None = None,
) -> InspectionResult:
    operations = tuple(WantedOperation(name=one) if isinstance(one, str) else one for one in wanted)
    asked = Inspection(scope=scope, operations=operations, selection=selection, preview=preview)
    worker = PostgresqlEngine().worker(target(url), control or RecordingControl())
    result = worker.execute(replace(operation(INSPECT), inspection=asked))
    assert (result.outcome, result.verdict) == (Outcome.COMPLETED, Verdict.EFFECTIVE), result
    assert result.inspection is not None
    return result.inspection


def by_name(found: InspectionResult) -> Mapping[str | None, InspectedObject]:
    assert len({one.object for one in found.objects}) == len(found.objects)
    return {one.object: one for one in found.objects}


def what(found: InspectionResult) -> dict[str | None, tuple[str, ...]]:
    return {one.object: one.operations for one in found.objects}


@contextmanager
def database(url: str) -> Iterator[Connection]:
    """Lend a connection of somebody else, who commits each statement."""
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


def change(url: str, *statements: str) -> None:
    """Run statements as somebody else, and have the server count them at once."""
    with database(url) as connection:
        for statement in statements:
            connection.execute(statement.encode())
        connection.execute("SELECT pg_stat_force_next_flush()")


def value(url: str, query: str, *values: object) -> Any:
    """Read one value as somebody else."""
    with database(url) as connection:
        row = connection.execute(query.encode(), values or None).fetchone()
        return row and row[0]


def column(url: str, query: str, *values: object) -> list[Any]:
    with database(url) as connection:
        return [row[0] for row in connection.execute(query.encode(), values or None)]


def file_of(url: str, relation: str) -> int:
    return int(value(url, "SELECT pg_relation_filenode(%s::regclass)", relation))


def is_valid(url: str, index: str) -> bool:
    return bool(value(url, "SELECT indisvalid FROM pg_index WHERE indexrelid = %s::regclass", index))


def invalid(url: str) -> list[str]:
    return column(url, "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid ORDER BY 1")


def until(true: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


class Running:
    """An operation in a thread of its own, as a worker runs it, that can be interrupted as a worker does."""

    def __init__(self, url: str, name: str, subject: str | None = None, **more: Any) -> None:
        self.control = RecordingControl()
        self.worker: OperationWorker = PostgresqlEngine().worker(target(url), self.control)
        self._results: list[Result | Exception] = []
        self._operation = operation(name, subject, **more)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def wait_until_it_has_begun(self) -> None:
        """Wait for the first word of how far it is."""
        until(lambda: self.control.progresses)

    def result(self) -> Result:
        """Wait for its end."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "it does not end"
        ended = self._results[0]
        if isinstance(ended, Exception):
            raise ended
        return ended

    def interrupt(self) -> Result:
        """Interrupt it until it is out."""
        while self._thread.is_alive():
            self.worker.interrupt()
            self._thread.join(0.1)
        return self.result()

    def _run(self) -> None:
        try:
            self._results.append(self.worker.execute(self._operation))
        except Exception as error:  # noqa: BLE001 - handed to the test
            self._results.append(error)


@contextmanager
def holding(url: str, *statements: str) -> Iterator[Connection]:
    """Leave a transaction open that has run the statements."""
    with psycopg.connect(url) as connection:
        for statement in statements:
            connection.execute(statement.encode())
        yield connection
        connection.rollback()


SNAPSHOT = ("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SELECT count(*) FROM pg_class")
"""What keeps rows from being removed: a transaction with a snapshot, on a table that has nothing to do with it."""
