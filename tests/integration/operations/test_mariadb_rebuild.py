"""OPTIMIZE TABLE and ALTER TABLE ... FORCE: what is recorded is what the files say."""

from collections.abc import Iterator

import pytest

from tests.integration.operations.doubles import RecordingControl
from tests.integration.operations.mariadb_databases import Database, failure, logged
from worker_service.domain.operation import Progress
from worker_service.domain.outcome import FailureCategory, Outcome, Verdict

NAMES = [
    'od d"ix :p %s',
    "back`tick",
    "MiXeD",
    "q'uote",
    "sla/sh.dot",
    "#sharp",
    "é☃",
    "100%",
    "x" * 64,
    "*/ DROP",
]
REBUILDS = ["vacuum", "reindex"]


class TestVacuum:
    def test_it_gives_back_the_room_of_deleted_rows(self, database: Database) -> None:
        database.table("item", rows=6_000, kept=20)
        before, rows = database.file_bytes("item"), database.checksums("item")

        result = database.maintain("vacuum")

        assert result.verdict is Verdict.EFFECTIVE
        assert result.before["file_bytes"] == before
        assert result.after["file_bytes"] == database.file_bytes("item") < before / 2
        assert result.after["tables_rebuilt"] == 1
        assert "rebuilt 1 table, reclaimed" in result.reason
        assert database.checksums("item") == rows

    def test_what_is_small_already_is_no_effect(self, database: Database) -> None:
        database.table("item", rows=100)
        database.maintain("vacuum")
        space = database.spaces()["item"]

        result = database.maintain("vacuum")

        assert result.verdict is Verdict.NO_EFFECT
        assert "already as small as they can be" in result.reason
        assert database.spaces()["item"] != space

    def test_rebuild_does_it_by_alter(self, database: Database) -> None:
        database.table("item", rows=6_000, kept=20)

        result = database.maintain("vacuum", rebuild=True)

        assert result.verdict is Verdict.EFFECTIVE

    @pytest.mark.parametrize("engine", ["Aria", "MyISAM"])
    def test_other_engines_tables_shrink_too(self, database: Database, engine: str) -> None:
        database.table("item", rows=5_000, kept=10, engine=engine)
        before = database.file_bytes("item")

        result = database.maintain("vacuum")

        assert result.verdict is Verdict.EFFECTIVE
        assert database.file_bytes("item") < before

    def test_an_ok_that_left_the_files_as_they_were_is_no_effect(self, database: Database) -> None:
        database.run("CREATE TABLE page (id INT PRIMARY KEY, text TEXT, FULLTEXT (text))")
        spaces = database.spaces()
        database.run("SET GLOBAL innodb_optimize_fulltext_only = ON")
        try:
            result = database.maintain("vacuum")
        finally:
            database.run("SET GLOBAL innodb_optimize_fulltext_only = OFF")

        assert result.verdict is Verdict.NO_EFFECT
        assert result.after["tables_rebuilt"] == 0
        assert database.spaces() == spaces

    def test_a_table_with_a_history_is_rebuilt_and_keeps_it(self, database: Database) -> None:
        database.run(
            "CREATE TABLE item (id INT PRIMARY KEY, n INT) WITH SYSTEM VERSIONING",
            "INSERT INTO item VALUES (1, 1)",
            "UPDATE item SET n = 2",
        )
        space = database.spaces()["item"]

        result = database.maintain("vacuum")

        assert result.after["tables_rebuilt"] == 1
        assert database.spaces()["item"] != space
        assert database.run("SELECT COUNT(*) FROM item FOR SYSTEM_TIME ALL") == [(2,)]


class TestReindex:
    def test_every_file_is_another_one(self, database: Database) -> None:
        database.table("one", rows=10)
        database.table("two", rows=10)
        before, rows = database.spaces(), database.checksums("one", "two")

        result = database.maintain("reindex")

        after = database.spaces()
        assert result.verdict is Verdict.EFFECTIVE
        assert result.reason == "rebuilt 2 tables with all their indexes."
        assert all(after[name] != before[name] for name in ("one", "two"))
        assert database.checksums("one", "two") == rows

    def test_partitions_are_rebuilt_each(self, database: Database) -> None:
        database.run("CREATE TABLE item (id INT PRIMARY KEY) PARTITION BY HASH (id) PARTITIONS 3")
        before = set(database.spaces().values())

        result = database.maintain("reindex")

        assert result.verdict is Verdict.EFFECTIVE
        assert before.isdisjoint(database.spaces().values())

    def test_online_refuses_where_writers_would_wait(self, database: Database) -> None:
        database.run("CREATE TABLE page (id INT PRIMARY KEY, text TEXT, FULLTEXT (text))")
        before = database.spaces()

        result = database.maintain("reindex", online=True)

        assert failure(result).category is FailureCategory.INVALID
        assert "leave out online=true" in result.reason
        assert database.spaces()["page"] == before["page"]


