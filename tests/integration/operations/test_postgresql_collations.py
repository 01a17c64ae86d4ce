"""Collations that changed with the system: noted as current only when every index of theirs was really rebuilt."""

from collections.abc import Iterator

import pytest

from tests.integration.operations.doubles import RecordingControl
from tests.integration.operations.postgres_ground import (
    Running,
    change,
    column,
    file_of,
    holding,
    operation,
    plan,
    run,
    target,
    value,
)
from tests.postgres import PostgresServer
from worker_service.domain.errors import InvalidOperationError
from worker_service.domain.inspection import INSPECT, Inspection, Scope, WantedOperation
from worker_service.domain.lock import Lock
from worker_service.domain.operation import Operation
from worker_service.domain.outcome import FailureCategory, Outcome, Verdict
from worker_service.operations.postgresql import PostgresqlEngine, reindex

REFRESH = "refresh_collation_version"
OUTDATED = "SELECT collname FROM pg_collation WHERE collversion <> pg_collation_actual_version(oid)"
OWN = "SELECT datcollversion FROM pg_database WHERE datname = current_database()"
ACTUAL = "SELECT pg_database_collation_actual_version(oid) FROM pg_database WHERE datname = current_database()"


def with_versions(url: str) -> tuple[str, str]:
    """Word which provider's locales have versions here, for a collation and for a database."""
    if value(url, "SELECT count(*) FROM pg_collation WHERE collprovider = 'i' AND collversion <> ''"):
        return "provider = icu, locale = 'de'", "LOCALE_PROVIDER icu ICU_LOCALE 'de'"
    return "provider = builtin, locale = 'C.UTF-8'", "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'"


@pytest.fixture
def url(postgres_url: str) -> str:
    """A database with a collation that changed, four indexes that depend on it, and two that do not."""
    change(
        postgres_url,
        f"CREATE COLLATION old ({with_versions(postgres_url)[0]})",
        "CREATE TABLE t (a int PRIMARY KEY, b text COLLATE old, c text)",
        "CREATE INDEX tb ON t (b)",
        "CREATE INDEX expressed ON t ((c COLLATE old || 'x'))",
        "CREATE INDEX partly ON t (a) WHERE c COLLATE old < 'm'",
        "CREATE TYPE spread AS RANGE (subtype = text, collation = old)",
        "CREATE TABLE r (s spread)",
        "CREATE INDEX ranged ON r (s)",
        "CREATE INDEX tc ON t (c)",
        "INSERT INTO t SELECT i, 'row ' || i, 'row ' || i FROM generate_series(1, 50) AS i",
    )
    outdate(postgres_url, "old")
    return postgres_url


