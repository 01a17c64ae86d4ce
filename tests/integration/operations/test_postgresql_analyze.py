"""ANALYZE: the statistics that somebody else finds in the catalogues."""

import pytest

from tests.integration.operations.doubles import RecordingControl
from tests.integration.operations.postgres_ground import change, column, holding, plan, run, value
from tests.postgres import PostgresServer
from worker_service.domain.outcome import Outcome, Verdict

ANALYZES = "SELECT analyze_count FROM pg_stat_all_tables WHERE relid = %s::regclass"
STATISTICS = "SELECT count(*) FROM pg_stats WHERE tablename = %s"
PARTITIONED = (
    "CREATE TABLE p (a int) PARTITION BY RANGE (a)",
    "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (500)",
    "CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (500) TO (1000) PARTITION BY RANGE (a)",
    "CREATE TABLE p21 PARTITION OF p2 FOR VALUES FROM (500) TO (1000)",
    "CREATE TABLE empty_parent (a int) PARTITION BY RANGE (a)",
    "INSERT INTO p SELECT generate_series(0, 999)",
)


@pytest.fixture(params=["postgres", "newest_postgres"])
def server(request: pytest.FixtureRequest) -> PostgresServer:
    """Lend servers of two releases: how trees of partitions are analysed is not the same in both."""
    lent: PostgresServer = request.getfixturevalue(request.param)
    return lent


@pytest.fixture
def url(server: PostgresServer) -> str:
    url = server.create_database()
    change(
        url, "CREATE TABLE t (a int, b text)", "INSERT INTO t SELECT g, g::text FROM generate_series(1, 1000) AS g"
    )
    return url


INHERITED = (
    "CREATE TABLE a_child () INHERITS (t)",
    "INSERT INTO a_child SELECT g, g::text FROM generate_series(1, 99) AS g",
)
DONE_TO = "SELECT relname || ' ' || {what} FROM pg_stat_user_tables WHERE relname IN ('t', 'a_child') ORDER BY 1"


@pytest.mark.parametrize(("operation", "what"), [("vacuum", "vacuum_count"), ("analyze", "analyze_count")])
class TestInheritance:
    """From PostgreSQL 18 on a statement on a parent goes through those that inherit, unless told otherwise."""

    def test_a_parent_is_done_alone(self, url: str, operation: str, what: str) -> None:
        change(url, *INHERITED)

        result = run(url, operation, "public.t")

        assert result.outcome is Outcome.COMPLETED
        assert column(url, DONE_TO.format(what=what)) == ["a_child 0", "t 1"]

    def test_of_a_database_each_is_done_once(self, url: str, operation: str, what: str) -> None:
        change(url, *INHERITED)

        run(url, operation)

        assert column(url, DONE_TO.format(what=what)) == ["a_child 1", "t 1"]


class TestEffect:
    def test_a_database_gets_statistics_once_a_table_parents_too(self, url: str) -> None:
        change(url, *PARTITIONED)

        result = run(url, "analyze")

        assert (result.outcome, result.verdict) == (Outcome.COMPLETED, Verdict.EFFECTIVE)
        counts = {name: value(url, ANALYZES, name) for name in ("t", "p", "p1", "p2", "p21", "pg_class")}
        assert counts == dict.fromkeys(counts, 1)
        assert {name: value(url, STATISTICS, name) for name in ("t", "p", "p1", "p2", "p21")} == {
            "t": 2,
            "p": 1,
            "p1": 1,
            "p2": 1,
            "p21": 1,
        }
        assert result.after["stat_rows"] - result.before["stat_rows"] >= 6
        assert result.after["tables_failed"] == 0

    def test_one_table_is_analysed_alone(self, url: str) -> None:
        change(url, *PARTITIONED)

        result = run(url, "analyze", "public.p21")

        assert result.verdict is Verdict.EFFECTIVE
        assert [value(url, ANALYZES, name) for name in ("p21", "p1", "t")] == [1, 0, 0]

    def test_a_parent_is_analysed_with_its_partitions_where_the_server_cannot_do_it_alone(
        self, server: PostgresServer, url: str
    ) -> None:
        change(url, *PARTITIONED)

        result = run(url, "analyze", "public.p")

        with_partitions = int(int(server.version.split(".")[0]) < 18)
        assert result.after["tables_analysed"] == 1 + 3 * with_partitions
        counts = [value(url, ANALYZES, name) for name in ("p", "p1", "p2", "p21", "t")]
        assert counts == [1, *[with_partitions] * 3, 0]

    def test_a_table_without_rows_has_no_statistics(self, url: str) -> None:
        change(url, "CREATE TABLE bare (a int)")

        result = run(url, "analyze", "public.bare")

        assert (result.outcome, result.verdict) == (Outcome.COMPLETED, Verdict.NO_EFFECT)
        assert value(url, STATISTICS, "bare") == 0

    def test_a_plan_changes_nothing(self, url: str) -> None:
        statements = plan(url, "analyze", "public.t", skip_locked=True)

        assert [statement.replace("ONLY ", "") for statement in statements] == [
            'ANALYZE (SKIP_LOCKED) "public"."t"'
        ]
        assert value(url, ANALYZES, "t") == 0


class TestFailures:
    def test_an_index_whose_function_fails_fails_its_table_alone(self, url: str) -> None:
        change(
            url,
            "CREATE FUNCTION f(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1; END'",
            "CREATE INDEX ON t (f(a))",
            "CREATE OR REPLACE FUNCTION f(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS "
            "'BEGIN RAISE EXCEPTION ''broken''; END'",
        )

        result = run(url, "analyze")

        assert (value(url, ANALYZES, "t"), value(url, ANALYZES, "pg_class")) == (0, 1)
        assert result.verdict is Verdict.PARTIALLY_EFFECTIVE
        assert "public.t: " in result.reason
        assert "broken" in result.reason

    def test_a_partition_that_is_locked_keeps_its_siblings_no_longer(self, url: str) -> None:
        change(url, *PARTITIONED)
        with holding(url, "LOCK TABLE p1 IN SHARE UPDATE EXCLUSIVE MODE"):
            result = run(url, "analyze", lock_timeout_ms=50)

        analysed = {name: value(url, ANALYZES, name) for name in ("p1", "p2", "p21", "t")}
        assert analysed == {"p1": 0, "p2": analysed["p2"], "p21": analysed["p21"], "t": 1}
        assert analysed["p21"] >= 1
        assert result.verdict is Verdict.PARTIALLY_EFFECTIVE
        assert "public.p1: Another session held a lock" in result.reason

    def test_a_role_without_rights_is_told(self, url: str) -> None:
        change(url, "CREATE ROLE nobody_special LOGIN")
        control = RecordingControl()
        try:
            result = run(url.replace("postgres@", "nobody_special@"), "analyze", control=control)
        finally:
            change(url, "DROP ROLE nobody_special")

        assert column(url, "SELECT relname FROM pg_stat_user_tables WHERE analyze_count > 0") == []
        assert result.outcome is Outcome.FAILED
        assert result.failure is not None
        assert result.failure.reason == "PERMISSION_DENIED"
        assert any("system catalogues are left to autovacuum" in text for _, text in control.lines)