class TestNames:
    @pytest.mark.parametrize("operation", [*REBUILDS, "analyze", "integrity_check"])
    def test_each_is_taken_as_it_is(self, database: Database, operation: str) -> None:
        for name in NAMES:
            database.table(name, rows=3)

        result = database.maintain(operation, child="*/ x", attempt=2)

        assert result.outcome is Outcome.COMPLETED
        assert "failed" not in result.reason
        assert str(len(NAMES)) in result.reason

    def test_the_database_may_have_any_too(self, database: Database) -> None:
        odd = Database(server=database.server, name=database.server.create_database("a%b:c`d E/f_é"))
        odd.table("item", rows=6_000, kept=20)
        try:
            result = odd.maintain("vacuum")
        finally:
            odd.server.drop_database(odd.name)

        assert result.verdict is Verdict.EFFECTIVE

    def test_a_database_is_not_taken_for_one_that_matches_it_as_a_pattern(self, database: Database) -> None:
        other = database.name.replace("_", "x")
        database.table("item", rows=10)
        database.server.run(f"CREATE DATABASE {other}", f"CREATE TABLE {other}.item (id INT)")
        try:
            result = database.maintain("vacuum")
        finally:
            database.server.drop_database(other)

        assert result.after["file_bytes"] == database.file_bytes("item")


class TestOneTable:
    def test_it_alone_is_maintained(self, database: Database) -> None:
        database.table("one", rows=10)
        database.table("two", rows=10)
        before = database.spaces()

        result = database.maintain("reindex", table="two")

        after = database.spaces()
        assert result.after["tables_rebuilt"] == 1
        assert after["one"] == before["one"]
        assert after["two"] != before["two"]

    def test_one_that_is_not_there_is_skipped(self, database: Database) -> None:
        result = database.maintain("vacuum", table="gone")

        assert result.outcome is Outcome.SKIPPED
        assert "there is no table 'gone'" in result.reason

    def test_a_view_is_skipped_with_the_reason(self, database: Database) -> None:
        database.run("CREATE VIEW seen AS SELECT 1")

        result = database.maintain("vacuum", table="seen")

        assert result.outcome is Outcome.SKIPPED
        assert result.reason == "nothing to do: seen: a view has no rows of its own."


class TestWhatIsLeftAlone:
    def test_each_kind_has_its_reason(self, database: Database) -> None:
        database.table("item", rows=10)
        database.run(
            "CREATE VIEW v AS SELECT 1",
            "CREATE SEQUENCE s",
            "CREATE TABLE m (id INT) ENGINE=MEMORY",
            "CREATE TABLE c (id INT NOT NULL) ENGINE=CSV",
        )
        control = RecordingControl()

        result = database.maintain("vacuum", control)

        assert result.outcome is Outcome.COMPLETED
        assert result.after["tables_rebuilt"] == 1
        assert "left alone, as the log explains: c; m; s; v" in result.reason
        assert "v is left alone: a view has no rows of its own" in logged(control)
        assert "s is left alone: a sequence is a single row" in logged(control)
        assert "m is left alone: its rows are in memory" in logged(control)

    def test_a_database_of_nothing_else_is_skipped(self, database: Database) -> None:
        database.run("CREATE VIEW v AS SELECT 1")

        assert database.maintain("analyze").outcome is Outcome.SKIPPED

    def test_an_empty_database_is_skipped(self, database: Database) -> None:
        result = database.maintain("vacuum")

        assert result.outcome is Outcome.SKIPPED
        assert "no table" in result.reason

    def test_a_table_that_is_dropped_meanwhile_is_no_failure(self, database: Database) -> None:
        for name in ("a", "b"):
            database.table(name, rows=3)
        control = RecordingControl(on_progress=lambda told: _drop_b(told, database))

        result = database.maintain("vacuum", control)

        assert result.outcome is Outcome.COMPLETED
        assert "b: it is not there any more" in logged(control)
        assert result.after["tables_failed"] == 0


