"""Connections to PostgreSQL serve one operation after the other, and none takes over what the one before left."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.integration.operations.doubles import RecordingControl
from tests.integration.operations.postgres_ground import change, column, operation, target, until, value
from worker_service.domain.inspection import Inspection, Scope, WantedOperation
from worker_service.domain.outcome import Outcome, Result
from worker_service.operations import kept
from worker_service.operations.postgresql import PostgresqlEngine, serving
from worker_service.operations.postgresql.address import conninfo_of
from worker_service.operations.postgresql.kept import Kept, Place

IDLE = """
SELECT pid FROM pg_stat_activity
WHERE application_name = 'overhaul' AND datname = current_database() AND state = 'idle'
"""
OURS = """
SELECT count(*) FROM pg_stat_activity
WHERE application_name LIKE 'overhaul%' AND datname = current_database()
"""


@pytest.fixture
def url(postgres_url: str) -> str:
    change(postgres_url, "CREATE TABLE t (a int PRIMARY KEY)")
    return postgres_url


@pytest.fixture
def engine() -> PostgresqlEngine:
    return PostgresqlEngine()


@pytest.fixture
def lender() -> Iterator[Kept]:
    made = Kept()
    yield made
    made.close()


def at(url: str) -> Place:
    return Place(conninfo=conninfo_of(url))


def run(engine: PostgresqlEngine, url: str, name: str, subject: str | None = None, **options: Any) -> Result:
    return engine.worker(target(url), RecordingControl()).execute(operation(name, subject, **options))


class TestTheNextOperation:
    def test_has_the_connection_of_the_one_before(self, engine: PostgresqlEngine, url: str) -> None:
        pids = []
        for name in ("vacuum", "analyze", "reindex"):
            assert run(engine, url, name, "public.t").outcome is Outcome.COMPLETED
            pids += column(url, IDLE)

        assert len(pids) == 3
        assert len(set(pids)) == 1

    def test_has_it_again_and_again_with_what_was_prepared(self, engine: PostgresqlEngine, url: str) -> None:
        pids = set()
        for _ in range(8):
            run(engine, url, "analyze", "public.t")
            pids.update(column(url, IDLE))

        assert len(pids) == 1

    def test_finds_no_lock_and_no_setting_of_the_one_before(self, lender: Kept, url: str) -> None:
        lent = lender.lend(at(url))
        lent.connection.execute("SET vacuum_cost_delay = 7")
        lent.connection.execute("SELECT pg_advisory_lock(1)")
        lender.take_back(lent)

        with lender.lend(at(url)).connection as again:
            assert again is lent.connection
            assert again.execute("SHOW vacuum_cost_delay").fetchone() == ("0",)
            assert again.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone() == (0,)

    def test_has_its_own_when_two_run_at_once(self, lender: Kept, url: str) -> None:
        one, other = lender.lend(at(url)), lender.lend(at(url))

        assert one.connection is not other.connection
        for lent in (one, other):
            lender.take_back(lent)
        assert len(column(url, IDLE)) == 2

    def test_on_another_database_has_another(self, lender: Kept, url: str, engine: PostgresqlEngine) -> None:
        lender.take_back(lender.lend(at(url)))

        other = lender.lend(at(url.rpartition("/")[0] + "/postgres"))

        assert other.connection.info.dbname == "postgres"
        other.connection.close()

    def test_goes_on_where_the_server_has_ended_it(self, engine: PostgresqlEngine, url: str) -> None:
        run(engine, url, "vacuum", "public.t")
        value(url, f"SELECT pg_terminate_backend(pid, 5000) FROM ({IDLE}) AS idle")

        assert run(engine, url, "vacuum", "public.t").outcome is Outcome.COMPLETED

    def test_goes_on_where_it_was_lost_without_a_word(
        self, engine: PostgresqlEngine, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run(engine, url, "vacuum", "public.t")
        value(url, f"SELECT pg_terminate_backend(pid, 5000) FROM ({IDLE}) AS idle")
        monkeypatch.setattr(kept, "_has_news", lambda _: False)

        assert run(engine, url, "vacuum", "public.t").outcome is Outcome.COMPLETED

    def test_that_the_server_refuses_is_told_why(
        self, engine: PostgresqlEngine, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run(engine, url, "vacuum", "public.t")
        value(url, f"SELECT pg_terminate_backend(pid, 5000) FROM ({IDLE}) AS idle")
        gone = {**conninfo_of(url), "dbname": "gone"}
        monkeypatch.setattr(serving, "conninfo_of", lambda _: gone)

        result = run(engine, url, "vacuum", "public.t")

        assert result.failure is not None
        assert "gone" in result.failure.message


class TestTwoNamesOfOneDatabase:
    """One of them states which database it is, so that the two are to be taken for two."""

    def test_the_plain_one_is_not_taken_for_another_database(self, engine: PostgresqlEngine, url: str) -> None:
        plain, stated = target(url), replace(target(url, identity="elsewhere"), name="stall")
        for name in (plain, stated):
            engine.describe(name)

        results = [
            engine.worker(name, RecordingControl()).execute(operation("analyze", "public.t"))
            for name in (stated, plain, stated, plain)
        ]

        assert [(one.outcome, one.failure) for one in results] == [(Outcome.COMPLETED, None)] * 4

    def test_the_keys_that_each_finds_are_its_own(self, engine: PostgresqlEngine, url: str) -> None:
        plain, stated = target(url), replace(target(url, identity="elsewhere"), name="stall")
        own = {name.name: engine.describe(name).identity for name in (plain, stated)}
        inspection = Inspection(scope=Scope.TABLE, operations=(WantedOperation(name="vacuum"),))
        wanted = replace(operation("inspect"), inspection=inspection)

        found = [engine.worker(name, RecordingControl()).execute(wanted) for name in (plain, stated, plain)]

        keys = [{lock.key for lock in one.inspection.locks} for one in found if one.inspection]
        assert keys == [{own["app"]}, {"postgresql:elsewhere"}, {own["app"]}]


class TestWhatIsNotKept:
    def test_one_that_nobody_wants_for_a_while(self, url: str) -> None:
        lender = Kept(idle_seconds=0.05)
        lender.take_back(lender.lend(at(url)))
        old = lender.lend(at(url))
        lender.take_back(lender.lend(at(url)))
        lender.take_back(old)

        until(lambda: value(url, OURS) == 0)

    def test_one_within_a_transaction(self, lender: Kept, url: str) -> None:
        lent = lender.lend(at(url))
        lent.connection.autocommit = False
        lent.connection.execute("SELECT 1")

        assert not lender.take_back(lent)
        lent.connection.close()

    def test_one_that_was_used_often(self, lender: Kept, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(kept, "_MOST_USES", 2)
        pids = set()
        for _ in range(4):
            lent = lender.lend(at(url))
            pids.add(lent.connection.info.backend_pid)
            lender.take_back(lent)

        assert len(pids) == 2

    def test_any_once_the_engine_is_gone(self, url: str) -> None:
        run(PostgresqlEngine(), url, "vacuum", "public.t")

        until(lambda: value(url, OURS) == 0)

    def test_one_whose_operation_was_stopped(self, engine: PostgresqlEngine, url: str) -> None:
        control = RecordingControl()
        worker = engine.worker(target(url), control)
        control.on_progress = lambda _: worker.interrupt()

        assert worker.execute(operation("vacuum", "public.t")).outcome is Outcome.CANCELLED
        assert column(url, IDLE) == []
