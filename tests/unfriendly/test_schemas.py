"""Schemas that need what is not here, and names and tables of every kind."""

from pathlib import Path

import apsw
import pytest

from tests.integration.operations.databases import HOSTILE, content, query
from tests.integration.operations.doubles import RecordingControl, operation, run, target_at
from tests.unfriendly.ground import CHECKS, DEFAULTS, bytes_stay, indexed_database, rows_stay, told
from worker_service.domain.outcome import FailureCategory, Outcome, Verdict
from worker_service.operations.sqlite import SqliteEngine
from worker_service.operations.sqlite.session import SqlValue

NAMES = (*HOSTILE, "Ünïcode ☃ 表", "new\nline", "[bracket]", "`tick`", "main.item", "sqlite-like", "REINDEX", " ")
NEEDS = ("collation", "function")


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _as_it_is(*values: SqlValue) -> SqlValue:
    return values[0]


def with_the_applications_own(connection: apsw.Connection) -> None:
    connection.create_collation("mine", lambda left, right: (left > right) - (left < right))
    connection.create_scalar_function("mine", _as_it_is, 1, deterministic=True)


def database_that_needs(path: Path, what: str) -> Path:
    """A table whose index only the application understands, beside others that anybody does."""
    indexed_database(path)
    connection = apsw.Connection(str(path))
    with_the_applications_own(connection)
    column = {"collation": "word COLLATE mine", "function": "mine(word)"}[what]
    connection.execute("CREATE TABLE theirs(word TEXT); INSERT INTO theirs VALUES ('b'), ('a'), ('c')")
    connection.execute(f"CREATE INDEX their_word ON theirs({column})")
    connection.close()
    return path


def sound_for_the_application(path: Path) -> bool:
    connection = apsw.Connection(str(path))
    with_the_applications_own(connection)
    found = connection.execute("PRAGMA integrity_check").fetchall()
    connection.close()
    return found == [("ok",)]


class TestMissing:
    @pytest.mark.parametrize("what", NEEDS)
    def test_vacuum_needs_all_of_it_and_fails(self, tmp_path: Path, what: str) -> None:
        path = database_that_needs(tmp_path / "app.db", what)

        with bytes_stay(path):
            result = run(path, "vacuum")

        assert told(result).category is FailureCategory.SCHEMA
        assert not told(result).retryable
        assert f"uses a {what}" in result.reason
        assert "run this from the application" in result.reason
        assert sound_for_the_application(path)

    @pytest.mark.parametrize(
        ("name", "done"), [("analyze", "analysed 1 of 2 tables"), ("reindex", "rebuilt 2 of 3 indexes")]
    )
    @pytest.mark.parametrize("what", NEEDS)
    def test_the_others_do_the_rest_and_name_what_failed(
        self, tmp_path: Path, what: str, name: str, done: str
    ) -> None:
        path = database_that_needs(tmp_path / "app.db", what)
        rows, control = content(path), RecordingControl()

        result = run(path, name, control)

        assert (result.outcome, result.verdict) == (Outcome.COMPLETED, Verdict.PARTIALLY_EFFECTIVE)
        assert result.reason.startswith(f"{done}; failed: their")
        assert f"uses a {what}" in result.reason
        assert "run this from the application" in result.reason
        assert [level for level, _ in control.lines] == ["warning"]
        assert content(path) == rows
        assert sound_for_the_application(path)

    @pytest.mark.parametrize("what", NEEDS)
    def test_a_check_that_needs_it_does_not_say_that_all_is_well(self, tmp_path: Path, what: str) -> None:
        path = database_that_needs(tmp_path / "app.db", what)

        with bytes_stay(path):
            result = run(path, "integrity_check")

        assert told(result).category is FailureCategory.SCHEMA
        assert "run this from the application" in result.reason

    @pytest.mark.parametrize("name", DEFAULTS)
    def test_a_table_of_a_missing_module_is_left_alone(self, tmp_path: Path, name: str) -> None:
        path = indexed_database(tmp_path / "app.db")
        connection = apsw.Connection(str(path))
        connection.pragma("writable_schema", 1)
        sql = "CREATE VIRTUAL TABLE far USING nowhere(a)"
        connection.execute("INSERT INTO sqlite_schema VALUES ('table', 'far', 'far', 0, ?)", (sql,))
        connection.close()
        rows = query(path, "SELECT * FROM item")

        result = run(path, name)

        assert (result.outcome, result.verdict) == (Outcome.COMPLETED, Verdict.EFFECTIVE)
        assert query(path, "SELECT * FROM item") == rows
        assert query(path, "SELECT count(*) FROM sqlite_schema WHERE name = 'far'") == [(1,)]
        assert query(path, "PRAGMA integrity_check") == [("ok",)]


