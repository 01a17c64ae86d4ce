"""Files that another process holds locked, for a while or for ever, and files that are replaced meanwhile."""

from pathlib import Path

import pytest

from tests.integration.operations.databases import names_in
from tests.integration.operations.doubles import RecordingControl, operation, run, target_at
from tests.unfriendly.ground import (
    CHECKS,
    DEFAULTS,
    Told,
    bytes_stay,
    indexed_database,
    other,
    rows_stay,
    run_while_waiting,
    told,
)
from worker_service.domain.operation import Progress
from worker_service.domain.outcome import FailureCategory, Outcome, Verdict
from worker_service.operations.sqlite import SqliteEngine

LOCKED = Told(reason="SQLITE_BUSY", category=FailureCategory.LOCKED, retryable=True)
MOVED = Told(reason="SQLITE_READONLY_DBMOVED", category=FailureCategory.UNAVAILABLE)
REPLACED = Told(reason="TARGET_REPLACED", category=FailureCategory.UNAVAILABLE)


class TestLockedForEver:
    @pytest.mark.parametrize("journal", ["delete", "wal"])
    @pytest.mark.parametrize("name", DEFAULTS)
    def test_a_writer_keeps_every_change_out_and_that_is_worth_another_attempt(
        self, tmp_path: Path, name: str, journal: str
    ) -> None:
        path = indexed_database(tmp_path / "app.db", journal=journal)
        with rows_stay(path), other("lock for writing", path):
            result = run(path, name, busy_timeout_ms=50)

        assert told(result) == LOCKED
        assert "end its transaction, or allow a longer busy_timeout_ms" in result.reason

    @pytest.mark.parametrize("name", CHECKS)
    def test_a_writer_that_has_written_nothing_yet_lets_a_check_read(self, tmp_path: Path, name: str) -> None:
        path = indexed_database(tmp_path / "app.db")
        with rows_stay(path), other("lock for writing", path):
            result = run(path, name, busy_timeout_ms=50)

        assert result.verdict is Verdict.EFFECTIVE

    @pytest.mark.parametrize("name", [*DEFAULTS, *CHECKS])
    def test_an_exclusive_lock_keeps_checks_out_too(self, tmp_path: Path, name: str) -> None:
        path = indexed_database(tmp_path / "app.db")
        with rows_stay(path), other("lock for reading too", path):
            result = run(path, name, busy_timeout_ms=50)

        assert told(result) == LOCKED


class TestLockedForAWhile:
    @pytest.mark.parametrize("journal", ["delete", "wal"])
    @pytest.mark.parametrize("name", DEFAULTS)
    def test_it_waits_and_does_its_work(self, tmp_path: Path, name: str, journal: str) -> None:
        path = indexed_database(tmp_path / "app.db", journal=journal)

        with rows_stay(path), other("lock for writing", path) as holder:
            result = run_while_waiting(path, name, holder.go_on)

        assert (result.outcome, result.verdict) == (Outcome.COMPLETED, Verdict.EFFECTIVE)

    @pytest.mark.parametrize("name", CHECKS)
    def test_a_check_waits_too(self, tmp_path: Path, name: str) -> None:
        path = indexed_database(tmp_path / "app.db")

        with rows_stay(path), other("lock for reading too", path) as holder:
            result = run_while_waiting(path, name, holder.go_on)

        assert result.verdict is Verdict.EFFECTIVE


class TestReplaced:
    @pytest.mark.parametrize("name", DEFAULTS)
    def test_before_it_starts_nothing_is_touched(self, tmp_path: Path, name: str) -> None:
        path, new = indexed_database(tmp_path / "app.db"), indexed_database(tmp_path / "new.db", rows=300)
        engine = SqliteEngine()
        engine.describe(target_at(path))
        new.rename(path)

        with bytes_stay(path):
            result = engine.worker(target_at(path), RecordingControl()).execute(operation(name))

        assert told(result) == REPLACED
        assert result.reason.endswith("register the target again.")

    @pytest.mark.parametrize("journal", ["delete", "wal"])
    @pytest.mark.parametrize("name", DEFAULTS)
    def test_while_it_waits_for_a_lock_it_waits_no_longer_and_touches_neither(
        self, tmp_path: Path, name: str, journal: str
    ) -> None:
        path = indexed_database(tmp_path / "app.db", journal=journal)
        new = indexed_database(tmp_path / "new.db", rows=300)
        old = tmp_path / "old.db"
        known = new.read_bytes(), path.read_bytes()

        def replace() -> None:
            path.rename(old)
            new.rename(path)

        with other("lock for writing", path):
            result = run_while_waiting(path, name, replace)

        assert told(result) == MOVED
        assert result.reason.startswith("The file was moved or replaced meanwhile: check the target's path")
        assert (path.read_bytes(), old.read_bytes()) == known

    @pytest.mark.parametrize("journal", ["delete", "wal"])
    @pytest.mark.parametrize("name", DEFAULTS)
    def test_a_file_that_is_removed_while_it_waits_is_told_alike(
        self, tmp_path: Path, name: str, journal: str
    ) -> None:
        path = indexed_database(tmp_path / "app.db", journal=journal)

        with other("lock for writing", path):
            result = run_while_waiting(path, name, path.unlink)

        assert told(result) == MOVED
        assert "app.db" not in names_in(tmp_path)

    @pytest.mark.parametrize("name", ["reindex", "integrity_check"])
    def test_while_it_works_no_success_is_told_of_a_file_that_is_gone(self, tmp_path: Path, name: str) -> None:
        path = indexed_database(tmp_path / "app.db", journal="wal")
        new = indexed_database(tmp_path / "new.db", rows=300)
        known = new.read_bytes()
        control = RecordingControl()

        def replace(_: Progress) -> None:
            if new.exists():
                new.rename(path)

        control.on_progress = replace

        result = run(path, name, control)

        assert told(result) == MOVED
        assert "not in the file that lies there now: check the target's path." in result.reason
        assert path.read_bytes() == known
