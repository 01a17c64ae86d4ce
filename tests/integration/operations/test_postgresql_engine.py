"""What the engine says of a database before it does anything, and how it is addressed."""

import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest

from tests.integration.operations.doubles import RecordingControl
from tests.integration.operations.postgres_ground import change, operation, plan, run, target, value
from tests.postgres import PostgresServer
from worker_service.domain.errors import InvalidOperationError, InvalidTargetError, TargetUnavailableError
from worker_service.domain.outcome import FailureCategory, Outcome
from worker_service.operations.postgresql import PostgresqlEngine
from worker_service.operations.postgresql.names import Name
from worker_service.operations.postgresql.prologue import application_name, operation_settings
from worker_service.operations.registry import EngineRegistry


class TestCheck:
    @pytest.mark.parametrize(
        "url",
        [
            "postgresql://u@h/app",
            "postgres://h:5433/app",
            "postgresql+psycopg://u@h/app?sslmode=require",
            "postgresql:///app?host=/var/run/postgresql",
            "postgresql:///?service=app",
            "postgresql://u@h1,h2/app?target_session_attrs=read-write",
        ],
    )
    def test_urls_of_libpq_are_taken_without_a_server(self, url: str) -> None:
        engine = EngineRegistry.load().for_url(url)

        engine.check(target(url))

        assert engine.name == "postgresql"

    def test_a_url_that_libpq_cannot_read_is_refused_without_its_password(self) -> None:
        with pytest.raises(
            InvalidTargetError, match=r"write postgresql://USER@HOST:PORT/DATABASE.*PGPASSFILE"
        ) as no:
            PostgresqlEngine().check(target("postgresql://u:s3cret@h/app?nonsense=s3cret"))

        assert "s3cret" not in str(no.value)

    def test_a_url_without_a_database_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("PGDATABASE", raising=False)

        with pytest.raises(InvalidTargetError, match="names no database"):
            PostgresqlEngine().check(target("postgresql://u@h"))

    def test_without_the_driver_the_remedy_is_told(self) -> None:
        program = (
            "import sys; sys.modules['psycopg'] = None\n"
            "from worker_service.operations.postgresql import PostgresqlEngine\n"
            "from worker_service.domain.target import Target\n"
            "PostgresqlEngine().check(Target(name='a', url='postgresql://h/a', engine='postgresql'))"
        )

        ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

        assert "InvalidTargetError" in ended.stderr
        assert "pip install 'overhaul[postgresql]'" in ended.stderr

    def test_a_worker_of_files_does_not_load_the_driver(self) -> None:
        program = (
            "import sys\nfrom worker_service.operations.registry import EngineRegistry\n"
            "print('postgresql' in EngineRegistry.load().names, 'psycopg' in sys.modules)"
        )

        ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

        assert ended.stdout.split() == ["True", "False"]


class TestDescribe:
    def test_it_tells_version_identity_and_operations(self, postgres: PostgresServer, postgres_url: str) -> None:
        told = PostgresqlEngine().describe(target(postgres_url))

        system = value(postgres_url, "SELECT system_identifier FROM pg_control_system()")
        oid = value(postgres_url, "SELECT oid FROM pg_database WHERE datname = current_database()")
        assert told.identity == f"postgresql:{system}:{oid}"
        assert told.engine_version == postgres.version.split(" ")[0]
        assert [one.name for one in told.operations][:3] == ["vacuum", "analyze", "reindex"]
        assert {lock.key for one in told.operations for lock in one.locks} == {told.identity}
        assert {one.name for one in told.operations if not one.locks[0].exclusive} == {"inspect"}

    def test_two_names_of_one_database_have_one_identity(self, postgres_url: str) -> None:
        engine = PostgresqlEngine()

        other = postgres_url.replace("127.0.0.1", "localhost").replace("postgresql:", "postgres:")

        assert engine.describe(target(other)).identity == engine.describe(target(postgres_url)).identity

    def test_a_server_that_is_away_is_unavailable(self) -> None:
        with pytest.raises(TargetUnavailableError, match="server cannot be reached"):
            PostgresqlEngine().describe(target("postgresql://postgres@127.0.0.1:1/app"))

    def test_a_database_that_is_not_there_is_told(self, postgres_url: str) -> None:
        with pytest.raises(TargetUnavailableError, match="does not let the worker's role in"):
            PostgresqlEngine().describe(target(f"{postgres_url}_not"))

    def test_a_role_that_may_not_ask_which_server_it_is_states_an_identity(self, postgres_url: str) -> None:
        change(
            postgres_url, "CREATE ROLE blind LOGIN", "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC"
        )
        url = postgres_url.replace("postgres@", "blind@")
        try:
            with pytest.raises(TargetUnavailableError, match=r"GRANT EXECUTE .*or set the target's identity"):
                PostgresqlEngine().describe(target(url))

            told = PostgresqlEngine().describe(target(url, identity="mine"))
        finally:
            change(
                postgres_url,
                "GRANT EXECUTE ON FUNCTION pg_control_system() TO PUBLIC",
                "DROP ROLE IF EXISTS blind",
            )

        assert told.identity == "mine"
        assert told.operations[0].locks[0].key == "postgresql:mine"

    def test_another_database_in_its_place_fails(self, postgres: PostgresServer, postgres_url: str) -> None:
        engine = PostgresqlEngine()
        engine.describe(target(postgres_url))
        worker = engine.worker(target(postgres.create_database()), RecordingControl())

        result = worker.execute(operation("vacuum"))

        assert result.failure is not None
        assert result.failure.reason == "TARGET_REPLACED"


