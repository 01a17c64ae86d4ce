from pathlib import Path

import apsw
import pytest

from tests.integration.operations.databases import (
    HOSTILE,
    content,
    empty_database,
    filled_database,
    query,
    with_corrupt_index,
    with_foreign_collation,
)
from tests.integration.operations.doubles import RecordingControl, operation, run, target_at, worker_on
from worker_service.domain.operation import Progress
from worker_service.domain.outcome import FailureCategory, Outcome, Verdict
from worker_service.operations.sqlite import SqliteEngine


def hostile_database(path: Path) -> Path:
    connection = empty_database(path)
    for number, name in enumerate(HOSTILE):
        quoted = '"' + name.replace('"', '""') + '"'
        connection.execute(f"CREATE INDEX {quoted} ON item(name, {number})")
    connection.close()
    return path


class TestReindex:
    @pytest.mark.parametrize("journal", ["delete", "wal"])
    def test_it_rebuilds_every_index_and_changes_no_row(self, tmp_path: Path, journal: str) -> None:
        path = filled_database(tmp_path / "app.db", journal=journal)
        before = content(path)

        result = run(path, "reindex")

        assert (result.outcome, result.verdict) == (Outcome.COMPLETED, Verdict.EFFECTIVE)
        assert result.reason == "rebuilt 1 index, 0 of them automatic."
        assert (result.after["indexes_rebuilt"], result.after["indexes_failed"]) == (1, 0)
        assert content(path) == before

    def test_it_repairs_an_index_that_misses_entries(self, tmp_path: Path) -> None:
        path = with_corrupt_index(tmp_path / "app.db")

        result = run(path, "reindex")

        assert result.verdict is Verdict.EFFECTIVE
        assert query(path, "PRAGMA integrity_check") == [("ok",)]

    def test_it_takes_every_name_as_it_is(self, tmp_path: Path) -> None:
        path = hostile_database(tmp_path / "app.db")

        result = run(path, "reindex")

        assert result.verdict is Verdict.EFFECTIVE
        assert result.after["indexes_rebuilt"] == len(HOSTILE) + 1

    def test_its_plan_names_the_schema_so_that_no_collation_is_meant(self, tmp_path: Path) -> None:
        path = hostile_database(tmp_path / "app.db")

        plan = SqliteEngine().plan(target_at(path), operation("reindex"))

        assert 'REINDEX main."nocase"' in plan
        assert 'REINDEX main."od d""ix :p %s"' in plan
        assert 'REINDEX main."sqlitex_ix"' in plan

    def test_the_automatic_indexes_are_rebuilt_too(self, tmp_path: Path) -> None:
        path = tmp_path / "app.db"
        connection = apsw.Connection(str(path))
        connection.execute("CREATE TABLE u(x UNIQUE); CREATE TABLE w(a TEXT PRIMARY KEY, b, c) WITHOUT ROWID")
        connection.execute("INSERT INTO w VALUES ('b', 1, 2), ('a', 3, 4); INSERT INTO u VALUES (2), (1)")
        connection.close()
        before = content(path)

        result = run(path, "reindex")

        assert result.reason == "rebuilt 2 indexes, 2 of them automatic."
        assert query(path, "PRAGMA integrity_check") == [("ok",)]
        assert content(path) == before

    def test_an_index_that_fails_does_not_keep_the_others(self, tmp_path: Path) -> None:
        path = with_foreign_collation(tmp_path / "app.db")
        control = RecordingControl()

        result = run(path, "reindex", control)

        assert (result.outcome, result.verdict) == (Outcome.COMPLETED, Verdict.PARTIALLY_EFFECTIVE)
        assert "rebuilt 2 of 3 indexes; failed: word:" in result.reason
        assert (result.after["indexes_rebuilt"], result.after["indexes_failed"]) == (2, 1)
        assert [level for level, line in control.lines] == ["warning"]

    def test_it_fails_when_every_index_failed(self, tmp_path: Path) -> None:
        path = with_foreign_collation(tmp_path / "app.db")
        with apsw.Connection(str(path)) as connection:
            connection.execute("DROP INDEX item_name; DROP INDEX number")
        connection.close()

        result = run(path, "reindex")

        assert result.failure is not None
        assert result.failure.reason == "SQLITE_ERROR_MISSING_COLLSEQ"
        assert result.failure.category is FailureCategory.SCHEMA
        assert not result.failure.retryable
        assert result.after["indexes_failed"] == 1

    def test_duplicates_in_a_unique_index_are_told(self, tmp_path: Path) -> None:
        path = tmp_path / "app.db"
        connection = empty_database(path)
        connection.execute("INSERT INTO item(name) VALUES ('a'), ('a'); PRAGMA writable_schema = 1")
        connection.execute(
            "UPDATE sqlite_schema SET sql = 'CREATE UNIQUE INDEX item_name ON item(name)' WHERE type = 'index'"
        )
        connection.close()

        result = run(path, "reindex")

        assert result.failure is not None
        assert result.failure.reason == "SQLITE_CONSTRAINT_UNIQUE"
        assert result.failure.category is FailureCategory.CORRUPT

    def test_a_lock_ends_it_at_once(self, tmp_path: Path) -> None:
        path = hostile_database(tmp_path / "app.db")
        writer = apsw.Connection(str(path))
        writer.execute("BEGIN IMMEDIATE")

        result = run(path, "reindex", busy_timeout_ms=20)

        writer.close()
        assert result.failure is not None
        assert result.failure.category is FailureCategory.LOCKED
        assert result.failure.retryable
        assert f"rebuilt 0 of {len(HOSTILE) + 1} indexes" in result.failure.message

    def test_a_stop_on_the_way_tells_what_is_done(self, tmp_path: Path) -> None:
        path = hostile_database(tmp_path / "app.db")
        control = RecordingControl(stop_at=4)

        result = run(path, "reindex", control)

        assert result.outcome is Outcome.CANCELLED
        assert result.reason == f"stopped after it rebuilt 2 of {len(HOSTILE) + 1} indexes."

    def test_an_interrupt_on_the_way_tells_what_is_done(self, tmp_path: Path) -> None:
        path = hostile_database(tmp_path / "app.db")
        control = RecordingControl()
        worker = worker_on(path, control)
        control.on_progress = lambda progress: worker.interrupt() if progress.done == 3 else None

        result = worker.execute(operation("reindex"))

        assert result.outcome is Outcome.CANCELLED
        assert result.reason.startswith("stopped after it rebuilt 3 of")
        assert result.after["indexes_rebuilt"] == 3
        assert "free_pages" in result.after

    def test_it_tells_how_many_are_done(self, tmp_path: Path) -> None:
        path = hostile_database(tmp_path / "app.db")
        control = RecordingControl()

        run(path, "reindex", control)

        total = len(HOSTILE) + 1
        assert [progress.done for progress in control.progresses] == list(range(total + 1))
        assert {(progress.total, progress.unit) for progress in control.progresses} == {(total, "indexes")}

    def test_no_percentage_is_made_up_for_a_single_index(self, tmp_path: Path) -> None:
        path = filled_database(tmp_path / "app.db", rows=100)
        control = RecordingControl()

        result = run(path, "reindex", control)

        assert result.after["indexes_rebuilt"] == 1
        assert control.progresses == [Progress(phase="reindex: SQLite does not tell how far it is")]

    def test_a_database_without_an_index_is_skipped(self, tmp_path: Path) -> None:
        path = tmp_path / "app.db"
        with apsw.Connection(str(path)) as connection:
            connection.execute("CREATE TABLE t(a)")
        connection.close()

        result = run(path, "reindex")

        assert (result.outcome, result.reason) == (Outcome.SKIPPED, "the database has no index.")
        assert result.after["indexes_rebuilt"] == 0
