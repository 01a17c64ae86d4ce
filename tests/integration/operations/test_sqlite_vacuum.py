import hashlib
import shutil
import threading
import time
from pathlib import Path

import apsw
import pytest

from tests.integration.operations.databases import bloated_database, content, filled_database, names_in, query
from tests.integration.operations.doubles import RecordingControl, operation, run, worker_on
from worker_service.domain.errors import OperationCancelledError
from worker_service.domain.outcome import FailureCategory, Outcome, Verdict
from worker_service.operations.sqlite import space, vacuum_progress
from worker_service.operations.sqlite.session import Session, SqlValue
from worker_service.operations.sqlite.vacuum import judge


@pytest.mark.parametrize("journal", ["delete", "wal"])
class TestVacuum:
    def test_it_gives_the_free_pages_back(self, tmp_path: Path, journal: str) -> None:
        path = bloated_database(tmp_path / "app.db", journal=journal)
        before = path.stat().st_size

        result = run(path, "vacuum")

        assert (result.outcome, result.verdict) == (Outcome.COMPLETED, Verdict.EFFECTIVE)
        assert result.reason.startswith("reclaimed ")
        assert result.before["file_bytes"] == before
        assert result.before["free_pages"] > 0
        assert result.after["free_pages"] == 0
        assert result.after["file_bytes"] == path.stat().st_size < before
        assert result.after["wal_bytes"] == 0

    def test_it_changes_no_row(self, tmp_path: Path, journal: str) -> None:
        path = bloated_database(tmp_path / "app.db", journal=journal)
        before = content(path)

        run(path, "vacuum")

        assert content(path) == before

    def test_a_second_one_has_no_effect(self, tmp_path: Path, journal: str) -> None:
        path = bloated_database(tmp_path / "app.db", journal=journal)
        run(path, "vacuum")

        result = run(path, "vacuum")

        assert (result.outcome, result.verdict) == (Outcome.COMPLETED, Verdict.NO_EFFECT)

    def test_the_file_is_the_one_that_sqlite_makes_by_itself(self, tmp_path: Path, journal: str) -> None:
        ours = bloated_database(tmp_path / "ours.db", journal=journal)
        theirs = tmp_path / "theirs.db"
        shutil.copy(ours, theirs)
        raw = apsw.Connection(str(theirs))
        raw.execute("VACUUM")
        raw.close()

        run(ours, "vacuum")

        assert ours.read_bytes() == theirs.read_bytes()

    def test_it_leaves_no_file_behind(self, tmp_path: Path, journal: str) -> None:
        path = bloated_database(tmp_path / "app.db", journal=journal)

        run(path, "vacuum")

        assert names_in(tmp_path) == ["app.db"]


