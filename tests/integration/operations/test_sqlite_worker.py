import multiprocessing
import shutil
import stat
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import apsw
import pytest

from tests.integration.operations.databases import (
    bloated_database,
    content,
    filled_database,
    names_in,
    with_foreign_collation,
)
from tests.integration.operations.doubles import RecordingControl, operation, run, target_at, worker_on
from worker_service.domain.errors import (
    InvalidOperationError,
    OperationCancelledError,
    TargetBusyError,
    TargetUnavailableError,
)
from worker_service.domain.operation import Operation
from worker_service.domain.outcome import FailureCategory, Outcome, Result, Verdict
from worker_service.operations.sqlite import SqliteEngine, filelock
from worker_service.operations.sqlite.catalogue import PROCEDURES
from worker_service.operations.sqlite.filelock import hold
from worker_service.operations.sqlite.identity import file_key
from worker_service.operations.sqlite.location import Location
from worker_service.operations.sqlite.options import BUSY_TIMEOUT, read_options
from worker_service.operations.sqlite.session import Session

EVERY = sorted(PROCEDURES)
COMMON = {"file_bytes", "wal_bytes", "pages", "free_pages", "page_bytes", "stat_rows"}
ROOT = Path(__file__).parents[3]


def category(result: Result) -> FailureCategory:
    assert result.outcome is Outcome.FAILED
    assert result.failure is not None
    assert result.failure.message.endswith(".")
    return result.failure.category


class TestEveryOperation:
    @pytest.mark.parametrize("name", EVERY)
    @pytest.mark.parametrize("journal", ["delete", "wal"])
    def test_it_changes_no_row_and_leaves_no_file(self, tmp_path: Path, name: str, journal: str) -> None:
        path = bloated_database(tmp_path / "app.db", journal=journal, auto_vacuum=2)
        before = content(path)

        result = run(path, name)

        assert result.outcome in {Outcome.COMPLETED, Outcome.SKIPPED}
        assert result.reason.endswith(".")
        assert content(path) == before
        assert names_in(tmp_path) == ["app.db"]

    @pytest.mark.parametrize("name", EVERY)
    def test_it_reports_the_common_measures(self, tmp_path: Path, name: str) -> None:
        result = run(filled_database(tmp_path / "app.db"), name)

        assert set(result.before) == COMMON
        assert set(result.after) >= COMMON

    def test_how_long_it_waited_for_the_files_lock_is_measured(self, tmp_path: Path) -> None:
        path = filled_database(tmp_path / "app.db")
        control = RecordingControl()
        other = apsw.Connection(str(path))
        other.execute("BEGIN IMMEDIATE")

        result = run(path, "vacuum", control, busy_timeout_ms=100)

        assert category(result) is FailureCategory.LOCKED
        assert result.after["lock_wait_seconds"] >= 0.1
        assert any("waited for the file's lock for 0.1 s" in line for _, line in control.lines)

    @pytest.mark.parametrize("name", EVERY)
    def test_a_missing_file_has_failed_and_is_not_created(self, tmp_path: Path, name: str) -> None:
        result = run(tmp_path / "mistyped.db", name)

        assert category(result) is FailureCategory.UNAVAILABLE
        assert names_in(tmp_path) == []

    @pytest.mark.parametrize("name", EVERY)
    @pytest.mark.parametrize("journal", ["delete", "wal"])
    def test_its_plan_changes_nothing(self, tmp_path: Path, name: str, journal: str) -> None:
        path = bloated_database(tmp_path / "app.db", journal=journal, auto_vacuum=2)
        before = path.read_bytes()

        SqliteEngine().plan(target_at(path), operation(name))

        assert path.read_bytes() == before
        assert names_in(tmp_path) == ["app.db"]


class TestFailures:
    def test_a_folder_cannot_be_opened(self, tmp_path: Path) -> None:
        assert category(run(tmp_path, "vacuum")) is FailureCategory.UNAVAILABLE

    def test_a_schema_that_is_not_understood_fails_the_vacuum(self, tmp_path: Path) -> None:
        result = run(with_foreign_collation(tmp_path / "app.db"), "vacuum")

        assert category(result) is FailureCategory.SCHEMA
        assert result.before["free_pages"] == result.after["free_pages"]

    def test_a_lock_folder_that_cannot_be_trusted_is_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = filled_database(tmp_path / "app.db")
        (tmp_path / "open").mkdir()
        (tmp_path / "open").chmod(0o777)
        monkeypatch.setattr(filelock, "lock_directory", lambda: tmp_path / "open")

        result = run(path, "vacuum")

        assert category(result) is FailureCategory.PERMISSION
        assert result.failure is not None
        assert not result.failure.retryable
        assert result.reason.endswith("is not a folder of this user's own: remove it.")