class TestSettings:
    """What an administrator may have set for everyone must not change what is understood or done."""

    @pytest.fixture
    def changed(self, database: Database) -> Iterator[Database]:
        settings = {
            "lc_messages": "de_DE",
            "sql_mode": "ANSI_QUOTES,NO_ZERO_DATE,TRADITIONAL",
            "lock_wait_timeout": 0,
        }
        before = {name: database.run(f"SELECT @@GLOBAL.{name}")[0][0] for name in settings}
        for name in ("held", "zero"):
            database.run(f"CREATE TABLE {name} (id INT PRIMARY KEY)")
        database.run(
            "SET SESSION sql_mode = ''",
            "ALTER TABLE zero ADD day DATE NOT NULL DEFAULT '0000-00-00'",
            "INSERT INTO zero (id) VALUES (1)",
        )
        database.run(*(f"SET GLOBAL {name} = {value!r}" for name, value in settings.items()))
        yield database
        database.run(*(f"SET GLOBAL {name} = {value!r}" for name, value in before.items()))

    @pytest.mark.parametrize("operation", REBUILDS)
    def test_a_refused_lock_and_a_zero_date_are_what_they_are(self, changed: Database, operation: str) -> None:
        before = changed.spaces()

        with changed.reader_of("held"):
            result = changed.maintain(operation, lock_timeout_s=1)

        after = changed.spaces()
        assert result.verdict is Verdict.PARTIALLY_EFFECTIVE
        assert "held: Another connection holds the table" in result.reason
        assert "error 1205" in result.reason
        assert after["held"] == before["held"]
        assert after["zero"] != before["zero"]

    def test_words_without_a_number_are_understood(self, changed: Database) -> None:
        with changed.server.connect() as other, other.cursor() as cursor:
            cursor.execute("FLUSH TABLES WITH READ LOCK")
            result = changed.maintain("vacuum", lock_timeout_s=1)

        assert failure(result).category is FailureCategory.LOCKED
        assert "error 1205" in result.reason

    @pytest.mark.parametrize("setting", ["sql_select_limit = 1", "alter_algorithm = 'INSTANT'"])
    @pytest.mark.parametrize("operation", REBUILDS)
    def test_every_table_is_rebuilt_all_the_same(self, database: Database, operation: str, setting: str) -> None:
        for name in ("a", "b"):
            database.table(name, rows=3)
        before = database.spaces()
        database.run(f"SET GLOBAL {setting}")
        try:
            result = database.maintain(operation)
        finally:
            database.run(f"SET GLOBAL {setting.partition(' ')[0]} = DEFAULT")

        assert result.outcome is Outcome.COMPLETED
        assert {name for name, space in database.spaces().items() if space != before[name]} == {"a", "b"}


class TestLocks:
    @pytest.mark.parametrize("operation", REBUILDS)
    def test_a_lock_that_is_not_to_be_had_is_no_success(self, database: Database, operation: str) -> None:
        for name in ("held", "free"):
            database.table(name, rows=10)
        before = database.spaces()

        with database.reader_of("held"):
            result = database.maintain(operation, lock_timeout_s=1)

        after = database.spaces()
        assert result.verdict is Verdict.PARTIALLY_EFFECTIVE
        assert result.after["tables_rebuilt"] == 1
        assert result.after["tables_failed"] == 1
        assert "held: Another connection holds the table" in result.reason
        assert after["held"] == before["held"]
        assert after["free"] != before["free"]

    def test_when_every_table_is_held_it_has_failed_and_may_be_tried_again(self, database: Database) -> None:
        database.table("held", rows=10)

        with database.reader_of("held"):
            result = database.maintain("vacuum", lock_timeout_s=1)

        assert failure(result).category is FailureCategory.LOCKED
        assert failure(result).retryable
        assert "error 1205" in result.reason

    def test_a_held_table_is_tried_again_after_the_others(self, database: Database) -> None:
        for name in ("a_held", "b_free"):
            database.table(name, rows=10)
        reader = database.reader_of("a_held")
        reader.__enter__()
        control = RecordingControl(on_progress=lambda told: _leave(told, reader))

        result = database.maintain("vacuum", control, lock_timeout_s=1)

        assert result.after["tables_rebuilt"] == 2
        assert result.after["tables_failed"] == 0


def _drop_b(told: Progress, database: Database) -> None:
    if told.done == 1:
        database.run("DROP TABLE IF EXISTS b")


def _leave(told: Progress, reader: object) -> None:
    if told.done == 1:
        reader.__exit__(None, None, None)  # type: ignore[attr-defined] # a context manager that is left early