class TestOptions:
    @pytest.mark.parametrize(
        ("name", "options", "message"),
        [
            ("vacum", {}, "did you mean 'vacuum'"),
            ("vacuum", {"frozen": "true"}, "no option 'frozen'"),
            ("vacuum", {"freeze": "yes"}, "takes true or false, not 'yes'"),
            ("vacuum", {"parallel": "x"}, "takes a whole number"),
            ("vacuum", {"parallel": "5000"}, "takes 0 to 1024"),
            ("vacuum", {"index_cleanup": "maybe"}, "takes auto, on, off"),
            ("reindex", {"former_attempt": "kill"}, "takes cancel, wait"),
            ("vacuum", {"full": "true", "parallel": "2"}, "'parallel' does not go with full"),
            (
                "vacuum",
                {"full": "true", "disable_page_skipping": "true"},
                "does not go with full",
            ),
            (
                "vacuum",
                {"full": "true", "buffer_usage_limit_kb": "256"},
                "unless analyze is on",
            ),
            ("vacuum", {"buffer_usage_limit_kb": "127"}, "takes 0 or 128 to 16777216, and 127 is outside"),
        ],
    )
    def test_what_cannot_be_is_refused(self, name: str, options: dict[str, Any], message: str) -> None:
        worker = PostgresqlEngine().worker(target("postgresql://h/app"), RecordingControl())

        with pytest.raises(InvalidOperationError, match=message):
            worker.validate(operation(name, **options))

    def test_a_vacuum_says_each_option(self, postgres_url: str) -> None:
        change(postgres_url, "CREATE TABLE t (a int)")
        given: dict[str, Any] = {
            "freeze": True,
            "truncate": False,
            "index_cleanup": "off",
            "parallel": 0,
            "analyze": True,
        }

        (statement, *_) = plan(postgres_url, "vacuum", "public.t", **given)

        assert statement.startswith(
            "VACUUM (VERBOSE, FREEZE, ANALYZE, TRUNCATE false, INDEX_CLEANUP off, PARALLEL 0"
        )
        assert run(postgres_url, "vacuum", "public.t", **given).outcome is Outcome.COMPLETED


class TestNames:
    @pytest.mark.parametrize(
        ("text", "schema", "name"),
        [
            ("public.orders", "public", "orders"),
            ('"a.b"."c""d"', "a.b", 'c"d'),
            ('Sales."order lines"', "Sales", "order lines"),
            ("s.a%s :b", "s", "a%s :b"),
        ],
    )
    def test_both_forms_are_read(self, text: str, schema: str, name: str) -> None:
        assert Name.parse(text) == Name(schema=schema, name=name)

    @pytest.mark.parametrize("text", ["orders", "a.b.c", '"a.b', "", ".x", 'a."b"c"'])
    def test_other_forms_are_refused(self, text: str) -> None:
        with pytest.raises(InvalidOperationError, match=r"write schema\.name"):
            Name.parse(text)


class TestSessionsName:
    def test_an_id_of_the_manager_is_told_as_it_is(self) -> None:
        assert (
            application_name(operation("vacuum", attempt=12)) == "overhaul:01993f00-0000-7000-8000-00000000000a:12"
        )

    @pytest.mark.parametrize("child", ["x" * 200, "ünicode", "with:colon", ""])
    def test_others_are_shortened_and_stay_apart(self, child: str) -> None:
        names = {application_name(operation("vacuum", child=f"{child}{end}", attempt=9_999)) for end in "äö"}

        assert len(names) == 2
        assert all(len(name.encode()) <= 63 and name.isascii() for name in names)


class TestSettings:
    def test_a_timeout_is_the_servers_too_a_little_later(self) -> None:
        told = operation_settings(
            170_000, lock_timeout_ms=7, timeout=timedelta(seconds=90), cost_delay_ms=3, cost_limit=40
        )

        assert told["statement_timeout"] == "95000"
        assert told["lock_timeout"] == "7"
        assert (told["vacuum_cost_delay"], told["vacuum_cost_limit"]) == ("3", "40")
        assert told["transaction_timeout"] == "0"

    def test_no_timeout_is_stated_as_well(self) -> None:
        told = operation_settings(150_000, lock_timeout_ms=0, timeout=None, cost_delay_ms=None)

        assert told["statement_timeout"] == "0"
        assert not {"transaction_timeout", "vacuum_cost_delay", "vacuum_cost_limit"} & told.keys()


class TestUnreachable:
    def test_an_operation_on_a_server_that_is_away_may_be_tried_again(self) -> None:
        result = run("postgresql://postgres@127.0.0.1:1/app", "vacuum")

        assert result.failure is not None
        assert (result.failure.category, result.failure.retryable) == (FailureCategory.UNAVAILABLE, True)

    def test_a_plan_says_the_same(self) -> None:
        with pytest.raises(TargetUnavailableError, match="server cannot be reached"):
            plan("postgresql://postgres@127.0.0.1:1/app", "vacuum")