class TestVacuumSpace:
    def test_too_little_room_is_refused_before_anything_is_touched(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = bloated_database(tmp_path / "app.db")
        bytes_before = path.read_bytes()
        monkeypatch.setattr(space, "free_bytes", lambda folder: 1000)

        result = run(path, "vacuum")

        assert result.failure is not None
        assert result.failure.category is FailureCategory.DISK_FULL
        assert "1.0 kB" in result.failure.message
        assert "Nothing was touched" in result.failure.message
        assert path.read_bytes() == bytes_before

    def test_a_log_that_filled_the_disk_is_emptied(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = bloated_database(tmp_path / "app.db", journal="wal")
        other = apsw.Connection(str(path))
        other.execute("DELETE FROM item WHERE id = 4")
        rows = Session.rows

        def full(self: Session, sql: str, *bindings: SqlValue) -> object:
            if sql == "VACUUM":
                raise apsw.FullError("database or disk is full")
            return rows(self, sql, *bindings)

        monkeypatch.setattr(Session, "rows", full)

        result = run(path, "vacuum")

        other.close()
        assert result.outcome is Outcome.FAILED
        assert (result.before["wal_bytes"] > 0, result.after["wal_bytes"]) == (True, 0)


class TestVacuumBesideOthers:
    def test_a_reader_of_the_log_keeps_the_bytes_from_coming_back(self, tmp_path: Path) -> None:
        path = bloated_database(tmp_path / "app.db", journal="wal")
        reader = apsw.Connection(str(path))
        reader.execute("BEGIN; SELECT * FROM item LIMIT 1").fetchall()
        control = RecordingControl()

        result = run(path, "vacuum", control, busy_timeout_ms=50)

        reader.close()
        assert (result.outcome, result.verdict) == (Outcome.COMPLETED, Verdict.PARTIALLY_EFFECTIVE)
        assert result.after["wal_bytes"] > 0
        assert control.lines[0][0] == "warning"

    def test_a_reader_of_the_file_is_a_lock(self, tmp_path: Path) -> None:
        path = bloated_database(tmp_path / "app.db")
        reader = apsw.Connection(str(path))
        reader.execute("BEGIN; SELECT * FROM item LIMIT 1").fetchall()

        result = run(path, "vacuum", busy_timeout_ms=50)

        reader.close()
        assert result.failure is not None
        assert (result.failure.reason, result.failure.category) == ("SQLITE_BUSY", FailureCategory.LOCKED)
        assert result.failure.retryable
        assert result.before["free_pages"] == result.after["free_pages"] > 0

    def test_the_busy_timeout_is_waited_out(self, tmp_path: Path) -> None:
        path = bloated_database(tmp_path / "app.db")
        writer = apsw.Connection(str(path))
        writer.execute("BEGIN IMMEDIATE")
        threading.Timer(0.2, lambda: writer.execute("ROLLBACK")).start()

        result = run(path, "vacuum", busy_timeout_ms=5000)

        writer.close()
        assert result.verdict is Verdict.EFFECTIVE


class TestInterrupt:
    @pytest.mark.parametrize("journal", ["delete", "wal"])
    def test_one_that_copies_is_cancelled_and_the_file_stays_as_it_was(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, journal: str
    ) -> None:
        monkeypatch.setattr(vacuum_progress, "INTERVAL", 0.001)
        path = filled_database(tmp_path / "app.db", rows=30_000, width=2_000, journal=journal)
        bytes_before = _hashed(path)
        control = RecordingControl()
        worker = worker_on(path, control)
        control.on_progress = lambda progress: worker.interrupt()

        result = worker.execute(operation("vacuum"))

        assert result.outcome is Outcome.CANCELLED
        assert {**result.before, "lock_wait_seconds": 0.0} == result.after
        assert _hashed(path) == bytes_before
        assert names_in(tmp_path) == ["app.db"]

    @pytest.mark.parametrize("journal", ["delete", "wal"])
    def test_one_that_writes_back_ends_as_the_file_says(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, journal: str
    ) -> None:
        monkeypatch.setattr(vacuum_progress, "INTERVAL", 0.001)
        path = bloated_database(tmp_path / "app.db", rows=20_000, width=2_000, journal=journal)
        rows = content(path)
        control = RecordingControl()
        worker = worker_on(path, control)
        control.on_progress = lambda progress: worker.interrupt() if progress.phase == "write back" else None

        result = worker.execute(operation("vacuum"))

        compact = query(path, "PRAGMA freelist_count") == [(0,)]
        assert result.outcome is (Outcome.COMPLETED if compact else Outcome.CANCELLED)
        assert content(path) == rows

    def test_a_stop_ends_the_wait_for_a_lock(self, tmp_path: Path) -> None:
        path = bloated_database(tmp_path / "app.db")
        writer = apsw.Connection(str(path))
        writer.execute("BEGIN IMMEDIATE")
        worker = worker_on(path)
        threading.Timer(0.1, worker.interrupt).start()
        start = time.monotonic()

        result = worker.execute(operation("vacuum", busy_timeout_ms=60_000))

        writer.close()
        assert time.monotonic() - start < 5
        assert result.outcome is Outcome.CANCELLED

    def test_it_is_harmless_when_nothing_runs(self, tmp_path: Path) -> None:
        path = bloated_database(tmp_path / "app.db")
        worker = worker_on(path)

        worker.interrupt()

        assert worker.execute(operation("vacuum")).verdict is Verdict.EFFECTIVE

    def test_a_stop_that_comes_too_late_is_a_completed_vacuum(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = bloated_database(tmp_path / "app.db", journal="wal")
        worker = worker_on(path)
        rows = Session.rows

        def interrupt_after(self: Session, sql: str, *bindings: SqlValue) -> object:
            found = rows(self, sql, *bindings)
            if sql == "VACUUM":
                worker.interrupt()
            return found

        monkeypatch.setattr(Session, "rows", interrupt_after)

        result = worker.execute(operation("vacuum"))

        assert result.outcome is Outcome.COMPLETED
        assert "came too late" in result.reason
        assert query(path, "PRAGMA freelist_count") == [(0,)]

    def test_a_stop_before_the_start_reaches_the_worker(self, tmp_path: Path) -> None:
        path = bloated_database(tmp_path / "app.db")

        with pytest.raises(OperationCancelledError):
            run(path, "vacuum", RecordingControl(stop_at=1))


class TestVacuumProgress:
    def test_a_small_file_costs_no_thread(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = bloated_database(tmp_path / "app.db")
        started: list[str] = []
        monkeypatch.setattr(threading.Thread, "start", lambda thread: started.append(thread.name))

        result = run(path, "vacuum")

        assert result.verdict is Verdict.EFFECTIVE
        assert started == []

    def test_it_tells_the_pages_copied_and_then_those_written_back(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(vacuum_progress, "INTERVAL", 0.002)
        path = filled_database(tmp_path / "app.db", rows=15_000, width=2_000)
        control = RecordingControl()
        # A busy machine may give the sampling thread no moment within a phase, so it gets several chances.
        for _ in range(20):
            control = RecordingControl()
            run(path, "vacuum", control)
            if {progress.phase for progress in control.progresses} == {"copy", "write back"}:
                break

        copied = [progress for progress in control.progresses if progress.phase == "copy"]
        written = [progress for progress in control.progresses if progress.phase == "write back"]
        assert copied
        assert written
        assert [progress.phase for progress in control.progresses] == ["copy"] * len(copied) + [
            "write back"
        ] * len(written)
        for phase in (copied, written):
            done = [progress.done or 0 for progress in phase]
            assert done == sorted(done)
            assert all((progress.done or 0) <= (progress.total or 0) for progress in phase)


class TestJudge:
    def test_a_lost_entry_of_the_schema_is_told(self) -> None:
        measures = {"pages": 2.0, "page_bytes": 4096.0, "wal_bytes": 0.0}

        result = judge(measures, measures, "", ["index ix"])

        assert result.verdict is Verdict.PARTIALLY_EFFECTIVE
        assert "index ix" in result.reason

    def test_what_cannot_be_read_is_unknown(self) -> None:
        assert judge({}, {"file_bytes": 1.0}, "", []).verdict is Verdict.UNKNOWN


def _hashed(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
