"""How long an operation waited for others in the server, and who waited for it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from tests.integration.operations.doubles import RecordingControl
from tests.integration.operations.postgres_ground import PATIENCE, Running, change, holding, run, until, value
from worker_service.domain.outcome import Outcome
from worker_service.operations.postgresql import progress, waiting

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE %s"
SECRET = "hunter2"


@pytest.fixture
def url(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Lend a database with a table, and let samples be quick."""
    monkeypatch.setattr(progress, "INTERVAL", 0.05)
    change(postgres_url, "CREATE TABLE t (a int)", "INSERT INTO t SELECT generate_series(1, 100)")
    return postgres_url


@contextmanager
def reader(url: str, application: str) -> Iterator[None]:
    """Read the table in another thread until the block ends, and wait before it until it has to wait."""

    def read() -> None:
        with psycopg.connect(url, application_name=application, autocommit=True) as connection:
            connection.execute(f"SELECT count(*) FROM t WHERE '{SECRET}' <> '{application}'".encode())

    thread = threading.Thread(target=read)
    thread.start()
    until(lambda: value(url, WAITING, f"%'{application}'"))
    yield
    thread.join(PATIENCE)
    assert not thread.is_alive()


def seen(running: Running, measure: str) -> float:
    """Return what was seen so far of an operation that goes on."""
    session = vars(running.worker)["_session"]
    return float(session.waits.measures()[measure])


class TestLockWaits:
    def test_who_waits_for_it_and_for_whom_it_waits_are_told(self, url: str) -> None:
        with holding(url, "SELECT * FROM t") as holder:
            running = Running(url, "vacuum", "public.t", full=True)
            until(lambda: value(url, WAITING, "VACUUM%"))
            with reader(url, "billing"), reader(url, "cron"):
                until(lambda: seen(running, "blocking_seconds") > 0.2)
                holder.rollback()
        result = running.result()

        waiters = {one.application: one for one in result.waiters}
        assert result.outcome is Outcome.COMPLETED
        assert result.after["lock_wait_seconds"] > 0.1
        assert result.after["blocked_sessions"] == 2
        assert result.after["blocking_seconds"] == pytest.approx(
            sum(one.seconds for one in result.waiters), abs=0.01
        )
        assert waiters.keys() == {"billing", "cron"}
        assert {(one.object, one.lock_mode, one.sessions) for one in result.waiters} == {
            ("public.t", "AccessShareLock", 1)
        }
        assert all(one.user for one in result.waiters)
        told = "\n".join(line for _, line in running.control.lines)
        assert "kept others waiting: 2 sessions" in told
        assert "Waited for it: billing" in told
        assert SECRET not in told + repr(result)

    def test_others_that_wait_for_somebody_else_are_none_of_its(self, url: str) -> None:
        change(url, "CREATE TABLE u (a int)", "INSERT INTO u VALUES (1)")
        with holding(url, "SELECT * FROM u") as holder, holding(url, "LOCK TABLE t") as other:
            running = Running(url, "vacuum", "public.u", full=True)
            until(lambda: value(url, WAITING, "VACUUM%"))
            with reader(url, "billing"):
                until(lambda: seen(running, "lock_wait_seconds") > 0.2)
                holder.rollback()
                result = running.result()
                other.rollback()

        assert (result.after["blocking_seconds"], result.waiters) == (0.0, ())
        assert result.after["lock_wait_seconds"] > 0.2

    def test_a_quick_statement_costs_no_connection(
        self, postgres_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(progress, "INTERVAL", 3.0)
        monkeypatch.setattr(progress, "connect", None)
        change(postgres_url, "CREATE TABLE t (a int)", "INSERT INTO t VALUES (1)")

        result = run(postgres_url, "vacuum", "public.t")

        assert (result.outcome, result.after["blocking_seconds"]) == (Outcome.COMPLETED, 0.0)
        assert result.after["lock_sample_seconds"] == waiting.INTERVAL

    def test_where_nobody_can_look_nothing_is_said_to_be_0(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> None:
            raise psycopg.OperationalError("too many connections")

        monkeypatch.setattr(progress, "connect", refuse)
        control = RecordingControl()
        with holding(url, "LOCK TABLE t"):
            result = run(url, "vacuum", "public.t", control, lock_timeout_ms=300)

        assert not {"lock_wait_seconds", "blocking_seconds"} & result.after.keys()
        assert any("nor who waits: too many connections" in line for _, line in control.lines)


class TestSizes:
    def test_a_table_is_as_large_as_its_files(self, url: str) -> None:
        change(
            url,
            "CREATE INDEX ON t (a)",
            "INSERT INTO t SELECT generate_series(1, 50000)",
            "DELETE FROM t WHERE a > 9",
        )
        size = value(url, "SELECT pg_total_relation_size('t')")

        result = run(url, "vacuum", "public.t")

        assert result.before["size_bytes"] == size
        assert result.after["size_bytes"] == value(url, "SELECT pg_total_relation_size('t')")
        assert result.after["size_bytes"] < size

    def test_an_index_is_measured_by_itself(self, url: str) -> None:
        change(url, "CREATE INDEX i ON t (a)")

        result = run(url, "reindex", "public.i")

        assert result.after["size_bytes"] == value(url, "SELECT pg_relation_size('i')")

    def test_nobody_is_waited_for_to_measure_a_table(self, url: str) -> None:
        with holding(url, "LOCK TABLE t"):
            result = run(url, "vacuum", "public.t", skip_locked=True)

        assert "size_bytes" not in result.before
        assert "size_bytes" not in result.after