class TestValidate:
    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            (Operation(name="vacum", target="app"), "did you mean 'vacuum'"),
            (Operation(name="frobnicate", target="app"), "there are analyze, "),
            (Operation(name="vacuum", target="app", object="item"), "whole database"),
            (Operation(name="analyze", target="app", options={"analysis_limt": "1"}), "'analysis_limit'"),
            (Operation(name="analyze", target="app", options={"analysis_limit": "many"}), "whole number"),
            (Operation(name="analyze", target="app", options={"analysis_limit": "-1"}), "0 to 1000000"),
            (Operation(name="wal_checkpoint", target="app", options={"mode": "gently"}), "passive, full"),
        ],
    )
    def test_what_cannot_run_is_refused(self, wrong: Operation, message: str) -> None:
        with pytest.raises(InvalidOperationError, match=message):
            worker_on("app.db").validate(wrong)

    def test_options_are_read_in_any_case(self) -> None:
        worker_on("app.db").validate(operation("wal_checkpoint", mode="PASSIVE", busy_timeout_ms=0))


class TestIdentity:
    def test_a_target_with_its_own_identity_may_be_another_file(self, tmp_path: Path) -> None:
        path = filled_database(tmp_path / "app.db")
        other = bloated_database(tmp_path / "other.db")
        engine = SqliteEngine()
        target = target_at(path, identity="billing")
        engine.describe(target)
        other.rename(path)

        assert engine.worker(target, RecordingControl()).execute(operation("vacuum")).verdict is Verdict.EFFECTIVE


