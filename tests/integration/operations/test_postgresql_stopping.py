"""What another thread, another attempt or the end of the server does to an operation."""

import os
import random
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg.pq import PGconn

from tests.integration.operations.doubles import RecordingControl
from tests.integration.operations.postgres_ground import (
    CHILD,
    SNAPSHOT,
    Connection,
    Running,
    change,
    column,
    database,
    file_of,
    holding,
    invalid,
    plan,
    run,
    target,
    until,
    value,
)
from tests.postgres import PostgresServer, Stop
from worker_service.domain.errors import OperationCancelledError, TargetBusyError
from worker_service.domain.outcome import FailureCategory, Outcome, Verdict
from worker_service.operations.postgresql import PostgresqlEngine, former
from worker_service.operations.postgresql.exclusion import LOCK
from worker_service.operations.postgresql.progress import INDEX, View

OVERHAUL = """
SELECT count(*) FROM pg_stat_activity
WHERE application_name LIKE 'overhaul:%' AND datname = current_database()
"""
VACUUMED = "SELECT vacuum_count FROM pg_stat_user_tables WHERE relname = %s"
WAITED = "stopped while it waited for an earlier attempt, which still runs in the server; it did nothing itself."
CONTENT = "SELECT count(*) || md5(string_agg(a::text, ',' ORDER BY a)) FROM t"
INDEX_FILES = """
SELECT indexrelid::regclass::text || pg_relation_filenode(indexrelid) FROM pg_index
WHERE indrelid IN ('t'::regclass, 'u'::regclass)
"""
SLOWLY = "BEGIN PERFORM pg_sleep(0.002); RETURN $1; END"
SLOW = (
    f"CREATE FUNCTION slow(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS '{SLOWLY}'",
    "CREATE TABLE s (a int)",
    "INSERT INTO s SELECT generate_series(1, 400)",
)
"""A table whose index takes its time."""


@pytest.fixture
def url(postgres_url: str) -> str:
    change(
        postgres_url,
        "CREATE TABLE t (a int PRIMARY KEY)",
        "CREATE TABLE u (a int PRIMARY KEY)",
        "INSERT INTO t SELECT generate_series(1, 100)",
    )
    return postgres_url