class TestNames:
    @pytest.mark.parametrize("journal", ["delete", "wal"])
    @pytest.mark.parametrize("name", DEFAULTS)
    def test_indexes_and_tables_may_be_called_anything(self, tmp_path: Path, name: str, journal: str) -> None:
        path = indexed_database(tmp_path / "app.db", journal=journal)
        connection = apsw.Connection(str(path))
        for number, word in enumerate(NAMES):
            connection.execute(f"CREATE INDEX {quoted(word)} ON item(name, {number})")
            table = quoted(f"{word} table")
            connection.execute(f"CREATE TABLE {table}({quoted(word)} UNIQUE); INSERT INTO {table} VALUES (1), (2)")
        connection.close()

        with rows_stay(path):
            result = run(path, name)

        assert (result.outcome, result.verdict) == (Outcome.COMPLETED, Verdict.EFFECTIVE), result.reason
        assert query(path, "SELECT count(*) FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL") == [
            (len(NAMES) + 1,)
        ]

    @pytest.mark.parametrize("word", NAMES)
    def test_reindex_means_the_index_of_that_name_and_no_other_thing(self, tmp_path: Path, word: str) -> None:
        path = indexed_database(tmp_path / "app.db")
        connection = apsw.Connection(str(path))
        connection.execute(f"CREATE INDEX {quoted(word)} ON item(name, 1)")
        connection.close()

        plan = SqliteEngine().plan(target_at(path), operation("reindex"))

        assert f"REINDEX main.{quoted(word)}" in plan
        assert run(path, "reindex").reason == "rebuilt 3 indexes, 1 of them automatic."


class TestKindsOfTables:
    @pytest.mark.parametrize("name", [*DEFAULTS, *CHECKS])
    @pytest.mark.parametrize("journal", ["delete", "wal"])
    def test_every_kind_is_maintained_or_left_alone(self, tmp_path: Path, name: str, journal: str) -> None:
        path = indexed_database(tmp_path / "app.db", journal=journal)
        connection = apsw.Connection(str(path))
        connection.execute(
            "CREATE TABLE keyed(word TEXT PRIMARY KEY, number) WITHOUT ROWID; CREATE INDEX n ON keyed(number);"
            "INSERT INTO keyed VALUES ('b', 1), ('a', 2);"
            "CREATE TABLE strict_one(a INTEGER, b INTEGER AS (a + 1) STORED, CHECK (a > 0)) STRICT;"
            "INSERT INTO strict_one VALUES (1); CREATE INDEX some ON strict_one(b) WHERE b > 1;"
            "CREATE VIRTUAL TABLE words USING fts5(body); INSERT INTO words VALUES ('a b'), ('c');"
            "CREATE VIRTUAL TABLE boxes USING rtree(id, low, high); INSERT INTO boxes VALUES (1, 2, 3);"
            "CREATE VIEW seen AS SELECT * FROM keyed;"
            "CREATE TRIGGER loud AFTER INSERT ON keyed BEGIN SELECT raise(ABORT, 'no'); END;"
        )
        connection.close()

        with rows_stay(path):
            result = run(path, name)

        assert (result.outcome, result.verdict) == (Outcome.COMPLETED, Verdict.EFFECTIVE), result.reason
        assert query(path, "SELECT rowid FROM words WHERE words MATCH 'c'") == [(2,)]
        assert query(path, "SELECT id FROM boxes WHERE low > 1") == [(1,)]
        assert query(path, "SELECT * FROM seen ORDER BY word") == [("a", 2), ("b", 1)]

    def test_the_key_of_a_table_without_rowid_is_rebuilt_too(self, tmp_path: Path) -> None:
        path = tmp_path / "app.db"
        connection = apsw.Connection(str(path))
        connection.execute("CREATE TABLE keyed(word TEXT PRIMARY KEY, number) WITHOUT ROWID")
        connection.execute("INSERT INTO keyed VALUES ('b', 1), ('a', 2)")
        connection.close()

        with rows_stay(path):
            result = run(path, "reindex")

        assert result.reason == "rebuilt 1 index, 1 of them automatic."
