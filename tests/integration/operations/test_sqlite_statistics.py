import shutil
from pathlib import Path

import apsw
import pytest

from tests.integration.operations.databases import content, filled_database, query, with_foreign_collation
from tests.integration.operations.doubles import RecordingControl, operation, run, target_at, worker_on
from worker_service.domain.errors import OperationCancelledError
from worker_service.domain.outcome import FailureCategory, Outcome, Verdict
from worker_service.operations.sqlite import SqliteEngine
from worker_service.operations.sqlite.analyze import change, with_change
from worker_service.operations.sqlite.measures import statistics_changed
from worker_service.operations.sqlite.optimize import optimizes_from_a_fresh_connection

STATISTICS = "SELECT * FROM sqlite_stat1 ORDER BY 1, 2"


class TestAnalyze:
    @pytest.mark.parametrize("journal", ["delete", "wal"])
    def test_it_renews_the_statistics_and_changes_no_row(self, tmp_path: Path, journal: str) -> None:
        path = filled_database(tmp_path / "app.db", journal=journal)
        before = content(path)

        result = run(path, "analyze")

        assert (result.outcome, result.verdict) == (Outcome.COMPLETED, Verdict.EFFECTIVE)
        assert result.reason == "analysed 1 table, 1 entry of the statistics changed."
        assert result.before["stat_rows"] == 0 < result.after["stat_rows"]
        assert result.after["stat_rows_changed"] == 1
        assert content(path) == before

    def test_the_measure_counts_the_samples_too(self, tmp_path: Path) -> None:
        path = filled_database(tmp_path / "app.db")

        result = run(path, "analyze")

        entries = len(query(path, STATISTICS))
        samples = len(query(path, "SELECT * FROM sqlite_stat4"))
        assert samples > entries > 0
        assert result.after["stat_rows"] == entries + samples

    def test_the_statistics_are_those_of_a_plain_analyze(self, tmp_path: Path) -> None:
        ours = filled_database(tmp_path / "ours.db")
        with apsw.Connection(str(ours)) as connection:
            connection.execute("CREATE VIRTUAL TABLE ft USING fts5(body); INSERT INTO ft VALUES ('a b c')")
            connection.execute('CREATE TABLE "od d""t"(a UNIQUE); INSERT INTO "od d""t" VALUES (1), (2)')
            connection.execute("CREATE VIEW v AS SELECT * FROM item")
        connection.close()
        theirs = tmp_path / "theirs.db"
        shutil.copy(ours, theirs)
        query(theirs, "ANALYZE")

        run(ours, "analyze")

        assert query(ours, STATISTICS) == query(theirs, STATISTICS)

    def test_one_that_changes_nothing_has_no_effect(self, tmp_path: Path) -> None:
        path = filled_database(tmp_path / "app.db")
        run(path, "analyze")

        result = run(path, "analyze")

        assert (result.outcome, result.verdict) == (Outcome.COMPLETED, Verdict.NO_EFFECT)
        assert result.after["stat_rows_changed"] == 0

    def test_a_missing_collation_fails_one_table_only(self, tmp_path: Path) -> None:
        path = with_foreign_collation(tmp_path / "app.db")

        result = run(path, "analyze")

        assert (result.outcome, result.verdict) == (Outcome.COMPLETED, Verdict.PARTIALLY_EFFECTIVE)
        assert "analysed 1 of 2 tables; failed: theirs:" in result.reason
        assert query(path, "SELECT DISTINCT tbl FROM sqlite_stat1") == [("item",)]

    def test_the_limit_is_set_first(self, tmp_path: Path) -> None:
        path = filled_database(tmp_path / "app.db")

        plan = SqliteEngine().plan(target_at(path), operation("analyze", analysis_limit=100))

        assert plan == ("PRAGMA main.analysis_limit = 100", 'ANALYZE main."item"')
        assert run(path, "analyze", analysis_limit=100).verdict is Verdict.EFFECTIVE

    def test_a_database_without_a_table_is_skipped(self, tmp_path: Path) -> None:
        path = tmp_path / "app.db"
        with apsw.Connection(str(path)) as connection:
            connection.execute("CREATE TABLE t(a); DROP TABLE t")
        connection.close()

        result = run(path, "analyze")

        assert (result.outcome, result.reason) == (Outcome.SKIPPED, "the database has no table.")

    def test_a_stop_before_the_first_table_leaves_nothing(self, tmp_path: Path) -> None:
        path = filled_database(tmp_path / "app.db")

        result = run(path, "analyze", RecordingControl(stop_at=2))

        assert (result.outcome, result.reason) == (Outcome.CANCELLED, "stopped; the database is as it was.")
        assert result.after["stat_rows"] == 0

    def test_an_interrupt_stops_the_statement(self, tmp_path: Path) -> None:
        path = filled_database(tmp_path / "app.db", rows=20_000, width=10)
        control = RecordingControl()
        worker = worker_on(path, control)
        control.on_progress = lambda progress: worker.interrupt()

        result = worker.execute(operation("analyze"))

        assert result.outcome is Outcome.CANCELLED


