"""Which database a URL means, what its server is told and asked, and how wrong ones are refused."""

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.operations.doubles import RecordingControl
from tests.integration.operations.mariadb_databases import ROLE_PASSWORD, Database, failure
from tests.lodgings import HOST
from tests.mariadb import ADMIN, PASSWORD, MariadbServer
from worker_service.domain.errors import InvalidOperationError, InvalidTargetError, TargetUnavailableError
from worker_service.domain.operation import Operation
from worker_service.domain.outcome import FailureCategory
from worker_service.domain.target import Target
from worker_service.operations.mariadb import MariadbEngine, MysqlEngine
from worker_service.operations.mariadb.address import Address
from worker_service.operations.registry import EngineRegistry

EVERY = ["vacuum", "analyze", "reindex", "integrity_check"]


def at(url: str) -> Target:
    return Target(name="app", url=url, engine="mariadb")


class TestUrls:
    @pytest.mark.parametrize(
        ("scheme", "engine"),
        [("mariadb", MariadbEngine), ("mariadb+pymysql", MariadbEngine), ("mysql", MysqlEngine)],
    )
    def test_the_scheme_finds_the_engine(self, scheme: str, engine: type[MariadbEngine]) -> None:
        found = EngineRegistry.load().for_url(f"{scheme}://user@host/app")

        assert type(found) is engine

    def test_every_part_is_read(self) -> None:
        address = Address.of(at("mariadb://us%40er:p%2Fw%3A@host:3307/d%20b%2Fc?ssl_ca=/ca.pem&connect_timeout=3"))

        assert address.arguments({}) == {
            "host": "host",
            "port": 3307,
            "user": "us@er",
            "password": "p/w:",
            "database": "d b/c",
            "ssl_ca": "/ca.pem",
            "connect_timeout": 3,
        }
        assert "p/w" not in repr(address)

    @pytest.mark.parametrize(
        ("url", "message"),
        [
            ("mariadb://user@host", "has to name one database"),
            ("mariadb://user@host/", "has to name one database"),
            ("mariadb://user@host/a/b", "%2F for a slash"),
            ("mariadb://user@host/a#b", "write it as %23"),
            ("mariadb://user@host:port/a", "check its port"),
            ("mariadb://[host/a", "check its port and brackets"),
            ("mariadb://host/a?read_default_fle=x", "did you mean 'read_default_file'"),
            ("mariadb://host/a?zzz=x", "there are connect_timeout"),
            ("mariadb://host/a?password=x", "takes a password as USER:PASSWORD@HOST only"),
            ("mariadb://host/a?read_default_file=/no/such/file", "cannot be read: /no/such/file"),
            ("mariadb://host/a?connect_timeout=soon", "1 to 3600"),
            ("mariadb://host/a?ssl_verify_cert=perhaps", "true or false"),
        ],
    )
    def test_one_that_cannot_be_served_is_refused(self, url: str, message: str) -> None:
        with pytest.raises(InvalidTargetError, match=message):
            MariadbEngine().check(at(url))

    def test_a_missing_driver_is_told_with_the_remedy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pymysql", None)

        with pytest.raises(InvalidTargetError, match=r"pip install 'overhaul\[mariadb\]'"):
            MariadbEngine().check(at("mariadb://user@host/app"))


class TestPasswords:
    @pytest.fixture
    def bare_url(self, database: Database) -> str:
        return f"mariadb://{ADMIN}@{HOST}:{database.server.port}/{database.name}"

    def test_the_environment_may_hold_it(
        self, database: Database, bare_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MYSQL_PWD", PASSWORD)

        assert MariadbEngine().describe(at(bare_url)).engine_version.startswith("MariaDB ")

    def test_one_that_is_missing_is_told_with_the_places_for_it(
        self, bare_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("MYSQL_PWD", raising=False)

        with pytest.raises(
            TargetUnavailableError, match=r"^The server .* its password \(MYSQL_PWD or an option file\)"
        ):
            MariadbEngine().describe(at(bare_url))

    def test_an_option_file_may_hold_it(self, database: Database, bare_url: str, tmp_path: Path) -> None:
        (tmp_path / "my.cnf").write_text(f"[client]\npassword={PASSWORD}\n[other]\npassword=wrong\n")
        url = f"{bare_url}?read_default_file={tmp_path / 'my.cnf'}"

        assert MariadbEngine().describe(at(url)).engine_version.startswith("MariaDB ")
        with pytest.raises(TargetUnavailableError, match="does not let the worker in"):
            MariadbEngine().describe(at(f"{url}&read_default_group=other"))

    def test_it_is_in_no_message(self, database: Database) -> None:
        url = database.server.url(database.name, password="hush-hush")

        with pytest.raises(TargetUnavailableError, match=r"error 1045\)") as refused:
            MariadbEngine().describe(at(url))

        assert "hush-hush" not in str(refused.value)

    def test_it_is_in_no_list_of_the_server(self, database: Database) -> None:
        database.table("held", rows=1)
        seen: list[str] = []
        control = RecordingControl(
            on_progress=lambda _: seen.append(str(database.run("SHOW FULL PROCESSLIST"))),
        )

        database.maintain("analyze", control, url=database.role("SELECT, INSERT"))

        assert seen
        assert not any(ROLE_PASSWORD in text for text in seen)


class TestDescribe:
    def test_it_tells_product_identity_and_a_lock_that_is_shared_by_who_looks(self, database: Database) -> None:
        [(version, unique)] = database.run("SELECT VERSION(), @@server_uid")

        description = MariadbEngine().describe(database.target())

        assert description.engine_version == f"MariaDB {version}"
        assert description.identity == f"mariadb:{unique}:{database.name}"
        assert [spec.name for spec in description.operations] == [*EVERY, "inspect"]
        assert {lock.key for spec in description.operations for lock in spec.locks} == {description.identity}
        shared = [spec.name for spec in description.operations for lock in spec.locks if not lock.exclusive]
        assert shared == ["inspect"]

    def test_both_schemes_of_one_database_have_one_identity(self, database: Database) -> None:
        url = database.server.url(database.name)

        of_mariadb = MariadbEngine().describe(at(url))

        assert MysqlEngine().describe(at(url.replace("mariadb:", "mysql:"))).identity == of_mariadb.identity

    def test_a_stated_identity_is_kept(self, database: Database) -> None:
        description = MariadbEngine().describe(database.target(identity="billing"))

        assert description.identity == "billing"
        assert description.operations[0].locks[0].key == "mariadb:billing"

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"name": "no_such"}, "no such database"),
            ({"port": 1}, "cannot be reached"),
            ({"password": "wrong"}, "does not let the worker in"),
        ],
    )
    def test_what_does_not_answer_is_unavailable(
        self, mariadb: MariadbServer, change: dict[str, object], message: str
    ) -> None:
        url = (
            f"mariadb://{ADMIN}:{change.get('password', PASSWORD)}@{HOST}:{change.get('port', mariadb.port)}"
            f"/{change.get('name', 'mysql')}"
        )

        with pytest.raises(TargetUnavailableError, match=message):
            MariadbEngine().describe(at(url))
        with pytest.raises(TargetUnavailableError, match=message):
            MariadbEngine().plan(at(url), Operation(name="vacuum", target="app"))

    def test_another_database_at_the_url_is_noticed(self, database: Database) -> None:
        engine = MariadbEngine()
        database.table("item", rows=3)
        engine.describe(at(database.server.url("mysql")))
        before = database.spaces()

        result = engine.worker(database.target(), RecordingControl()).execute(
            Operation(name="vacuum", target="app")
        )

        assert failure(result).reason == "TARGET_REPLACED"
        assert database.spaces() == before


