"""Connections to MariaDB serve one operation after the other, and none takes over what the one before left."""

import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.integration.operations.doubles import RecordingControl
from tests.integration.operations.mariadb_databases import Database
from worker_service.domain.operation import Operation
from worker_service.domain.outcome import Outcome, Result
from worker_service.operations import kept
from worker_service.operations.mariadb import MariadbEngine
from worker_service.operations.mariadb.address import Address
from worker_service.operations.mariadb.kept import Kept
from worker_service.operations.mariadb.target_lock import attempt_lock_name, place_names, table_lock_name

CONNECTED = "SELECT ID FROM information_schema.PROCESSLIST WHERE DB = %s AND ID <> CONNECTION_ID()"


@pytest.fixture
def engine() -> MariadbEngine:
    return MariadbEngine()


@pytest.fixture
def tables(database: Database) -> Database:
    for name in ("a", "b"):
        database.table(name, rows=3)
    return database


@pytest.fixture
def lender() -> Iterator[Kept]:
    made = Kept()
    yield made
    made.close()


def run(engine: MariadbEngine, database: Database, name: str, table: str | None = None, **options: Any) -> Result:
    wanted = Operation(name=name, target="app", object=table, options=options, child_job_id="child", attempt=1)
    return engine.worker(database.target(), RecordingControl()).execute(wanted)


def connected(database: Database) -> list[int]:
    with database.server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(CONNECTED, (database.name,))
        return [int(number) for (number,) in cursor.fetchall()]


def until(found: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not found():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.01)


def free_locks(database: Database, *names: str) -> int:
    return sum(row[0] for name in names for row in database.run(f"SELECT IS_FREE_LOCK('{name}')"))


class TestTheNextOperation:
    def test_has_the_connection_of_the_one_before(self, engine: MariadbEngine, tables: Database) -> None:
        numbers = []
        for name, table in (("vacuum", "a"), ("analyze", "b"), ("reindex", None), ("integrity_check", "a")):
            assert run(engine, tables, name, table).outcome is Outcome.COMPLETED
            numbers += connected(tables)

        assert len(numbers) == 4
        assert len(set(numbers)) == 1

    def test_finds_no_lock_of_the_one_before(self, engine: MariadbEngine, tables: Database) -> None:
        names = (
            *place_names(tables.name),
            table_lock_name(tables.name, "a"),
            attempt_lock_name("overhaul:child:1"),
        )
        held: list[int] = []
        control = RecordingControl()
        control.on_progress = lambda _: held.append(len(names) - free_locks(tables, *names))
        worker = engine.worker(tables.target(), control)
        worker.execute(Operation(name="vacuum", target="app", object="a", child_job_id="child", attempt=1))

        assert held[0] == 3, "a place, the table's and the attempt's"
        assert len(connected(tables)) == 1
        assert free_locks(tables, *names) == len(names)

    def test_goes_by_its_own_settings(self, engine: MariadbEngine, tables: Database) -> None:
        run(engine, tables, "vacuum", "a", lock_timeout_s="600")
        with tables.reader_of("a"):
            begin = time.monotonic()
            result = run(engine, tables, "vacuum", "a", lock_timeout_s="1")

        assert result.failure is not None
        assert time.monotonic() - begin < 60

    def test_has_its_own_when_two_run_at_once(self, lender: Kept, tables: Database) -> None:
        place = Address.of(tables.target())
        one, other = lender.lend(place), lender.lend(place)

        assert one.connection.number != other.connection.number
        for lent in (one, other):
            assert lender.take_back(lent)
        assert len(connected(tables)) == 2

    def test_goes_on_where_the_server_has_ended_it(self, engine: MariadbEngine, tables: Database) -> None:
        run(engine, tables, "vacuum", "a")
        [number] = connected(tables)
        tables.run(f"KILL {number}")
        until(lambda: not connected(tables))

        assert run(engine, tables, "vacuum", "a").outcome is Outcome.COMPLETED

    def test_goes_on_where_it_was_lost_without_a_word(
        self, engine: MariadbEngine, tables: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run(engine, tables, "vacuum", "a")
        [number] = connected(tables)
        tables.run(f"KILL {number}")
        until(lambda: not connected(tables))
        monkeypatch.setattr(kept, "_has_news", lambda _: False)

        assert run(engine, tables, "vacuum", "a").outcome is Outcome.COMPLETED


class TestWhatIsNotKept:
    def test_one_whose_operation_failed(self, engine: MariadbEngine, tables: Database) -> None:
        with tables.reader_of("a"):
            assert run(engine, tables, "vacuum", "a", lock_timeout_s="1").failure is not None

            until(lambda: len(connected(tables)) == 1)

    def test_one_that_was_kept_out_of_the_log_of_changes(self, engine: MariadbEngine, tables: Database) -> None:
        assert run(engine, tables, "vacuum", "a", binlog="false").outcome is Outcome.COMPLETED

        until(lambda: not connected(tables))

    def test_one_whose_operation_was_stopped(self, engine: MariadbEngine, tables: Database) -> None:
        control = RecordingControl()
        worker = engine.worker(tables.target(), control)
        control.on_progress = lambda _: worker.interrupt()

        result = worker.execute(Operation(name="vacuum", target="app", child_job_id="child", attempt=1))

        assert result.outcome is Outcome.CANCELLED
        until(lambda: not connected(tables))

    def test_one_that_has_ended(self, lender: Kept, tables: Database) -> None:
        lent = lender.lend(Address.of(tables.target()))
        lent.connection.close()

        assert not lender.take_back(lent)

    def test_any_once_the_engine_is_gone(self, tables: Database) -> None:
        run(MariadbEngine(), tables, "vacuum", "a")
        gc.collect()

        until(lambda: not connected(tables))