class TestOptimize:
    def test_it_analyses_what_sqlite_finds_stale(self, tmp_path: Path) -> None:
        path = filled_database(tmp_path / "app.db")
        before = content(path)
        control = RecordingControl()

        result = run(path, "optimize", control)

        assert (result.outcome, result.verdict) == (Outcome.COMPLETED, Verdict.EFFECTIVE)
        assert result.reason == "ran PRAGMA optimize, 1 entry of the statistics changed."
        assert control.lines == [("info", 'SQLite asks for ANALYZE "main"."item"')]
        assert content(path) == before

    def test_the_statistics_are_those_of_a_plain_optimize(self, tmp_path: Path) -> None:
        ours = filled_database(tmp_path / "ours.db")
        theirs = tmp_path / "theirs.db"
        shutil.copy(ours, theirs)
        query(theirs, "PRAGMA optimize = 0x10012")

        run(ours, "optimize")

        assert query(ours, STATISTICS) == query(theirs, STATISTICS)

    def test_it_says_why_it_did_nothing(self, tmp_path: Path) -> None:
        path = filled_database(tmp_path / "app.db")
        run(path, "optimize")

        result = run(path, "optimize")

        assert result.verdict is Verdict.NO_EFFECT
        assert "no table whose statistics" in result.reason
        assert SqliteEngine().plan(target_at(path), operation("optimize")) == ()

    def test_its_plan_is_the_limit_and_the_mask(self, tmp_path: Path) -> None:
        path = filled_database(tmp_path / "app.db")

        plan = SqliteEngine().plan(target_at(path), operation("optimize", analysis_limit=50))

        assert plan == ("PRAGMA main.analysis_limit = 50", "PRAGMA main.optimize(0x10012)")

    @pytest.mark.parametrize("journal", ["delete", "wal"])
    def test_its_plan_looks_at_many_tables_and_changes_nothing(self, tmp_path: Path, journal: str) -> None:
        path = filled_database(tmp_path / "app.db", journal=journal)
        query(path, "CREATE TABLE other(a PRIMARY KEY)")
        query(path, "INSERT INTO other VALUES (1), (2)")
        before = path.read_bytes()

        plan = SqliteEngine().plan(target_at(path), operation("optimize"))
        after = path.read_bytes()
        run(path, "optimize")
        nothing = SqliteEngine().plan(target_at(path), operation("optimize"))

        assert (plan, nothing) == (("PRAGMA main.optimize(0x10012)",), ())
        assert after == before
        assert [file.name for file in tmp_path.iterdir()] == ["app.db"]

    def test_its_plan_beside_a_log_that_is_in_use(self, tmp_path: Path) -> None:
        path = filled_database(tmp_path / "app.db", journal="wal")
        with apsw.Connection(str(path)) as application:
            application.execute("CREATE TABLE other(a PRIMARY KEY); INSERT INTO other VALUES (1), (2)")

            plan = SqliteEngine().plan(target_at(path), operation("optimize"))
        application.close()

        assert plan == ("PRAGMA main.optimize(0x10012)",)

    def test_an_interrupt_tells_what_changed_before(self, tmp_path: Path) -> None:
        path = filled_database(tmp_path / "app.db")
        control = RecordingControl()
        worker = worker_on(path, control)
        control.on_progress = lambda progress: worker.interrupt()

        result = worker.execute(operation("optimize"))

        assert (result.outcome, result.reason) == (
            Outcome.CANCELLED,
            "stopped; 0 entries of the statistics changed before.",
        )
        assert result.after["stat_rows_changed"] == 0

    def test_a_missing_collation_fails_it(self, tmp_path: Path) -> None:
        result = run(with_foreign_collation(tmp_path / "app.db"), "optimize")

        assert result.failure is not None
        assert result.failure.category is FailureCategory.SCHEMA

    @pytest.mark.parametrize(("version", "useful"), [("3.40.1", False), ("3.46.0", True), ("3.54.1", True)])
    def test_the_library_tells_whether_it_works_at_all(self, version: str, useful: bool) -> None:
        assert optimizes_from_a_fresh_connection(version) is useful


class TestOptimizeOfAnOldLibrary:
    @pytest.fixture(autouse=True)
    def _old_library(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: "3.40.1")

    def test_it_analyses_the_tables_without_statistics(self, tmp_path: Path) -> None:
        path = filled_database(tmp_path / "app.db")

        plan = SqliteEngine().plan(target_at(path), operation("optimize"))
        result = run(path, "optimize")

        assert plan == ("PRAGMA main.analysis_limit = 400", 'ANALYZE main."item"')
        assert (result.outcome, result.verdict) == (Outcome.COMPLETED, Verdict.EFFECTIVE)

    def test_it_says_that_it_cannot_tell_what_is_stale(self, tmp_path: Path) -> None:
        path = filled_database(tmp_path / "app.db")
        run(path, "analyze")

        result = run(path, "optimize")

        assert result.verdict is Verdict.NO_EFFECT
        assert "cannot tell" in result.reason
        assert SqliteEngine().plan(target_at(path), operation("optimize")) == ()


class TestChange:
    def test_what_cannot_be_read_is_unknown(self) -> None:
        changed = statistics_changed({}, None)

        assert change(changed, "analysed 1 table")[0] is Verdict.UNKNOWN
        assert with_change({"pages": 1.0}, changed) == {"pages": 1.0}


class TestStop:
    def test_it_is_raised_when_nothing_ran(self, tmp_path: Path) -> None:
        path = filled_database(tmp_path / "app.db")

        with pytest.raises(OperationCancelledError):
            run(path, "analyze", RecordingControl(stop_at=1))
