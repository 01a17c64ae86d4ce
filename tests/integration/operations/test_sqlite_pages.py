from pathlib import Path

import apsw
import pytest

from tests.integration.operations.databases import bloated_database, content, fill, filled_database, query
from tests.integration.operations.doubles import RecordingControl, operation, run, target_at
from worker_service.domain.outcome import FailureCategory, Outcome, Verdict
from worker_service.operations.sqlite import SqliteEngine, incremental
from worker_service.operations.sqlite.checkpoint import judge

INCREMENTAL = 2


class TestIncrementalVacuum:
    @pytest.mark.parametrize("journal", ["delete", "wal"])
    def test_it_gives_every_free_page_back(self, tmp_path: Path, journal: str) -> None:
        path = bloated_database(tmp_path / "app.db", journal=journal, auto_vacuum=INCREMENTAL)
        before = content(path)

        result = run(path, "incremental_vacuum")

        assert (result.outcome, result.verdict) == (Outcome.COMPLETED, Verdict.EFFECTIVE)
        assert result.before["free_pages"] > 1
        assert result.after["free_pages"] == 0
        assert result.after["file_bytes"] < result.before["file_bytes"]
        assert content(path) == before

    def test_it_gives_as_many_back_as_asked(self, tmp_path: Path) -> None:
        path = bloated_database(tmp_path / "app.db", auto_vacuum=INCREMENTAL)
        free = query(path, "PRAGMA freelist_count")[0][0]

        result = run(path, "incremental_vacuum", pages=5)

        assert result.reason == "gave back 5 pages: 20.5 kB."
        assert result.after["free_pages"] == int(str(free)) - 5

    def test_it_works_in_chunks_and_keeps_what_is_done_at_a_stop(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(incremental, "CHUNK", 10)
        path = bloated_database(tmp_path / "app.db", auto_vacuum=INCREMENTAL)
        control = RecordingControl(stop_at=4)

        result = run(path, "incremental_vacuum", control)

        assert result.outcome is Outcome.CANCELLED
        assert result.reason.startswith("stopped after it gave back 20 pages")
        assert result.before["free_pages"] - result.after["free_pages"] == 20
        assert [progress.done for progress in control.progresses] == [0, 10, 20]

    def test_its_plan_is_one_statement_a_chunk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(incremental, "CHUNK", 10)
        path = bloated_database(tmp_path / "app.db", auto_vacuum=INCREMENTAL)

        plan = SqliteEngine().plan(target_at(path), operation("incremental_vacuum", pages=25))

        assert plan == tuple(f"PRAGMA main.incremental_vacuum({pages})" for pages in (10, 10, 5))

    @pytest.mark.parametrize(("setting", "word"), [(0, "none"), (1, "full")])
    def test_another_setting_is_skipped_with_what_to_do(self, tmp_path: Path, setting: int, word: str) -> None:
        path = filled_database(tmp_path / "app.db", auto_vacuum=setting)

        result = run(path, "incremental_vacuum")

        assert result.outcome is Outcome.SKIPPED
        assert f"auto_vacuum is {word}" in result.reason
        assert "PRAGMA auto_vacuum=2" in result.reason
        assert SqliteEngine().plan(target_at(path), operation("incremental_vacuum")) == ()

    def test_a_file_without_free_pages_is_skipped(self, tmp_path: Path) -> None:
        path = filled_database(tmp_path / "app.db", auto_vacuum=INCREMENTAL)

        result = run(path, "incremental_vacuum")

        assert (result.outcome, result.reason) == (Outcome.SKIPPED, "the file has no free pages.")

    @pytest.mark.parametrize(
        ("freed", "verdict"),
        [(0.0, Verdict.NO_EFFECT), (4.0, Verdict.PARTIALLY_EFFECTIVE), (9.0, Verdict.EFFECTIVE)],
    )
    def test_the_pages_tell_what_it_did(self, freed: float, verdict: Verdict) -> None:
        before = {"pages": 20.0, "page_bytes": 4096.0}

        assert incremental.judge(before, {"pages": 20 - freed}, 9, "").verdict is verdict


class TestWalCheckpoint:
    @pytest.mark.parametrize("mode", ["passive", "full", "restart", "truncate"])
    def test_it_moves_the_log_into_the_file(self, tmp_path: Path, mode: str) -> None:
        path = filled_database(tmp_path / "app.db", journal="wal")
        other = apsw.Connection(str(path))
        fill_more(other)

        result = run(path, "wal_checkpoint", mode=mode)

        assert (result.outcome, result.verdict) == (Outcome.COMPLETED, Verdict.EFFECTIVE)
        assert result.before["wal_bytes"] > 0
        assert (result.after["wal_bytes"] == 0) == (mode == "truncate")
        other.close()

    def test_the_default_empties_the_log(self, tmp_path: Path) -> None:
        path = filled_database(tmp_path / "app.db", journal="wal")

        assert SqliteEngine().plan(target_at(path), operation("wal_checkpoint")) == (
            "PRAGMA main.wal_checkpoint(TRUNCATE)",
        )

    def test_a_reader_makes_it_partial(self, tmp_path: Path) -> None:
        path = filled_database(tmp_path / "app.db", journal="wal")
        reader, writer = apsw.Connection(str(path)), apsw.Connection(str(path))
        writer.wal_autocheckpoint(0)
        fill_more(writer)
        reader.execute("BEGIN; SELECT * FROM item LIMIT 1").fetchall()
        fill_more(writer)

        result = run(path, "wal_checkpoint", busy_timeout_ms=20)

        assert (result.outcome, result.verdict) == (Outcome.COMPLETED, Verdict.PARTIALLY_EFFECTIVE)
        assert 0 < result.after["frames_moved"] < result.after["frames"]
        reader.close()
        writer.close()

    def test_an_empty_log_is_no_effect(self, tmp_path: Path) -> None:
        path = filled_database(tmp_path / "app.db", journal="wal")

        result = run(path, "wal_checkpoint")

        assert (result.verdict, result.reason) == (Verdict.NO_EFFECT, "the write-ahead log was empty.")

    def test_a_database_without_a_log_is_skipped(self, tmp_path: Path) -> None:
        path = filled_database(tmp_path / "app.db")

        result = run(path, "wal_checkpoint")

        assert result.outcome is Outcome.SKIPPED
        assert "journal mode is delete" in result.reason
        assert SqliteEngine().plan(target_at(path), operation("wal_checkpoint")) == ()

    def test_a_log_that_cannot_move_at_all_is_no_effect(self) -> None:
        after = {"wal_bytes": 100.0, "frames": 5.0, "frames_moved": 0.0}

        assert judge({"wal_bytes": 100.0}, after, busy=True).verdict is Verdict.NO_EFFECT

    def test_a_library_inside_the_reset_race_refuses(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = filled_database(tmp_path / "app.db", journal="wal")
        monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: "3.51.2")

        result = run(path, "wal_checkpoint")

        assert result.failure is not None
        assert (result.failure.reason, result.failure.category) == ("WAL_RESET_RACE", FailureCategory.INVALID)
        assert "3.51.3" in result.failure.message

    def test_a_vacuum_inside_the_reset_race_leaves_the_log_alone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = bloated_database(tmp_path / "app.db", journal="wal")
        monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: "3.51.2")

        result = run(path, "vacuum")

        assert "the log was left alone" in result.reason


def fill_more(connection: apsw.Connection) -> None:
    connection.execute("DELETE FROM item")
    fill(connection, 300, 50)