@pytest.fixture
def sorted_url(postgres: PostgresServer) -> Iterator[str]:
    """A database whose own collation has changed."""
    url = postgres.create_database()
    name = f"{url.rsplit('/', 1)[1]}_icu"
    change(url, f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' {with_versions(url)[1]}")
    mine = f"{url}_icu"
    change(
        mine,
        "CREATE TABLE t (a int PRIMARY KEY, b text)",
        "CREATE INDEX tb ON t (b)",
        "CREATE INDEX partly ON t (a) WHERE b < 'm'",
    )
    change(mine, "UPDATE pg_database SET datcollversion = '0.1' WHERE datname = current_database()")
    yield mine
    postgres.drop_database(mine)
    postgres.drop_database(url)


def outdate(url: str, collation: str) -> None:
    change(url, f"UPDATE pg_collation SET collversion = '0.1' WHERE collname = '{collation}'")


class TestRefresh:
    @pytest.mark.parametrize("concurrently", [True, False])
    def test_what_depends_is_rebuilt_and_the_version_noted(self, url: str, concurrently: bool) -> None:
        depending, others = ("tb", "expressed", "partly", "ranged"), ("t_pkey", "tc")
        before = {name: file_of(url, name) for name in (*depending, *others)}

        result = run(url, REFRESH, concurrently=concurrently)

        assert (result.outcome, result.verdict) == (Outcome.COMPLETED, Verdict.EFFECTIVE)
        assert "rebuilt 4 indexes; noted public.old 0.1 to " in result.reason
        assert {name for name in before if file_of(url, name) != before[name]} == set(depending)
        assert column(url, OUTDATED) == []
        assert (result.before["changed_collations"], result.after["changed_collations"]) == (1, 0)
        assert (result.after["indexes_rebuilt"], result.after["collations_refreshed"]) == (4, 1)

    def test_a_second_time_there_is_nothing_to_do(self, url: str) -> None:
        run(url, REFRESH)
        file = file_of(url, "tb")

        result = run(url, REFRESH)

        assert (result.outcome, file_of(url, "tb")) == (Outcome.SKIPPED, file)
        assert plan(url, REFRESH) == ()

    def test_a_plan_tells_the_indexes_and_then_the_collation(self, url: str) -> None:
        statements = plan(url, REFRESH)

        assert max(statements[:-1]) == 'REINDEX INDEX CONCURRENTLY "public"."tb"'
        assert statements[-1] == 'ALTER COLLATION "public"."old" REFRESH VERSION'
        assert len(statements) == 5

    def test_a_collation_without_an_index_is_noted_at_once(self, url: str) -> None:
        change(url, f"CREATE COLLATION unused ({with_versions(url)[0]})", "DROP TABLE t, r")
        outdate(url, "unused")

        result = run(url, REFRESH)

        assert result.verdict is Verdict.EFFECTIVE
        assert result.after["collations_refreshed"] == 2
        assert column(url, OUTDATED) == []

    def test_the_databases_own_is_noted_when_all_that_may_be_sorted_by_it_is_rebuilt(
        self, sorted_url: str
    ) -> None:
        before = {name: file_of(sorted_url, name) for name in ("t_pkey", "tb", "partly")}

        result = run(sorted_url, REFRESH)

        assert result.verdict is Verdict.EFFECTIVE
        assert "the default of test_" in result.reason
        assert {name for name in before if file_of(sorted_url, name) != before[name]} == {"tb", "partly"}
        assert value(sorted_url, OWN) == value(sorted_url, ACTUAL)


class TestNotDone:
    def test_with_an_index_that_could_not_be_rebuilt_the_version_stays(self, url: str) -> None:
        change(
            url,
            f"CREATE COLLATION other ({with_versions(url)[0]})",
            "CREATE TABLE u (a text COLLATE other)",
            "CREATE INDEX ua ON u (a)",
        )
        outdate(url, "other")

        with holding(url, "LOCK TABLE r IN ROW EXCLUSIVE MODE"):
            result = run(url, REFRESH, concurrently=False, lock_timeout_ms=50)

        assert result.verdict is Verdict.PARTIALLY_EFFECTIVE
        assert "public.ranged: Another session held a lock" in result.reason
        assert "public.old: 1 index of it not rebuilt" in result.reason
        assert column(url, OUTDATED) == ["old"]
        assert run(url, REFRESH).verdict is Verdict.EFFECTIVE
        assert column(url, OUTDATED) == []

    def test_with_none_noted_it_is_a_failure_that_may_pass(self, url: str) -> None:
        with holding(url, "LOCK TABLE r IN ROW EXCLUSIVE MODE"):
            result = run(url, REFRESH, concurrently=False, lock_timeout_ms=50)

        assert result.failure is not None
        assert (result.failure.category, result.failure.retryable) == (FailureCategory.LOCKED, True)
        assert column(url, OUTDATED) == ["old"]

    def test_what_a_rebuild_has_left_is_told(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reindex, "Patience", lambda _: lambda _: None)
        with holding(url, "LOCK TABLE r IN ROW EXCLUSIVE MODE"):
            result = run(url, REFRESH, lock_timeout_ms=50)

        assert result.failure is not None
        assert " Invalid leftovers remain: public.ranged_ccnew" in result.failure.message
        assert run(url, REFRESH).verdict is Verdict.EFFECTIVE

    def test_an_exclusion_constraint_keeps_it_back_and_how_to_do_it_is_told(self, url: str) -> None:
        change(url, "ALTER TABLE r ADD CONSTRAINT apart EXCLUDE USING gist (s WITH &&)")

        result, plain = run(url, REFRESH), run(url, REFRESH, concurrently=False)

        assert result.outcome is Outcome.FAILED
        assert "public.apart: it cannot be rebuilt concurrently: run it with concurrently=false" in result.reason
        assert plain.verdict is Verdict.EFFECTIVE

    def test_a_role_that_does_not_own_the_collation_rebuilds_nothing_in_vain(self, url: str) -> None:
        change(
            url,
            "CREATE ROLE keeper LOGIN",
            "ALTER TABLE t OWNER TO keeper",
            "GRANT EXECUTE ON FUNCTION pg_control_system() TO keeper",
        )
        file = file_of(url, "tb")
        try:
            result = run(url.replace("postgres@", "keeper@"), REFRESH)
            kept = file_of(url, "tb")
        finally:
            change(url, "REASSIGN OWNED BY keeper TO postgres", "DROP OWNED BY keeper", "DROP ROLE keeper")

        assert result.failure is not None
        assert result.failure.category is FailureCategory.PERMISSION
        assert "ALTER COLLATION" in result.failure.message
        assert kept == file

    def test_a_stop_before_the_first_index_leaves_all_as_it_was(self, url: str) -> None:
        with holding(url, "LOCK TABLE r IN ROW EXCLUSIVE MODE", "LOCK TABLE t IN ROW EXCLUSIVE MODE"):
            running = Running(url, REFRESH, concurrently=False, lock_timeout_ms=0)
            running.wait_until_it_has_begun()
            result = running.interrupt()

        assert result.outcome is Outcome.CANCELLED
        assert column(url, OUTDATED) == ["old"]

    def test_a_refused_note_is_told(self, url: str) -> None:
        change(url, "DROP TABLE t, r")
        with holding(url, "SELECT FROM pg_collation WHERE collname = 'old' FOR UPDATE"):
            result = run(url, REFRESH, lock_timeout_ms=50)

        assert result.outcome is Outcome.FAILED
        assert "Another session held a lock" in result.reason

    def test_it_is_of_whole_databases(self) -> None:
        worker = PostgresqlEngine().worker(target("postgresql://h/app"), RecordingControl())

        with pytest.raises(InvalidOperationError, match="whole database"):
            worker.validate(operation(REFRESH, "public.t"))


class TestInspection:
    @pytest.mark.parametrize("scope", [Scope.TABLE, Scope.INDEX])
    def test_it_is_planned_for_the_database_beside_what_is_done_to_tables(self, url: str, scope: Scope) -> None:
        wanted = tuple(WantedOperation(name=name) for name in ("analyze", REFRESH))
        asked = Operation(
            name=INSPECT, target="app", inspection=Inspection(scope=scope, operations=wanted, preview=True)
        )

        result = PostgresqlEngine().worker(target(url), RecordingControl()).execute(asked)

        assert result.inspection is not None
        (whole,) = [one for one in result.inspection.objects if one.object is None]
        assert whole.operations == (REFRESH,)
        assert "ALTER COLLATION" in whole.previews[0]
        assert whole.previews[0].endswith(" kB of disk meanwhile")
        (shared,) = result.inspection.locks
        assert whole.locks == (Lock(key=shared.key),)
        assert {"public.t", "public.r"} <= {one.object for one in result.inspection.objects}