class TestOneAtATime:
    def test_another_operation_on_the_file_is_busy(self, tmp_path: Path) -> None:
        path = filled_database(tmp_path / "app.db")
        (tmp_path / "link.db").symlink_to(path)

        with hold(file_key(Location.of(str(path)))), pytest.raises(TargetBusyError):
            run(tmp_path / "link.db", "analyze")

        assert run(path, "analyze").outcome is Outcome.COMPLETED

    def test_two_workers_in_two_processes_never_overlap(self, tmp_path: Path) -> None:
        path = filled_database(tmp_path / "app.db", rows=5_000)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(2, mp_context=context) as pool:
            outcomes = list(pool.map(_vacuum_often, [str(path)] * 2, [15] * 2))

        done = [outcome for of_one in outcomes for outcome in of_one]
        assert set(done) <= {"completed", "busy"}
        assert all("completed" in of_one for of_one in outcomes)

    def test_a_worker_in_another_process_is_busy(self, tmp_path: Path) -> None:
        path = filled_database(tmp_path / "app.db")
        code = (
            "import sys; from worker_service.operations.sqlite.filelock import hold; "
            "from worker_service.operations.sqlite.identity import file_key; "
            "from worker_service.operations.sqlite.location import Location\n"
            "with hold(file_key(Location.of(sys.argv[1]))): print('held', flush=True); sys.stdin.read()"
        )
        other = subprocess.Popen(
            [sys.executable, "-c", code, str(path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert other.stdout is not None
        other.stdout.readline()

        with pytest.raises(TargetBusyError):
            run(path, "vacuum")

        other.kill()
        other.communicate()
        assert run(path, "vacuum").outcome is Outcome.COMPLETED

    def test_operations_on_two_files_run_beside_each_other(self, tmp_path: Path) -> None:
        one, two = filled_database(tmp_path / "one.db"), filled_database(tmp_path / "two.db")

        with hold(file_key(Location.of(str(one)))):
            assert run(two, "vacuum").outcome is Outcome.COMPLETED

    def test_an_interrupt_may_come_at_any_time(self, tmp_path: Path) -> None:
        path = bloated_database(tmp_path / "app.db", rows=500)
        before = content(path)
        worker = worker_on(path)
        ended = threading.Event()

        def interrupt() -> None:
            while not ended.wait(0.001):
                worker.interrupt()

        thread = threading.Thread(target=interrupt)
        thread.start()
        outcomes = {worker.execute(operation(name)).outcome for name in EVERY * 3}
        ended.set()
        thread.join()

        assert outcomes <= {Outcome.CANCELLED, Outcome.COMPLETED, Outcome.SKIPPED}
        assert content(path) == before


class TestHostilePaths:
    @pytest.mark.parametrize(
        "name", ["a b.db", "what?.db", "a#b.db", "100%.db", "a=b&c.db", "é☃.db", "a%20b.db", "q'\".db"]
    )
    def test_every_path_is_taken_as_it_is(self, tmp_path: Path, name: str) -> None:
        path = bloated_database(tmp_path / name)

        result = run(f"sqlite:///{path}", "vacuum")

        assert result.verdict is Verdict.EFFECTIVE
        assert names_in(tmp_path) == [name]


class TestAfterACrash:
    @pytest.mark.parametrize("journal", ["delete", "wal"])
    def test_a_worker_killed_in_a_vacuum_leaves_the_rows_and_no_lock(self, tmp_path: Path, journal: str) -> None:
        path = bloated_database(tmp_path / "app.db", rows=20_000, width=2_000, journal=journal)
        before = content(path)
        code = "import sys; from tests.integration.operations.doubles import run; run(sys.argv[1], 'vacuum')"
        worker = subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=ROOT)
        beside = path.with_name("app.db-journal" if journal == "delete" else "app.db-wal")
        while worker.poll() is None and not (beside.exists() and beside.stat().st_size > 100_000):
            pass
        worker.kill()
        worker.wait()

        result = run(path, "vacuum")

        assert result.outcome is Outcome.COMPLETED
        assert result.after["free_pages"] == 0
        assert content(path) == before
        assert names_in(tmp_path) == ["app.db"]

    def test_a_plan_beside_a_journal_rolls_nothing_back(self, tmp_path: Path) -> None:
        path = filled_database(tmp_path / "app.db")
        writer = apsw.Connection(str(path))
        writer.pragma("cache_size", 1)
        writer.execute("BEGIN; UPDATE item SET name = 'other'")
        (tmp_path / "copy").mkdir()
        for file in [path, tmp_path / "app.db-journal"]:
            shutil.copy(file, tmp_path / "copy" / file.name)
        writer.execute("ROLLBACK")
        writer.close()

        with pytest.raises(TargetUnavailableError):
            SqliteEngine().plan(target_at(tmp_path / "copy" / "app.db"), operation("reindex"))

        assert names_in(tmp_path / "copy") == ["app.db", "app.db-journal"]
        assert run(tmp_path / "copy" / "app.db", "integrity_check").verdict is Verdict.EFFECTIVE
        assert content(tmp_path / "copy" / "app.db") == content(path)

    def test_a_plan_beside_a_log_leaves_the_log(self, tmp_path: Path) -> None:
        path = filled_database(tmp_path / "app.db", journal="wal")
        writer = apsw.Connection(str(path))
        writer.execute("DELETE FROM item")
        copies = [
            (file, tmp_path / "copy" / file.name) for file in tmp_path.iterdir() if file.name != "app.db-shm"
        ]
        (tmp_path / "copy").mkdir()
        for file, copy in copies:
            shutil.copy(file, copy)
        writer.close()
        copied = tmp_path / "copy" / "app.db"
        before = copied.read_bytes()

        plan = SqliteEngine().plan(target_at(copied), operation("wal_checkpoint"))

        assert plan == ("PRAGMA main.wal_checkpoint(TRUNCATE)",)
        assert copied.read_bytes() == before
        assert stat.S_ISREG((tmp_path / "copy" / "app.db-wal").stat().st_mode)


def _vacuum_often(path: str, times: int) -> list[str]:
    outcomes: list[str] = []
    while outcomes.count("completed") < times:
        try:
            outcomes.append(run(path, "vacuum", busy_timeout_ms=0).outcome.value)
        except TargetBusyError:
            outcomes.append("busy")
    return outcomes


class TestSession:
    def test_a_stop_reaches_a_statement_that_its_interrupt_missed(self, tmp_path: Path) -> None:
        location = Location.of(str(filled_database(tmp_path / "a.db")))
        options = read_options([BUSY_TIMEOUT], {})
        stop = threading.Event()
        session = Session(location=location, options=options, control=RecordingControl(), stop=stop)
        threading.Timer(0.2, stop.set).start()

        with pytest.raises(OperationCancelledError):
            session.rows("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n")
        session.close()
