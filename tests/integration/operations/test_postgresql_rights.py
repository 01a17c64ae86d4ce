"""A role that owns nothing, names that are awkward, and passwords that nobody reads."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.operations.doubles import RecordingControl
from tests.integration.operations.postgres_ground import (
    SNAPSHOT,
    change,
    column,
    database,
    file_of,
    holding,
    run,
    value,
)
from tests.postgres import PostgresServer
from worker_service.domain.outcome import Outcome, Verdict
from worker_service.operations.postgresql.wording import quoted

OPERATIONS = ("vacuum", "analyze", "reindex")
FILE = "SELECT pg_relation_filenode(indexrelid) FROM pg_index JOIN pg_class ON oid = indrelid WHERE relname = %s"
COUNTS = "SELECT vacuum_count + analyze_count FROM pg_stat_user_tables WHERE relid = %s::regclass"


@pytest.fixture(scope="module")
def newest(newest_postgres: PostgresServer) -> Iterator[PostgresServer]:
    """Lend a server that knows the privilege to maintain, with roles that have it."""
    url = newest_postgres.url()
    change(url, "CREATE ROLE keeper LOGIN", "CREATE ROLE owner LOGIN", "CREATE ROLE steward LOGIN")
    change(url, "GRANT pg_maintain TO steward")
    yield newest_postgres
    for database_of_test in column(url, "SELECT datname FROM pg_database WHERE datname LIKE 'test_%'"):
        newest_postgres.drop_database(newest_postgres.url(database_of_test))
    change(url, "DROP ROLE keeper, owner, steward")


@pytest.fixture
def kept(newest: PostgresServer) -> str:
    url = newest.create_database()
    change(
        url,
        "CREATE SCHEMA app",
        "GRANT USAGE ON SCHEMA app TO keeper, steward, owner",
        "CREATE TABLE app.t (a int PRIMARY KEY)",
        "ALTER TABLE app.t OWNER TO owner",
        "INSERT INTO app.t SELECT generate_series(1, 100)",
        "GRANT MAINTAIN ON app.t TO keeper",
    )
    return url


class TestLeastPrivilege:
    @pytest.mark.parametrize("role", ["keeper", "steward"])
    def test_a_maintainer_that_owns_nothing_may_do_it_all(self, kept: str, role: str) -> None:
        before = file_of(kept, "app.t_pkey")

        results = [run(kept.replace("postgres@", f"{role}@"), name) for name in OPERATIONS]

        assert [(one.outcome, one.verdict) for one in results] == [(Outcome.COMPLETED, Verdict.EFFECTIVE)] * 3
        assert value(kept, COUNTS, "app.t") == 2
        assert file_of(kept, "app.t_pkey") != before

    def test_the_systems_catalogues_are_left_to_who_may(self, kept: str) -> None:
        control = RecordingControl()

        result = run(kept.replace("postgres@", "keeper@"), "vacuum", control=control)

        assert result.after["tables"] == 1
        assert any("system catalogues are left to autovacuum" in text for _, text in control.lines)
        assert run(kept.replace("postgres@", "steward@"), "vacuum").after["tables"] > 60

    def test_a_transaction_that_the_role_may_not_see_is_supposed(self, kept: str) -> None:
        with holding(kept, *SNAPSHOT) as reader:
            pid = reader.info.backend_pid
            change(kept, "DELETE FROM app.t")
            run(kept.replace("postgres@", "keeper@"), "vacuum")

            blind = run(kept.replace("postgres@", "keeper@"), "vacuum")
            seeing = run(kept, "vacuum", "app.t")

        assert (blind.outcome, blind.verdict) == (Outcome.COMPLETED, Verdict.NO_EFFECT)
        assert "100 dead rows remain" in blind.reason
        assert "pg_read_all_stats" in blind.reason
        assert f"pid {pid}" in seeing.reason

    def test_a_leftover_that_only_the_owner_may_drop_is_told(self, kept: str) -> None:
        change(kept, "CREATE INDEX t_pkey_ccnew ON app.t (a)")
        change(kept, "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'app.t_pkey_ccnew'::regclass")

        result = run(kept.replace("postgres@", "keeper@"), "reindex")

        assert column(kept, "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid") == [
            "app.t_pkey_ccnew"
        ]
        assert result.verdict is Verdict.PARTIALLY_EFFECTIVE
        assert "Invalid leftovers remain: app.t_pkey_ccnew." in result.reason

    def test_the_databases_owner_may_vacuum_and_analyze_what_others_own(self, kept: str) -> None:
        change(kept, f"ALTER DATABASE {kept.rpartition('/')[2]} OWNER TO owner", "CREATE TABLE app.others (a int)")

        results = [run(kept.replace("postgres@", "owner@"), name) for name in ("vacuum", "analyze")]

        assert [one.outcome for one in results] == [Outcome.COMPLETED] * 2
        assert value(kept, COUNTS, "app.others") == 2


NAMES = [
    'qu"ote',
    "per%cent %s %(x)s",
    "co:lon :name",
    "Mixed Case",
    "dot.ted",
    "apo'strophe",
    "back\\slash",
    "x" * 63,
    "ü" * 31,
    "select",
    "$1 {}",
]


@pytest.fixture(scope="module")
def named(postgres: PostgresServer) -> str:
    """Return a database with a table and an index of each name, in a schema of that name."""
    url = postgres.create_database()
    with database(url) as connection:
        for name in NAMES:
            schema, table = quoted(name), f"{quoted(name)}.{quoted(name)}"
            connection.execute(f"CREATE SCHEMA {schema}".encode())
            connection.execute(f"CREATE TABLE {table} (a int)".encode())
            connection.execute(f"CREATE INDEX {quoted('i' + name[:-1])} ON {table} (a)".encode())
    return url


class TestNames:
    def test_every_name_is_maintained_as_it_is(self, named: str) -> None:
        before = {name: value(named, FILE, name) for name in NAMES}

        results = [run(named, name) for name in OPERATIONS]

        assert [one.outcome for one in results] == [Outcome.COMPLETED] * 3
        counts = "SELECT least(vacuum_count, analyze_count) FROM pg_stat_user_tables WHERE relname = %s"
        assert [name for name in NAMES if value(named, counts, name) == 0] == []
        assert [name for name in NAMES if value(named, FILE, name) == before[name]] == []

    @pytest.mark.parametrize("name", NAMES)
    def test_every_name_can_be_given(self, named: str, name: str) -> None:
        query = "SELECT relname, vacuum_count FROM pg_stat_user_tables"
        with database(named) as other:
            before = set(other.execute(query).fetchall())
            result = run(named, "vacuum", f"{quoted(name)}.{quoted(name)}")
            changed = set(other.execute(query).fetchall()) - before

        assert result.after["tables_vacuumed"] == 1
        assert [row[0] for row in changed] == [name]


@pytest.fixture(scope="module")
def guarded() -> Iterator[PostgresServer]:
    """Lend a server that asks for passwords over TCP."""
    with PostgresServer() as server:
        change(server.url(), "CREATE ROLE locked LOGIN PASSWORD 's3cret-word'")
        server.ask_for_password("locked")
        yield server


@pytest.fixture
def locked(guarded: PostgresServer) -> str:
    return guarded.url().replace("postgres@", "locked@")


class TestPasswords:
    def test_a_password_file_serves(self, locked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = tmp_path / "pass"
        file.write_text("127.0.0.1:*:*:locked:s3cret-word\n")
        file.chmod(0o600)
        monkeypatch.setenv("PGPASSFILE", str(file))

        assert run(locked, "vacuum", "public.none").outcome is Outcome.SKIPPED

    def test_the_environment_serves(self, locked: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PGPASSWORD", "s3cret-word")

        assert run(locked, "vacuum", "public.none").outcome is Outcome.SKIPPED

    def test_a_service_serves(
        self, locked: str, guarded: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / "services"
        file.write_text(
            f"[mine]\nhost=127.0.0.1\nport={guarded.port}\nuser=locked\ndbname=postgres\npassword=s3cret-word\n"
        )
        monkeypatch.setenv("PGSERVICEFILE", str(file))

        assert run("postgresql:///?service=mine", "vacuum", "public.none").outcome is Outcome.SKIPPED

    def test_one_that_is_missing_is_told_with_the_places_for_it(
        self, locked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("PGPASSWORD", raising=False)
        monkeypatch.setenv("PGPASSFILE", str(tmp_path / "none"))

        result = run(locked, "vacuum")

        assert result.failure is not None
        assert (result.failure.reason, result.failure.retryable) == ("LOGIN_REFUSED", False)
        assert "PGPASSWORD, ~/.pgpass or a service" in result.failure.message

    def test_a_wrong_one_is_told_without_it(self, locked: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PGPASSWORD", "another-s3cret")

        result = run(locked, "vacuum")

        assert result.failure is not None
        assert (result.failure.reason, result.failure.retryable) == ("LOGIN_REFUSED", False)
        assert "s3cret" not in result.failure.message