class TestInterrupt:
    def test_a_statement_that_waits_is_cancelled_in_the_server(self, url: str) -> None:
        with holding(url, "LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE"):
            running = Running(url, "vacuum", "public.t", lock_timeout_ms=0)
            until(lambda: value(url, "SELECT count(*) FROM pg_locks WHERE NOT granted"))

            result = running.interrupt()

            assert value(url, OVERHAUL) == 0
        assert result.outcome is Outcome.CANCELLED
        assert value(url, "SELECT vacuum_count FROM pg_stat_all_tables WHERE relname = 't'") == 0

    def test_what_was_done_before_stays_and_is_told(self, url: str) -> None:
        with holding(url, "LOCK TABLE u IN SHARE UPDATE EXCLUSIVE MODE"):
            running = Running(url, "vacuum", lock_timeout_ms=0)
            until(lambda: value(url, "SELECT count(*) FROM pg_locks WHERE NOT granted"))

            result = running.interrupt()

        done = value(
            url,
            "SELECT count(*) FROM pg_stat_all_tables WHERE vacuum_count > 0 AND schemaname <> 'pg_toast' "
            "AND relid NOT IN (SELECT oid FROM pg_class WHERE relisshared)",
        )
        assert result.outcome is Outcome.CANCELLED
        assert result.after["tables_vacuumed"] >= done > 0
        assert f"stopped after it vacuumed {result.after['tables_vacuumed']:.0f} of" in result.reason

    def test_one_that_comes_before_anything_ran_changes_nothing(self, url: str) -> None:
        with pytest.raises(OperationCancelledError):
            run(url, "vacuum", control=RecordingControl(stop_at=1))

        assert value(url, "SELECT sum(vacuum_count) FROM pg_stat_user_tables") == 0

    def test_a_checkpoint_that_says_stop_ends_the_sweep(self, url: str) -> None:
        result = run(url, "reindex", control=RecordingControl(stop_at=3))

        assert result.outcome is Outcome.CANCELLED
        assert "rebuilt 1 of 2 indexes" in result.reason

    def test_one_without_an_operation_is_harmless(self, url: str) -> None:
        running = Running(url, "analyze", "public.t")
        result = running.result()

        running.worker.interrupt()

        assert result.verdict is Verdict.EFFECTIVE

    def test_an_administrators_cancel_is_a_failure(self, url: str) -> None:
        with holding(url, "LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE"):
            running = Running(url, "vacuum", "public.t", lock_timeout_ms=0)
            until(lambda: value(url, "SELECT count(*) FROM pg_locks WHERE NOT granted"))
            change(url, "SELECT pg_cancel_backend(pid) FROM pg_locks WHERE NOT granted")

            result = running.result()

        assert result.outcome is Outcome.FAILED
        assert result.failure is not None
        assert (result.failure.reason, result.failure.retryable) == ("QUERY_CANCELED", False)

    def test_the_server_ends_what_outlasts_the_timeout_by_itself(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("worker_service.operations.postgresql.prologue._BACKSTOP", timedelta(milliseconds=50))
        with holding(url, "LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE"):
            result = run(url, "vacuum", "public.t", lock_timeout_ms=0, timeout=timedelta(milliseconds=50))

        assert result.failure is not None
        assert result.failure.category is FailureCategory.TIMEOUT


class TestAnyMoment:
    def test_what_is_told_is_what_the_catalogues_say(self, url: str) -> None:
        change(
            url,
            "INSERT INTO t SELECT generate_series(101, 30000)",
            *(f"CREATE INDEX t{number} ON t ((a % {number}))" for number in range(2, 8)),
        )
        content = value(url, CONTENT)
        chance = random.Random(17)
        outcomes = set()
        for attempt in range(1, 13):
            before = set(column(url, INDEX_FILES))
            running = Running(url, "reindex", attempt=attempt)
            running.wait_until_it_has_begun()
            time.sleep(chance.uniform(0, 0.25))

            result = running.interrupt()

            outcomes.add(result.outcome)
            assert len(set(column(url, INDEX_FILES)) - before) == result.after["indexes_rebuilt"]
            assert (result.outcome is Outcome.COMPLETED) == (result.after["indexes_rebuilt"] == 8)
            assert invalid(url) == []
        assert Outcome.CANCELLED in outcomes
        assert value(url, CONTENT) == content


class TestDefaults:
    def test_those_of_role_and_database_do_not_hold(self, url: str) -> None:
        change(url, *SLOW, "CREATE INDEX si ON s (slow(a))")
        name = url.rpartition("/")[2]
        for setting in ("statement_timeout = 200", "lock_timeout = 1", "client_min_messages = error"):
            change(url, f"ALTER ROLE postgres IN DATABASE {name} SET {setting}")
        before = file_of(url, "si")

        result = run(url, "reindex", "public.si")

        assert result.verdict is Verdict.EFFECTIVE
        assert file_of(url, "si") != before

    def test_a_database_that_only_reads_is_maintained_all_the_same(self, url: str) -> None:
        change(url, f"ALTER DATABASE {url.rpartition('/')[2]} SET default_transaction_read_only = on")
        before = file_of(url, "t_pkey")

        results = [run(url, name) for name in ("vacuum", "analyze", "reindex")]

        assert [result.outcome for result in results] == [Outcome.COMPLETED] * 3
        assert file_of(url, "t_pkey") != before
        counts = "SELECT vacuum_count + analyze_count FROM pg_stat_all_tables WHERE relname = 't'"
        assert value(url, counts) == 2


class TestProgress:
    @pytest.fixture
    def slow(self, url: str, monkeypatch: pytest.MonkeyPatch) -> str:
        """Return a database with an index that takes its time, at which the engine looks often."""
        monkeypatch.setattr("worker_service.operations.postgresql.progress.INTERVAL", 0.05)
        change(url, *SLOW, "CREATE INDEX si ON s (slow(a))")
        return url

    def test_a_long_statement_is_told_by_the_servers_view(self, slow: str) -> None:
        control = RecordingControl()

        run(slow, "reindex", control=control)

        phases = {told.phase for told in control.progresses}
        assert "reindex 1 of 3, scanning table: public.si" in phases
        for phase in phases:
            done = [told.done for told in control.progresses if told.phase == phase and told.done is not None]
            assert done == sorted(done)
        assert all(told.done <= told.total for told in control.progresses if told.done is not None and told.total)

    def test_it_is_asked_of_the_server_that_works_where_the_url_names_several(self, slow: str) -> None:
        control = RecordingControl()
        port = slow.rpartition(":")[2].partition("/")[0]

        run(slow.replace(f"127.0.0.1:{port}", f"127.0.0.1:1,127.0.0.1:{port}"), "reindex", "public.si", control)

        assert any(told.phase == "reindex, scanning table: public.si" for told in control.progresses)

    def test_where_the_server_does_not_tell_the_operation_goes_on(
        self, slow: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        silent = View(relation="pg_stat_progress_nothing", read=INDEX.read)
        monkeypatch.setattr("worker_service.operations.postgresql.reindex.INDEX", silent)
        control = RecordingControl()

        result = run(slow, "reindex", control=control)

        assert result.verdict is Verdict.EFFECTIVE
        assert {told.phase for told in control.progresses} == {"reindex"}
        assert any("does not tell how far" in text for _, text in control.lines)


class TestLockInTheTarget:
    def test_nothing_runs_beside_an_operation_on_the_whole_database(self, url: str) -> None:
        with holding(url, "LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE"):
            running = Running(url, "vacuum", lock_timeout_ms=0)
            until(lambda: value(url, "SELECT count(*) FROM pg_locks WHERE NOT granted"))

            with pytest.raises(TargetBusyError, match=rf"Another operation.*overhaul:{CHILD}:1"):
                run(url, "analyze", "public.u", child="01993f00-0000-7000-8000-00000000000b")

            running.interrupt()
        assert value(url, "SELECT analyze_count FROM pg_stat_all_tables WHERE relname = 'u'") == 0

    def test_it_is_given_back(self, url: str) -> None:
        run(url, "analyze", "public.t")

        assert value(url, "SELECT pg_try_advisory_lock(%s, %s)", *LOCK)


class TestTheLocksEnd:
    """A server frees what a connection held only a moment after the connection has ended."""

    @pytest.fixture
    def slow(self, url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
        """Lend a database whose server takes no notice of the end of a connection."""
        unnoticed: list[Any] = []

        def leave_open(connection: Any) -> None:
            unnoticed.append(connection)

        with monkeypatch.context() as patched:
            patched.setattr(psycopg.Connection, "close", leave_open)
            yield url
        for connection in unnoticed:
            connection.close()

    def test_it_is_given_back_with_the_operation(self, slow: str) -> None:
        results = [
            run(slow, "analyze", subject, child=f"child-{subject}") for subject in ("public.t", None, "public.u")
        ]

        assert {one.outcome for one in results} == {Outcome.COMPLETED}

    def test_a_cancel_that_came_too_late_does_not_keep_it(
        self, slow: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        struck: list[object] = []
        execute = psycopg.Connection.execute

        def strike_the_first(self: Any, query: Any, *more: Any, **named: Any) -> Any:
            if "unlock" in str(query) and not struck:
                struck.append(query)
                raise psycopg.errors.QueryCanceled("canceling statement due to user request")
            return execute(self, query, *more, **named)

        monkeypatch.setattr(psycopg.Connection, "execute", strike_the_first)

        results = [run(slow, "analyze", child=f"child-{number}") for number in range(2)]

        assert struck
        assert {one.outcome for one in results} == {Outcome.COMPLETED}


LEFT_BEHIND = """
SELECT application_name FROM pg_stat_activity
WHERE application_name LIKE 'overhaul:%' AND datname = current_database()
"""
PROGRAM = """
import sys
from tests.integration.operations.postgres_ground import run
from worker_service.operations.postgresql import prologue
url, table, policy, child, prologue.WATCH_CLIENT = sys.argv[1:]
run(url, "vacuum", f"public.{table}", child=child, lock_timeout_ms=0, former_attempt=policy)
"""


def leave_a_zombie(
    url: str, table: str, *, policy: str = "cancel", child: str = CHILD, notices: str = "50s"
) -> None:
    """Kill a worker whose VACUUM waits for a lock, of which the server takes notice after a time, if it looks."""
    waits = f"SELECT count(*) FROM pg_locks WHERE relation = '{table}'::regclass AND NOT granted"
    worker = subprocess.Popen([sys.executable, "-c", PROGRAM, url, table, policy, child, notices])
    until(lambda: value(url, waits))
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()


class TestFormerAttempts:
    @pytest.fixture
    def zombie(self, url: str) -> Iterator[Connection]:
        """Leave the VACUUM of a killed worker in the server, where it waits for the lock of who is lent."""
        with holding(url, "LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE") as holder:
            leave_a_zombie(url, "t")
            assert value(url, OVERHAUL) == 1
            yield holder

    @pytest.mark.usefixtures("zombie")
    def test_what_a_killed_worker_left_running_is_ended_first(self, url: str) -> None:
        control = RecordingControl()

        result = run(url, "vacuum", "public.u", control=control, attempt=2)

        assert value(url, OVERHAUL) == 0
        assert result.outcome is Outcome.COMPLETED
        assert any("earlier attempt" in text and f"{CHILD}:1" in text for _, text in control.lines)
        assert value(url, VACUUMED, "t") == 0

    def test_by_policy_it_comes_to_its_end_first(self, url: str, zombie: Connection) -> None:
        running = Running(url, "vacuum", "public.u", attempt=2, former_attempt="wait")
        until(lambda: running.control.progresses)
        waited_for = value(
            url, "SELECT pid FROM pg_stat_activity WHERE application_name = %s", f"overhaul:{CHILD}:1"
        )
        assert (value(url, VACUUMED, "t"), value(url, VACUUMED, "u")) == (0, 0)

        zombie.rollback()
        result = running.result()

        assert result.verdict is Verdict.NO_EFFECT
        assert (value(url, VACUUMED, "t"), value(url, VACUUMED, "u")) == (1, 1)
        named = f"pid {waited_for} (overhaul:{CHILD}:1)"
        assert running.control.progresses[0].phase == f"waiting for an earlier attempt: {named}"
        told = f"Waiting for the end of what an earlier attempt left running: {named}."
        assert [text for _, text in running.control.lines if text.startswith("Waiting")] == [told]

    def test_one_that_is_waited_for_is_not_ended_by_the_server_itself(self, url: str) -> None:
        with holding(url, "LOCK TABLE t, u IN SHARE UPDATE EXCLUSIVE MODE"):
            leave_a_zombie(url, "t", policy="wait", notices="50ms")
            leave_a_zombie(url, "u", policy="cancel", child="other", notices="50ms")

            until(lambda: value(url, OVERHAUL) == 1)

            assert column(url, LEFT_BEHIND) == [f"overhaul:{CHILD}:1"]

    @pytest.mark.usefixtures("zombie")
    def test_a_stop_ends_the_wait_and_not_what_was_waited_for(self, url: str) -> None:
        running = Running(url, "vacuum", "public.u", attempt=2, former_attempt="wait")
        until(lambda: running.control.progresses)

        result = running.interrupt()

        assert result.outcome is Outcome.CANCELLED
        assert result.reason == WAITED
        assert value(url, OVERHAUL) == 1
        assert value(url, VACUUMED, "u") == 0

    @pytest.mark.usefixtures("zombie")
    def test_so_does_a_checkpoint(self, url: str) -> None:
        control = RecordingControl(stop_at=2)

        result = run(url, "vacuum", "public.u", control=control, attempt=2, former_attempt="wait")

        assert (result.outcome, result.reason) == (Outcome.CANCELLED, WAITED)
        assert value(url, OVERHAUL) == 1

    def test_one_that_does_not_end_keeps_the_target_busy(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("CANCEL_SECONDS", "TERMINATE_SECONDS"):
            monkeypatch.setattr(former, name, 0.1)
        for name in ("_CANCEL", "_TERMINATE"):
            monkeypatch.setattr(former, name, f"SELECT {former._SAME}")
        with psycopg.connect(url, application_name=f"overhaul:{CHILD}:1"), pytest.raises(TargetBusyError):
            run(url, "vacuum", "public.u", attempt=2)

    @pytest.mark.parametrize("policy", ["cancel", "wait"])
    def test_an_idle_one_is_terminated(self, url: str, monkeypatch: pytest.MonkeyPatch, policy: str) -> None:
        monkeypatch.setattr(former, "CANCEL_SECONDS", 0.1)
        with psycopg.connect(url, application_name=f"overhaul:{CHILD}:1") as idle:
            result = run(url, "vacuum", "public.u", attempt=2, former_attempt=policy)

            with pytest.raises(psycopg.OperationalError):
                idle.execute("SELECT 1")
        assert result.outcome is Outcome.COMPLETED

    def test_a_later_attempt_is_not_touched(self, url: str) -> None:
        with (
            psycopg.connect(url, application_name=f"overhaul:{CHILD}:3") as later,
            pytest.raises(TargetBusyError, match="Attempt 3 of this child job runs already"),
        ):
            run(url, "vacuum", "public.u", attempt=2)
        assert later.closed

    def test_another_childs_is_none_of_ours(self, url: str) -> None:
        with psycopg.connect(url, application_name="overhaul:somebody else:1") as other:
            assert run(url, "vacuum", "public.u").outcome is Outcome.COMPLETED

            assert other.execute("SELECT 1").fetchone() == (1,)


@pytest.fixture(scope="module")
def mortal() -> Iterator[PostgresServer]:
    """Lend a server that tests end."""
    with PostgresServer(settings={"wal_level": "logical", "max_prepared_transactions": "5"}) as server:
        yield server


@pytest.fixture
def mortal_url(mortal: PostgresServer) -> str:
    url = mortal.create_database()
    change(url, "CREATE TABLE t (a int PRIMARY KEY)", "INSERT INTO t SELECT generate_series(1, 100)")
    return url


DECODING = "pg_create_logical_replication_slot('kept', 'test_decoding')"


@contextmanager
def slot(url: str, made_by: str) -> Iterator[None]:
    change(url, f"SELECT {made_by}")
    try:
        yield
    finally:
        change(url, "SELECT pg_drop_replication_slot('kept')")


def as_owner(url: str) -> str:
    """Give the table to a role that sees nothing of others, and return the URL for it."""
    change(url, "CREATE ROLE tenant LOGIN", "ALTER TABLE t OWNER TO tenant")
    return url.replace("postgres@", "tenant@")


def say_what_a_standby_reads(url: str) -> None:
    """Tell the server over a slot's connection, as a standby does, that a query there began just now."""
    now, begin = column(url, "SELECT txid_current()")[0], value(url, "SELECT pg_current_wal_lsn()")
    standby = PGconn.connect(f"{url.rpartition('/')[0]}?replication=true".encode())
    standby.exec_(f"START_REPLICATION SLOT kept PHYSICAL {begin}".encode())
    standby.put_copy_data(b"h" + struct.pack(">qIIII", 0, now, 0, 0, 0))
    standby.flush()
    until(lambda: value(url, "SELECT xmin IS NOT NULL FROM pg_replication_slots WHERE slot_name = 'kept'"))
    standby.finish()
    until(lambda: value(url, "SELECT NOT active FROM pg_replication_slots WHERE slot_name = 'kept'"))


class TestServer:
    def test_its_end_is_a_failure_that_may_be_tried_again(self, mortal: PostgresServer, mortal_url: str) -> None:
        before = file_of(mortal_url, "t_pkey")
        with closing(psycopg.connect(mortal_url)) as reader:
            for statement in SNAPSHOT:
                reader.execute(statement.encode())
            running = Running(mortal_url, "reindex")
            until(
                lambda: value(
                    mortal_url, "SELECT count(*) FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting%'"
                )
            )
            mortal.restart(Stop.KILLED)

            result = running.result()

        assert result.failure is not None
        assert (result.failure.reason, result.failure.retryable) == ("CONNECTION_LOST", True)
        assert result.failure.message.endswith("What was done before stays.")
        assert (file_of(mortal_url, "t_pkey"), invalid(mortal_url)) == (before, ["t_pkey_ccnew"])
        assert run(mortal_url, "reindex", attempt=2).verdict is Verdict.EFFECTIVE
        assert (file_of(mortal_url, "t_pkey") != before, invalid(mortal_url)) == (True, [])

    def test_a_session_that_is_ended_is_the_same(self, mortal: PostgresServer, mortal_url: str) -> None:
        with holding(mortal_url, "LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE"):
            running = Running(mortal_url, "vacuum", "public.t", lock_timeout_ms=0)
            until(lambda: value(mortal_url, "SELECT count(*) FROM pg_locks WHERE NOT granted"))
            change(mortal_url, "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted")

            result = running.result()

        assert result.failure is not None
        assert result.failure.reason == "CONNECTION_LOST"

    def test_slots_and_prepared_transactions_are_named_as_what_keeps_rows(self, mortal_url: str) -> None:
        with database(mortal_url) as other:
            other.execute("BEGIN")
            other.execute("INSERT INTO t VALUES (1000)")
            other.execute("PREPARE TRANSACTION 'forgotten'")
            other.execute("SELECT pg_create_physical_replication_slot('unused')")
            change(mortal_url, "DELETE FROM t WHERE a < 1000")

            held = run(mortal_url, "vacuum", "public.t")

            other.execute("ROLLBACK PREPARED 'forgotten'")
            other.execute("SELECT pg_drop_replication_slot('unused')")
        assert held.verdict is Verdict.NO_EFFECT
        assert "prepared transaction 'forgotten' (user postgres, for " in held.reason
        assert run(mortal_url, "vacuum", "public.t").verdict is Verdict.EFFECTIVE

    @pytest.mark.parametrize("hidden", [False, True])
    def test_a_slot_for_decoding_keeps_no_rows_of_users(self, mortal_url: str, *, hidden: bool) -> None:
        seen_by = as_owner(mortal_url) if hidden else mortal_url
        change(mortal_url, "DELETE FROM t WHERE a < 20")
        with slot(mortal_url, DECODING), holding(mortal_url, *SNAPSHOT) as reader:
            pid = reader.info.backend_pid
            change(mortal_url, "DELETE FROM t WHERE a < 50")

            held = run(seen_by, "vacuum", "public.t")

            reader.rollback()
            after = run(seen_by, "vacuum", "public.t")
        assert held.verdict is (Verdict.EFFECTIVE if hidden else Verdict.PARTIALLY_EFFECTIVE)
        assert (f"session with pid {pid}" in held.reason) is not hidden
        assert "replication slot" not in held.reason
        assert after.verdict is Verdict.EFFECTIVE
        assert "removed 30 dead rows" in after.reason

    def test_a_slot_for_decoding_keeps_rows_of_the_catalogues(self, mortal_url: str) -> None:
        with slot(mortal_url, DECODING):
            change(mortal_url, "CREATE TABLE u (a int)", "DROP TABLE u")

            result = run(mortal_url, "vacuum", "pg_catalog.pg_class")

        assert "cannot be removed while older transactions may see them: replication slot 'kept'" in result.reason
        assert result.verdict in {Verdict.NO_EFFECT, Verdict.PARTIALLY_EFFECTIVE}
        assert run(mortal_url, "vacuum", "pg_catalog.pg_class").verdict is Verdict.EFFECTIVE

    def test_the_slot_of_a_standby_keeps_rows_of_users(self, mortal_url: str) -> None:
        with slot(mortal_url, "pg_create_physical_replication_slot('kept', true)"):
            say_what_a_standby_reads(mortal_url)
            change(mortal_url, "DELETE FROM t WHERE a < 50")

            result = run(mortal_url, "vacuum", "public.t")

        assert result.verdict is Verdict.NO_EFFECT
        assert "49 dead rows cannot be removed" in result.reason
        assert "replication slot 'kept' (inactive)" in result.reason

    def test_a_standby_is_told_and_left_alone(self, mortal: PostgresServer, mortal_url: str) -> None:
        identity = PostgresqlEngine().describe(target(mortal_url)).identity
        mortal.stop()
        signal_file = mortal.folder / "data" / "standby.signal"
        signal_file.touch()
        mortal.start()
        try:
            result = run(mortal_url, "vacuum")
            told = PostgresqlEngine().describe(target(mortal_url))
            statements = plan(mortal_url, "vacuum")
        finally:
            mortal.stop()
            signal_file.unlink()
            mortal.start()

        assert told.identity == identity
        assert any('"public"."t"' in statement for statement in statements)
        assert result.failure is not None
        assert (result.failure.reason, result.failure.retryable) == ("READ_ONLY", False)
        assert "target_session_attrs=read-write" in result.failure.message
