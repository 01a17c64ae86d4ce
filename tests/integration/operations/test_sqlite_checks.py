from pathlib import Path

import apsw
import pytest

from tests.integration.operations.databases import (
    content,
    filled_database,
    with_corrupt_index,
    with_foreign_collation,
)
from tests.integration.operations.doubles import RecordingControl, operation, run, target_at
from worker_service.domain.outcome import FailureCategory, Outcome, Verdict
from worker_service.operations.sqlite import SqliteEngine


def with_orphans(path: Path) -> Path:
    with apsw.Connection(str(path)) as connection:
        connection.execute("CREATE TABLE parent(id PRIMARY KEY); CREATE TABLE child(id REFERENCES parent(id))")
        connection.execute("INSERT INTO child VALUES (1), (2), (NULL)")
    connection.close()
    return path


class TestChecks:
    @pytest.mark.parametrize("journal", ["delete", "wal"])
    @pytest.mark.parametrize("name", ["integrity_check", "quick_check", "foreign_key_check"])
    def test_a_sound_database_is_completed_and_left_as_it_is(
        self, tmp_path: Path, name: str, journal: str
    ) -> None:
        path = filled_database(tmp_path / "app.db", journal=journal)
        before = path.read_bytes()

        result = run(path, name)

        assert (result.outcome, result.verdict) == (Outcome.COMPLETED, Verdict.EFFECTIVE)
        assert result.reason.startswith("checked, no ")
        assert result.after["errors_found"] == 0
        assert path.read_bytes() == before

    def test_a_damaged_database_has_failed(self, tmp_path: Path) -> None:
        path = with_corrupt_index(tmp_path / "app.db")
        control = RecordingControl()

        result = run(path, "integrity_check", control, max_errors=7)

        assert result.failure is not None
        assert (result.failure.reason, result.failure.category) == ("DAMAGED", FailureCategory.CORRUPT)
        assert not result.failure.retryable
        assert "7 errors or more: wrong # of entries in index item_name; row " in result.failure.message
        assert "and 4 more" in result.failure.message
        assert result.after["errors_found"] == 7
        assert len(control.lines) == 7

    def test_a_quick_check_says_that_it_is_no_certificate(self, tmp_path: Path) -> None:
        path = filled_database(tmp_path / "app.db")

        assert "no certificate" in run(path, "quick_check").reason

    def test_a_missing_collation_is_told(self, tmp_path: Path) -> None:
        result = run(with_foreign_collation(tmp_path / "app.db"), "quick_check")

        assert result.failure is not None
        assert "run this from the application" in result.failure.message

    def test_orphans_have_failed_with_their_tables(self, tmp_path: Path) -> None:
        path = with_orphans(tmp_path / "app.db")

        result = run(path, "foreign_key_check")

        assert result.failure is not None
        assert result.failure.category is FailureCategory.SCHEMA
        assert result.failure.message == "2 rows without the parent row of a foreign key: child 2."
        assert result.after["errors_found"] == 2

    def test_their_plans_are_one_pragma(self, tmp_path: Path) -> None:
        target = target_at(filled_database(tmp_path / "app.db"))
        engine = SqliteEngine()

        assert engine.plan(target, operation("integrity_check")) == ("PRAGMA main.integrity_check(100)",)
        assert engine.plan(target, operation("quick_check", max_errors=1)) == ("PRAGMA main.quick_check(1)",)
        assert engine.plan(target, operation("foreign_key_check")) == ("PRAGMA main.foreign_key_check",)


class TestFtsOptimize:
    @pytest.mark.parametrize("module", ["fts4", "FTS5"])
    def test_it_merges_the_segments_once(self, tmp_path: Path, module: str) -> None:
        path = tmp_path / "app.db"
        connection = apsw.Connection(str(path))
        connection.execute(f'CREATE VIRTUAL TABLE "od d""ft" USING {module}(body)')
        for word in "abcdefgh":
            connection.execute('INSERT INTO "od d""ft" VALUES (?)', (f"word {word}",))
        rows = list(connection.execute('SELECT rowid, body FROM "od d""ft"'))
        connection.close()

        first, second = run(path, "fts_optimize"), run(path, "fts_optimize")

        assert (first.verdict, first.reason) == (Verdict.EFFECTIVE, "merged 1 full-text table.")
        assert second.verdict is Verdict.NO_EFFECT
        connection = apsw.Connection(str(path))
        assert list(connection.execute('SELECT rowid, body FROM "od d""ft"')) == rows
        connection.close()

    def test_a_database_without_full_text_is_skipped(self, tmp_path: Path) -> None:
        path = filled_database(tmp_path / "app.db")
        before = content(path)

        result = run(path, "fts_optimize")

        assert result.outcome is Outcome.SKIPPED
        assert content(path) == before
        assert SqliteEngine().plan(target_at(path), operation("fts_optimize")) == ()