class TestPlan:
    def test_it_tells_each_statement_and_changes_nothing(self, database: Database) -> None:
        for name in ("a", "b`c"):
            database.table(name, rows=3)
        database.run("CREATE VIEW v AS SELECT 1")
        before = database.spaces()

        plans = {
            name: MariadbEngine().plan(database.target(), Operation(name=name, target="app")) for name in EVERY
        }

        assert plans == {
            "vacuum": ("OPTIMIZE TABLE `a`", "OPTIMIZE TABLE `b``c`"),
            "analyze": ("ANALYZE TABLE `a`", "ANALYZE TABLE `b``c`"),
            "reindex": ("ALTER TABLE `a` FORCE", "ALTER TABLE `b``c` FORCE"),
            "integrity_check": ("CHECK TABLE `a`", "CHECK TABLE `b``c`"),
        }
        assert database.spaces() == before

    @pytest.mark.parametrize(
        ("name", "options", "statement"),
        [
            ("vacuum", {"rebuild": "true"}, "ALTER TABLE `a` FORCE"),
            ("vacuum", {"binlog": "false"}, "OPTIMIZE NO_WRITE_TO_BINLOG TABLE `a`"),
            ("vacuum", {"online": "TRUE"}, "ALTER TABLE `a` FORCE, ALGORITHM=INPLACE, LOCK=NONE"),
            ("analyze", {"persistent": "true"}, "ANALYZE TABLE `a` PERSISTENT FOR ALL"),
            ("analyze", {"binlog": "false"}, "ANALYZE NO_WRITE_TO_BINLOG TABLE `a`"),
            ("integrity_check", {"depth": "Extended"}, "CHECK TABLE `a` EXTENDED"),
        ],
    )
    def test_options_change_the_statement_and_it_runs(
        self, database: Database, name: str, options: dict[str, Any], statement: str
    ) -> None:
        database.table("a", rows=3)
        planned = MariadbEngine().plan(
            database.target(), Operation(name=name, target="app", object="a", options=options)
        )

        result = database.maintain(name, **options)

        assert planned == (statement,)
        assert result.verdict is not None


class TestValidate:
    @pytest.mark.parametrize(
        ("name", "options", "message"),
        [
            ("vacum", {}, "MariaDB has no operation 'vacum': did you mean 'vacuum'"),
            ("frobnicate", {}, "there are analyze, "),
            ("vacuum", {"rebild": "true"}, "did you mean 'rebuild'"),
            ("vacuum", {"rebuild": "perhaps"}, "true or false"),
            ("vacuum", {"lock_timeout_s": "soon"}, "whole number"),
            ("vacuum", {"lock_timeout_s": "0"}, "1 to 86400"),
            ("integrity_check", {"depth": "deep"}, "medium, quick, extended"),
            ("analyze", {"former_attempt": "kill"}, "takes cancel, wait"),
        ],
    )
    def test_what_cannot_run_is_refused(self, name: str, options: dict[str, str], message: str) -> None:
        worker = MariadbEngine().worker(at("mariadb://user@host/app"), RecordingControl())

        with pytest.raises(InvalidOperationError, match=message):
            worker.validate(Operation(name=name, target="app", options=options))


class TestUnreachable:
    def test_an_operation_says_what_to_do(self) -> None:
        worker = MariadbEngine().worker(at("mariadb://user@127.0.0.1:1/app"), RecordingControl())

        result = worker.execute(Operation(name="vacuum", target="app"))

        assert failure(result).category is FailureCategory.UNAVAILABLE
        assert failure(result).retryable
        assert failure(result).message.startswith("The server cannot be reached: check host, port")
