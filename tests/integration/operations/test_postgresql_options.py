"""The options of VACUUM and the memory of all rebuilds, as servers of two releases take them."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.integration.operations.doubles import RecordingControl
from tests.integration.operations.postgres_ground import (
    by_name,
    change,
    database,
    file_of,
    holding,
    inspect,
    operation,
    plan,
    run,
    target,
    value,
)
from tests.postgres import PostgresServer
from worker_service.domain.errors import InvalidOperationError
from worker_service.domain.inspection import Scope, WantedOperation
from worker_service.domain.outcome import FailureCategory, Outcome
from worker_service.domain.ports import OperationWorker
from worker_service.operations.postgresql import PostgresqlEngine, vacuum_options

VACUUMS = "SELECT pg_stat_get_vacuum_count(%s::regclass)"
TOAST = "SELECT reltoastrelid::regclass::text FROM pg_class WHERE oid = 't'::regclass"
MADE = (
    "CREATE TABLE t (a int PRIMARY KEY, b text) WITH (autovacuum_enabled = false)",
    "INSERT INTO t SELECT g, g::text FROM generate_series(1, 100) AS g",
    "DELETE FROM t WHERE a % 2 = 0",
)
COMBINATIONS: list[tuple[str, dict[str, Any]]] = [
    ("FREEZE", {"freeze": True}),
    ("SKIP_LOCKED", {"skip_locked": True}),
    ("TRUNCATE true", {"truncate": True}),
    ("INDEX_CLEANUP off", {"index_cleanup": "off"}),
    ("PARALLEL 0", {"parallel": 0}),
    ("PARALLEL 2", {"parallel": 2}),
    ("DISABLE_PAGE_SKIPPING", {"disable_page_skipping": True}),
    ("PROCESS_TOAST false", {"process_toast": False}),
    ("PROCESS_MAIN false", {"process_main": False}),
    ("BUFFER_USAGE_LIMIT 256", {"buffer_usage_limit_kb": 256}),
    ("BUFFER_USAGE_LIMIT 0", {"buffer_usage_limit_kb": 0}),
    ("BUFFER_USAGE_LIMIT 127", {"buffer_usage_limit_kb": 127}),
    ("ANALYZE, BUFFER_USAGE_LIMIT 256", {"analyze": True, "buffer_usage_limit_kb": 256}),
]


@pytest.fixture
def url(postgres_url: str) -> str:
    change(postgres_url, *MADE)
    return postgres_url


@pytest.fixture(scope="module")
def servers(newest_postgres: PostgresServer) -> Iterator[str]:
    """Lend a database of the newest release, which knows every option, with a table that tests only look at."""
    url = newest_postgres.create_database()
    change(url, *MADE)
    yield url
    newest_postgres.drop_database(url)


@pytest.fixture
def newest(newest_postgres: PostgresServer) -> Iterator[str]:
    url = newest_postgres.create_database()
    change(url, *MADE)
    yield url
    newest_postgres.drop_database(url)


class TestTogether:
    @pytest.mark.parametrize("full", [False, True], ids=["plain", "full"])
    @pytest.mark.parametrize(("text", "options"), COMBINATIONS, ids=[text for text, _ in COMBINATIONS])
    def test_what_the_server_refuses_is_refused_and_nothing_else(
        self, servers: str, text: str, options: dict[str, Any], full: bool
    ) -> None:
        worker = PostgresqlEngine().worker(target(servers), RecordingControl())

        assert is_refused(worker, full=full, **options) == does_refuse(servers, f"FULL, {text}" if full else text)

    def test_a_table_of_which_nothing_is_left_is_refused(self) -> None:
        worker = PostgresqlEngine().worker(target("postgresql://h/app"), RecordingControl())

        with pytest.raises(InvalidOperationError, match="'process_main' and 'process_toast' are both false"):
            worker.validate(operation("vacuum", process_main=False, process_toast=False))

    def test_a_rewrite_passes_over_what_is_locked(self, url: str) -> None:
        before = file_of(url, "t")
        with holding(url, "LOCK TABLE t IN ACCESS SHARE MODE"):
            result = run(url, "vacuum", "public.t", full=True, skip_locked=True)

        assert file_of(url, "t") == before
        assert result.failure is not None
        assert (result.failure.category, result.failure.retryable) == (FailureCategory.LOCKED, True)
        assert run(url, "vacuum", "public.t", full=True, skip_locked=True).outcome is Outcome.COMPLETED


class TestParts:
    def test_without_long_values_the_table_alone_is_vacuumed(self, url: str) -> None:
        toast = value(url, TOAST)

        result = run(url, "vacuum", "public.t", process_toast=False, disable_page_skipping=True)

        assert result.outcome is Outcome.COMPLETED
        assert [value(url, VACUUMS, name) for name in ("t", toast)] == [1, 0]
        assert plan(url, "vacuum", "public.t", process_toast=False, disable_page_skipping=True) == (
            'VACUUM (VERBOSE, DISABLE_PAGE_SKIPPING, PROCESS_TOAST false) "public"."t"',
        )

    @pytest.mark.parametrize("full", [False, True], ids=["plain", "full"])
    def test_without_the_table_its_long_values_alone_are(self, newest: str, full: bool) -> None:
        toast = value(newest, TOAST)
        before = [file_of(newest, name) for name in ("t", toast)]

        result = run(newest, "vacuum", "public.t", process_main=False, full=full)

        assert (result.outcome, result.after["tables_vacuumed"]) == (Outcome.COMPLETED, 1)
        assert [value(newest, VACUUMS, name) for name in ("t", toast)] == [0, int(not full)]
        changed = [file_of(newest, name) != old for name, old in zip(("t", toast), before, strict=True)]
        assert changed == [False, full]

    def test_a_table_without_long_values_has_nothing_to_vacuum_then(self, newest: str) -> None:
        change(newest, "CREATE TABLE bare (a int)")
        wanted = WantedOperation(name="vacuum", options={"process_main": "false"})

        result = run(newest, "vacuum", "public.bare", process_main=False)

        assert result.outcome is Outcome.SKIPPED
        assert 'no table with long values "public"."bare"' in result.reason
        assert set(by_name(inspect(newest, Scope.TABLE, wanted))) == {"public.t"}

    def test_the_ring_of_buffers_is_limited(self, newest: str) -> None:
        result = run(newest, "vacuum", "public.t", buffer_usage_limit_kb=256)

        assert result.outcome is Outcome.COMPLETED
        [statement] = plan(newest, "vacuum", "public.t", buffer_usage_limit_kb=256)
        assert statement == 'VACUUM (VERBOSE, BUFFER_USAGE_LIMIT 256, SKIP_DATABASE_STATS) ONLY "public"."t"'


class TestReleases:
    @pytest.mark.parametrize(("name", "given"), [("process_main", "false"), ("buffer_usage_limit_kb", "256")])
    def test_an_option_that_the_server_does_not_know_is_told_with_the_release_that_does(
        self, url: str, name: str, given: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        own = value(url, "SELECT current_setting('server_version_num')::int / 10000")
        assert vacuum_options._SINCE == {"process_main": 16, "buffer_usage_limit_kb": 16}
        monkeypatch.setitem(vacuum_options._SINCE, name, own + 1)
        told = f"The option '{name}' needs PostgreSQL {own + 1} or later, and this server is {own}"
        wanted = WantedOperation(name="vacuum", options={name: given})
        options: dict[str, Any] = {name: given}

        result = run(url, "vacuum", "public.t", **options)

        assert value(url, VACUUMS, "t") == 0
        assert result.failure is not None
        assert (result.failure.reason, result.failure.category) == ("NOT_SUPPORTED", FailureCategory.INVALID)
        assert told in result.failure.message
        assert told in by_name(inspect(url, Scope.TABLE, wanted))["public.t"].left_out
        assert plan(url, "vacuum", **options) == ()

    def test_what_every_release_does_by_itself_may_be_asked_of_any(self, url: str) -> None:
        assert run(url, "vacuum", "public.t", process_main=True).outcome is Outcome.COMPLETED


class TestMemory:
    @pytest.mark.parametrize(("name", "options"), [("vacuum", {"full": True}), ("reindex", {}), ("cluster", {})])
    def test_it_is_the_sessions_while_indexes_are_built(
        self, url: str, name: str, options: dict[str, Any]
    ) -> None:
        change(
            url,
            "CREATE FUNCTION f(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN "
            "IF current_setting('maintenance_work_mem') <> '37MB' THEN RAISE EXCEPTION 'not 37'; END IF; "
            "RETURN $1; END $$",
            "SET maintenance_work_mem = '37MB'",
            "CREATE INDEX tf ON t (f(a))",
            "ALTER TABLE t CLUSTER ON t_pkey",
        )

        without = run(url, name, "public.t", **options)
        given = run(url, name, "public.t", maintenance_work_mem_mb=37, **options)

        assert "not 37" in without.reason
        assert given.outcome is Outcome.COMPLETED
        assert "not 37" not in given.reason


def does_refuse(url: str, options: str) -> bool:
    """Tell whether the server takes these options of VACUUM for what cannot be."""
    with database(url) as connection:
        try:
            connection.execute(f"VACUUM ({options}) t".encode())
        except (psycopg.errors.FeatureNotSupported, psycopg.errors.InvalidParameterValue):
            return True
    return False


def is_refused(worker: OperationWorker, **options: Any) -> bool:
    try:
        worker.validate(operation("vacuum", **options))
    except InvalidOperationError:
        return True
    return False
