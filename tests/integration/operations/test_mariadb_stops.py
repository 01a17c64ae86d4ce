"""Statements that are stopped, killed, outlived by their worker or by the server, and what is told of each."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pymysql
import pytest

from tests.integration.operations.doubles import RecordingControl
from tests.integration.operations.mariadb_databases import ROLE, Database, failure, logged
from tests.lodgings import HOST
from tests.mariadb import MariadbServer
from worker_service.domain.errors import TargetBusyError
from worker_service.domain.operation import Operation
from worker_service.domain.outcome import FailureCategory, Outcome, Result, Verdict
from worker_service.operations.mariadb import MariadbEngine, former, watching
from worker_service.operations.mariadb.connection import Connection, Row, ServerError
from worker_service.operations.mariadb.target_lock import attempt_lock_name

ROOT = Path(__file__).parents[3]
_PATIENCE = 20.0
WAITED = "stopped while it waited for an earlier attempt, which still runs in the server; it did nothing itself."
_WORKER = """
import sys
from worker_service.domain.operation import Operation
from worker_service.domain.target import Target
from worker_service.operations.mariadb import MariadbEngine
from tests.integration.operations.doubles import RecordingControl
target = Target(name="app", url=sys.stdin.readline().strip(), engine="mariadb")
wanted = Operation(name="vacuum", target="app", options={"lock_timeout_s": "600"}, child_job_id="child", attempt=1)
MariadbEngine().worker(target, RecordingControl()).execute(wanted)
"""


@pytest.fixture
def held(database: Database) -> Iterator[Database]:
    """Lend a database with a table that no rebuild gets at, because a transaction has read it."""
    database.table("held", rows=10)
    with database.reader_of("held"):
        yield database


@pytest.fixture(scope="module")
def big(mariadb: MariadbServer) -> Iterator[Database]:
    """Lend a database whose table takes a while to check."""
    big = Database(server=mariadb, name=mariadb.create_database())
    big.run(
        "CREATE TABLE big (id INT PRIMARY KEY, a INT, b INT, KEY (a), KEY (b))",
        "INSERT INTO big SELECT seq, seq, seq FROM seq_1_to_200000",
    )
    yield big
    mariadb.drop_database(big.name)


def running(database: Database, words: str) -> list[int]:
    """Return the connections that run a statement of ours with these words in it."""
    sql = "SELECT ID FROM information_schema.PROCESSLIST WHERE INFO LIKE %s"
    with database.server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(sql, (f"/* overhaul:%{words}%",))
        return [int(number) for (number,) in cursor.fetchall()]


def wait_for(found: Callable[[], object]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not found():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.002)


def beside(
    database: Database, act: Callable[[], object], maintain: Callable[[], Result], words: str = "TABLE"
) -> Result:
    """Maintain in this thread, and act in another as soon as a statement with these words runs."""

    def wait_and_act() -> None:
        wait_for(lambda: running(database, words))
        act()

    other = threading.Thread(target=wait_and_act)
    other.start()
    try:
        return maintain()
    finally:
        other.join()


class TestInterrupt:
    @pytest.mark.parametrize("operation", ["vacuum", "reindex"])
    def test_it_stops_the_statement_in_the_server(self, held: Database, operation: str) -> None:
        worker, before = held.worker(), held.spaces()
        wanted = Operation(name=operation, target="app", options={"lock_timeout_s": "600"})

        result = beside(held, worker.interrupt, lambda: worker.execute(wanted))

        assert result.outcome is Outcome.CANCELLED
        assert result.reason == "stopped after it rebuilt 0 of 1 table."
        assert result.after["file_bytes"] == result.before["file_bytes"]
        assert running(held, "TABLE") == []
        assert held.spaces() == before

    @pytest.mark.parametrize("engine", ["MyISAM", "Aria"])
    def test_a_repair_that_would_leave_a_damaged_table_comes_to_its_end(
        self, database: Database, engine: str
    ) -> None:
        database.table("big", rows=150_000, kept=2, engine=engine)
        worker = database.worker()
        wanted = Operation(name="vacuum", target="app")

        beside(database, worker.interrupt, lambda: worker.execute(wanted))

        checked = database.run("CHECK TABLE big")
        assert [row[3] for row in checked] == ["OK"]
        assert database.run("SELECT COUNT(*) FROM big") == [(75_000,)]

    def test_what_was_done_before_is_told(self, database: Database) -> None:
        for name in ("a", "b_held", "c"):
            database.table(name, rows=10)
        worker, before = database.worker(), database.spaces()
        wanted = Operation(name="vacuum", target="app", options={"lock_timeout_s": "600"})

        with database.reader_of("b_held"):
            result = beside(database, worker.interrupt, lambda: worker.execute(wanted), words="b_held")

        after = database.spaces()
        assert result.outcome is Outcome.CANCELLED
        assert result.reason == "stopped after it rebuilt 1 of 3 tables."
        assert after["a"] != before["a"]
        assert (after["b_held"], after["c"]) == (before["b_held"], before["c"])

    def test_a_check_that_was_stopped_is_not_taken_for_a_sound_table(self, big: Database) -> None:
        worker = big.worker()
        wanted = Operation(name="integrity_check", target="app", options={"depth": "extended"})

        result = beside(big, worker.interrupt, lambda: worker.execute(wanted))

        assert result.outcome is Outcome.CANCELLED
        assert result.after["tables_checked"] == 0

    def test_it_may_come_at_any_time(self, database: Database) -> None:
        for name in ("a", "b", "c"):
            database.table(name, rows=300)
        rows, worker, ended = database.checksums("a", "b", "c"), database.worker(), threading.Event()

        def interrupt(pause: float) -> None:
            while not ended.wait(pause):
                worker.interrupt()

        results = []
        for pause in (0.0005, 0.004, 0.01, 0.02):
            ended.clear()
            thread = threading.Thread(target=interrupt, args=(pause,))
            thread.start()
            results += [
                worker.execute(Operation(name=name, target="app"))
                for name in ("vacuum", "analyze", "reindex", "integrity_check")
            ]
            ended.set()
            thread.join()

        assert {result.outcome for result in results} <= {Outcome.CANCELLED, Outcome.COMPLETED}
        assert database.checksums("a", "b", "c") == rows
        assert database.maintain("integrity_check").verdict is Verdict.EFFECTIVE

    def test_it_is_harmless_when_nothing_runs(self, database: Database) -> None:
        worker = database.worker()
        worker.interrupt()
        database.table("item", rows=3)

        assert worker.execute(Operation(name="analyze", target="app")).outcome is Outcome.COMPLETED
        worker.interrupt()

    def test_a_stop_between_two_tables_is_heeded(self, database: Database) -> None:
        for name in ("a", "b"):
            database.table(name, rows=3)

        result = database.maintain("analyze", RecordingControl(stop_at=3))

        assert result.outcome is Outcome.CANCELLED
        assert result.reason == "stopped after it analysed 1 of 2 tables."

    def test_a_stop_before_the_first_leaves_all_as_it_was(self, database: Database) -> None:
        database.table("a", rows=3)
        before = database.spaces()

        result = database.maintain("reindex", RecordingControl(stop_at=2))

        assert result.outcome is Outcome.CANCELLED
        assert database.spaces() == before


class TestForeignKills:
    def test_a_check_that_is_killed_each_time_is_unknown(self, big: Database) -> None:
        ended = threading.Event()

        def assassin() -> None:
            while not ended.is_set():
                for number in running(big, "CHECK"):
                    big.run(f"KILL QUERY {number}")

        thread = threading.Thread(target=assassin)
        thread.start()
        try:
            result = big.maintain("integrity_check", depth="extended")
        finally:
            ended.set()
            thread.join()

        assert result.verdict is Verdict.UNKNOWN
        assert "a check that is killed says OK" in result.reason

    def test_a_check_that_is_killed_once_is_run_once_more(self, big: Database) -> None:
        result = beside(
            big,
            lambda: [big.run(f"KILL QUERY {number}") for number in running(big, "CHECK")],
            lambda: big.maintain("integrity_check", depth="extended"),
        )

        assert result.verdict is Verdict.EFFECTIVE

    def test_a_killed_rebuild_has_failed_and_may_be_tried_again(self, held: Database) -> None:
        before = held.spaces()

        result = beside(
            held,
            lambda: [held.run(f"KILL QUERY {number}") for number in running(held, "OPTIMIZE")],
            lambda: held.maintain("vacuum", lock_timeout_s=600),
        )

        assert failure(result).reason == "ER_QUERY_INTERRUPTED"
        assert failure(result).retryable
        assert held.spaces() == before

    def test_a_cut_connection_is_unavailable(self, held: Database) -> None:
        result = beside(
            held,
            lambda: [held.run(f"KILL {number}") for number in running(held, "OPTIMIZE")],
            lambda: held.maintain("vacuum", lock_timeout_s=600),
        )

        assert failure(result).category is FailureCategory.UNAVAILABLE
        assert failure(result).retryable
        assert "It rebuilt 0 of 1 table" in result.reason


class TestTimeLimits:
    def test_the_server_ends_a_rebuild_by_itself(self, held: Database) -> None:
        before = held.spaces()

        result = held.maintain("vacuum", timeout=timedelta(seconds=0.2), lock_timeout_s=600)

        assert failure(result).category is FailureCategory.TIMEOUT
        assert held.spaces() == before

    def test_a_limit_of_the_role_does_not_cut_a_check_short(self, big: Database) -> None:
        url = big.role("SELECT")
        big.run(f"ALTER USER {ROLE}@'{HOST}' WITH MAX_STATEMENT_TIME 0.1")

        result = big.maintain("integrity_check", url=url, depth="extended")

        assert result.verdict is Verdict.EFFECTIVE
        assert result.after["tables_checked"] == 1

    def test_a_check_that_met_its_limit_is_not_believed(self, big: Database) -> None:
        result = big.maintain("integrity_check", timeout=timedelta(seconds=0.002))

        assert failure(result).category is FailureCategory.TIMEOUT
        assert result.after["tables_checked"] == 0


class TestServerDeath:
    def test_it_is_told_and_the_next_attempt_goes_on(self, database: Database) -> None:
        database.table("held", rows=500)
        rows = database.checksums("held")
        reader = database.reader_of("held")
        reader.__enter__()

        result = beside(
            database, database.server.kill, lambda: database.maintain("vacuum", child="c", lock_timeout_s=600)
        )
        with pytest.raises(pymysql.MySQLError):
            reader.__exit__(None, None, None)
        database.server.start()
        again = database.maintain("vacuum", child="c", attempt=2)

        assert failure(result).category is FailureCategory.UNAVAILABLE
        assert failure(result).retryable
        assert again.outcome is Outcome.COMPLETED
        assert database.checksums("held") == rows

    def test_in_the_middle_of_a_copy_it_leaves_the_rows_and_no_file(self, big: Database) -> None:
        rows = big.checksums("big")
        files = sorted(path.name for path in (big.server.data / big.name).iterdir())

        result = beside(big, big.server.kill, lambda: big.maintain("vacuum"), words="OPTIMIZE")
        big.server.start()

        assert failure(result).category is FailureCategory.UNAVAILABLE
        assert big.checksums("big") == rows
        assert sorted(path.name for path in (big.server.data / big.name).iterdir()) == files
        assert big.maintain("integrity_check").verdict is Verdict.EFFECTIVE

    def test_a_table_whose_file_was_lost_is_damaged(self, database: Database) -> None:
        database.table("lost", rows=3)
        database.table("sound", rows=3)
        database.server.stop()
        (database.server.data / database.name / "lost.ibd").unlink()
        database.server.start()

        checked = database.maintain("integrity_check")
        rebuilt = database.maintain("vacuum")

        assert failure(checked).category is FailureCategory.CORRUPT
        assert checked.after["errors_found"] == 1
        assert rebuilt.verdict is Verdict.PARTIALLY_EFFECTIVE
        assert rebuilt.reason.startswith("rebuilt 1 of 2 tables; failed: lost: ")
        database.run("DROP TABLE lost")


class TestDamage:
    @pytest.mark.parametrize(("engine", "suffix"), [("MyISAM", "MYI"), ("Aria", "MAI")])
    def test_a_truncated_file_is_found(self, database: Database, engine: str, suffix: str) -> None:
        database.table("item", rows=3_000, engine=engine)
        database.run("FLUSH TABLES item")
        path = database.server.data / database.name / f"item.{suffix}"
        os.truncate(path, path.stat().st_size // 2)

        MariadbEngine().plan(database.target(), Operation(name="vacuum", target="app"))
        result = database.maintain("integrity_check")

        assert failure(result).reason == "DAMAGED"
        again = database.maintain("integrity_check")
        assert failure(again).reason == "DAMAGED", "looking has made the server repair it"
        assert failure(result).category is FailureCategory.CORRUPT
        assert result.after["errors_found"] == 1


def leave_a_zombie(database: Database) -> int:
    """Kill a worker whose rebuild waits for a table, and return the number of the connection that still does."""
    worker = subprocess.Popen([sys.executable, "-c", _WORKER], cwd=ROOT, stdin=subprocess.PIPE, text=True)
    assert worker.stdin is not None
    worker.stdin.write(f"{database.server.url(database.name)}\n")
    worker.stdin.flush()
    wait_for(lambda: running(database, "child:1 */ OPTIMIZE"))
    worker.send_signal(signal.SIGKILL)
    worker.communicate()
    [number] = running(database, "child:1 */ OPTIMIZE")
    return number


class TestZombies:
    @pytest.fixture
    def zombie(self, held: Database) -> int:
        """Leave the statement of a worker that was killed running in the server."""
        return leave_a_zombie(held)

    def test_the_next_attempt_ends_it_before_it_begins(self, held: Database, zombie: int) -> None:
        control = RecordingControl()

        result = held.maintain("vacuum", control, child="child", attempt=2, lock_timeout_s=1)

        assert failure(result).category is FailureCategory.LOCKED
        assert f"Ended what an earlier attempt left running (connections [{zombie}])" in logged(control)
        assert running(held, "child:1") == []

    def test_by_policy_it_comes_to_its_end_first(self, database: Database) -> None:
        database.table("held", rows=10)
        before, control = database.spaces(), RecordingControl()

        def analyze() -> Result:
            return database.maintain("analyze", control, child="child", attempt=2, former_attempt="wait")

        with ThreadPoolExecutor(1) as threads:
            with database.reader_of("held"):
                zombie = leave_a_zombie(database)
                analyzed = threads.submit(analyze)
                wait_for(lambda: control.progresses)
                assert (running(database, "child"), database.spaces()) == ([zombie], before)
            result = analyzed.result(_PATIENCE)

        assert result.verdict is Verdict.EFFECTIVE
        assert database.spaces() != before
        named = f"connection {zombie} (attempt 1)"
        assert control.progresses[0].phase == f"waiting for an earlier attempt: {named}"
        told = f"Waiting for the end of what an earlier attempt left running: {named}."
        assert [line for line in logged(control).splitlines() if line.startswith("Waiting")] == [told]

    def test_a_stop_ends_the_wait_and_not_what_was_waited_for(self, held: Database, zombie: int) -> None:
        control = RecordingControl()
        worker, before = held.worker(control), held.spaces()
        options = {"former_attempt": "wait"}
        wanted = Operation(name="vacuum", target="app", options=options, child_job_id="child", attempt=2)
        control.on_progress = lambda _: worker.interrupt()

        result = worker.execute(wanted)

        assert (result.outcome, result.reason) == (Outcome.CANCELLED, WAITED)
        assert (running(held, "child"), held.spaces()) == ([zombie], before)
        held.run(f"KILL {zombie}")

    def test_so_does_a_checkpoint(self, held: Database, zombie: int) -> None:
        result = held.maintain(
            "vacuum", RecordingControl(stop_at=2), child="child", attempt=2, former_attempt="wait"
        )

        assert (result.outcome, result.reason) == (Outcome.CANCELLED, WAITED)
        assert running(held, "child") == [zombie]
        held.run(f"KILL {zombie}")

    def test_any_other_operation_finds_the_database_busy(self, held: Database, zombie: int) -> None:
        with pytest.raises(TargetBusyError, match=rf"holds the database .* \(connection {zombie}\)"):
            held.maintain("analyze", child="other", attempt=1)

        held.run(f"KILL {zombie}")
        wait_for(lambda: not running(held, "child:1"))
        assert held.maintain("analyze", child="other", attempt=2).outcome is Outcome.COMPLETED

    def test_the_same_attempt_once_more_ends_nothing(self, held: Database, zombie: int) -> None:
        with pytest.raises(TargetBusyError, match="holds the database"):
            held.maintain("vacuum", child="child", attempt=1)

        assert running(held, "child:1") == [zombie]
        held.run(f"KILL {zombie}")

    def test_an_attempt_that_is_late_ends_no_later_one(self, database: Database) -> None:
        database.table("item", rows=3)

        def work() -> None:
            with suppress(pymysql.MySQLError):
                database.run("/* overhaul:child:3 */ SELECT SLEEP(600)")

        later = threading.Thread(target=work)
        later.start()
        wait_for(lambda: running(database, "child:3"))
        try:
            with pytest.raises(TargetBusyError, match="not an earlier one"):
                database.maintain("vacuum", child="child", attempt=2)
            [number] = running(database, "child:3")
        finally:
            database.run(*(f"KILL QUERY {number}" for number in running(database, "child:3")))
            later.join()

        assert number

    def test_one_that_the_role_may_not_end_keeps_it_off(
        self, held: Database, zombie: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(former, "_PATIENCE", 0.2)
        url = held.role("SELECT, INSERT", "PROCESS ON *.*")

        with pytest.raises(TargetBusyError, match=rf"connection {zombie}\) and does not end"):
            held.maintain("vacuum", child="child", attempt=2, url=url)

        assert running(held, "child:1") == [zombie]
        held.run(f"KILL {zombie}")

    def test_a_stop_is_heard_while_one_does_not_end(self, database: Database) -> None:
        database.table("item", rows=3)
        worker = database.worker(url=database.role("SELECT, INSERT", "PROCESS ON *.*"))
        wanted = Operation(name="vacuum", target="app", child_job_id="child", attempt=2)
        with database.server.connect(database.name) as stays, stays.cursor() as cursor:
            cursor.execute("SELECT GET_LOCK(%s, 0)", (attempt_lock_name("overhaul:child:1"),))
            cursor.fetchall()
            stopper = threading.Timer(0.5, worker.interrupt)
            stopper.start()

            result = worker.execute(wanted)

        assert result.outcome is Outcome.CANCELLED
        assert result.reason.startswith("stopped while it waited for an earlier attempt")

    def test_one_that_waits_between_two_statements_is_found_by_its_lock(self, database: Database) -> None:
        database.table("item", rows=3)
        with database.server.connect(database.name) as idle, idle.cursor() as cursor:
            cursor.execute("SELECT GET_LOCK(%s, 0)", (attempt_lock_name("overhaul:child:1"),))
            cursor.fetchall()
            control = RecordingControl()

            result = database.maintain("vacuum", control, child="child", attempt=2)

            with pytest.raises(pymysql.MySQLError):
                idle.ping(reconnect=False)
        assert result.outcome is Outcome.COMPLETED
        assert "Ended what an earlier attempt left running" in logged(control)


class TestOneAtATime:
    def test_another_operation_on_the_database_is_busy(self, held: Database) -> None:
        def try_too() -> None:
            with pytest.raises(TargetBusyError, match=f"holds the database '{held.name}'"):
                held.maintain("analyze")
            busy.append(True)

        busy: list[bool] = []
        beside(held, try_too, lambda: held.maintain("vacuum", lock_timeout_s=1))

        assert busy == [True]
        assert held.maintain("analyze").outcome is Outcome.COMPLETED

    def test_operations_on_two_databases_run_beside_each_other(self, held: Database, big: Database) -> None:
        outcomes: list[Outcome] = []

        beside(
            held,
            lambda: outcomes.append(big.maintain("analyze").outcome),
            lambda: held.maintain("vacuum", lock_timeout_s=1),
        )

        assert outcomes == [Outcome.COMPLETED]


class TestTheLocksEnd:
    """A server frees what a connection held only a moment after the connection has ended."""

    @pytest.fixture
    def slow(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
        """Lend a database whose server takes no notice of the end of a connection."""
        database.table("item", rows=3)
        unnoticed: list[Connection] = []

        def leave_open(self: Connection) -> None:
            unnoticed.append(self)

        with monkeypatch.context() as patched:
            patched.setattr(Connection, "close", leave_open)
            yield database
        for connection in unnoticed:
            connection.close()

    def test_it_is_given_back_with_the_operation(self, slow: Database) -> None:
        outcomes = [slow.maintain("analyze").outcome for _ in range(3)]

        assert set(outcomes) == {Outcome.COMPLETED}

    def test_a_kill_that_came_too_late_does_not_keep_it(
        self, slow: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        struck: list[str] = []
        rows = Connection.rows

        def strike_the_first(self: Connection, sql: str, *arguments: object) -> list[Row]:
            if "RELEASE" in sql and not struck:
                struck.append(sql)
                raise ServerError(1317, "Query execution was interrupted")
            return rows(self, sql, *arguments)

        monkeypatch.setattr(Connection, "rows", strike_the_first)

        outcomes = [slow.maintain("analyze").outcome for _ in range(2)]

        assert struck
        assert set(outcomes) == {Outcome.COMPLETED}


class TestProgress:
    def test_it_counts_the_tables(self, database: Database) -> None:
        for name in ("a", "b"):
            database.table(name, rows=3)
        control = RecordingControl()

        database.maintain("vacuum", control)

        told = [(one.phase, one.done, one.total, one.unit) for one in control.progresses]
        assert told == [("vacuum", done, 2, "tables") for done in (0, 1, 2)]

    def test_a_wait_for_a_lock_is_told(self, held: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(watching, "INTERVAL", 0.05)
        control = RecordingControl()

        held.maintain("vacuum", control, lock_timeout_s=1)

        assert "vacuum: held is waiting for table metadata lock" in {one.phase for one in control.progresses}
        assert all(one.done is None for one in control.progresses)

    def test_percentages_are_the_servers_own_and_never_fall(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(watching, "INTERVAL", 0.005)
        database.run(
            "CREATE TABLE item (id INT PRIMARY KEY, a INT, KEY (a)) ENGINE=Aria",
            "INSERT INTO item SELECT seq, seq FROM seq_1_to_200000",
        )
        control = RecordingControl()

        database.maintain("reindex", control)

        shares = [(one.phase, one.done) for one in control.progresses if one.unit == "%"]
        assert shares
        assert {phase.partition(",")[0] for phase, _ in shares} == {"item"}
        for phase in {phase for phase, _ in shares}:
            of_phase = [done for name, done in shares if name == phase and done is not None]
            assert of_phase == sorted(of_phase)
            assert 0 <= of_phase[0] <= of_phase[-1] <= 100
