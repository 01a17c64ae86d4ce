"""The roles of docs/operations.md, made by the very statements that stand there: they are enough, and needed."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import pytest

from tests.integration.operations.doubles import RecordingControl
from tests.integration.operations.postgres_ground import (
    SNAPSHOT,
    change,
    file_of,
    holding,
    operation,
    run,
    target,
    value,
)
from tests.postgres import PostgresServer
from worker_service.domain.inspection import (
    INSPECT,
    InspectedObject,
    Inspection,
    Scope,
    Selection,
    WantedOperation,
)
from worker_service.domain.outcome import FailureCategory, Outcome, Result, Verdict
from worker_service.operations.postgresql import PostgresqlEngine

GUIDE = Path(__file__).parents[3] / "docs" / "operations.md"
KEEPER, OWNER = "keeper_of_the_guide", "owner_of_the_guide"
MAINTAIN_IS_KNOWN = 17
CHANGES = ("vacuum", "analyze", "reindex", "cluster")
COUNTS = "SELECT vacuum_count + analyze_count FROM pg_stat_user_tables WHERE relid = 'app.t'::regclass"


def statements(title: str) -> list[str]:
    """Return the statements of the guide's block that begins with a title, with the comments left out."""
    [block] = re.findall(rf"```sql\n-- {re.escape(title)}\b[^\n]*\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    return [part.strip() for part in re.sub(r"--[^\n]*", "", block).split(";") if part.strip()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """A database with the guide's role in it, which owns nothing."""

    url: str

    @property
    def as_keeper(self) -> str:
        return self.url.replace("postgres@", f"{KEEPER}@")

    def grant(self, title: str) -> None:
        """Do what a block of the guide says, to this database and with roles of the tests' own."""
        names = {"shop": self.url.rpartition("/")[2], "shop_owner": OWNER, "keeper": KEEPER}
        for statement in statements(title):
            change(self.url, re.sub(r"\w+", lambda word: names.get(word.group(), word.group()), statement))

    def maintain(self, name: str) -> Result:
        return run(self.as_keeper, name, "app.t")

    def inspect(self) -> InspectedObject:
        asked = Inspection(
            scope=Scope.TABLE,
            operations=tuple(WantedOperation(name=name) for name in ("vacuum", "analyze", "reindex")),
            selection=Selection(include=("app.t",)),
        )
        worker = PostgresqlEngine().worker(target(self.as_keeper), RecordingControl())
        result = worker.execute(replace(operation(INSPECT), inspection=asked))
        assert result.inspection is not None, result.reason
        [found] = result.inspection.objects
        return found

    def blocked_vacuum(self) -> tuple[int, Result]:
        """Vacuum while another's transaction keeps the dead rows; return its process id too."""
        with holding(self.url, *SNAPSHOT) as reader:
            change(self.url, "DELETE FROM app.t WHERE a > 50")
            self.maintain("vacuum")
            return reader.info.backend_pid, self.maintain("vacuum")


@pytest.fixture(params=["postgres", "newest_postgres"], scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """Lend the servers that are at hand, of a release before MAINTAIN and of one with it."""
    server: PostgresServer = request.getfixturevalue(request.param)
    change(server.url(), f"CREATE ROLE {OWNER}")
    yield server
    change(server.url(), f"DROP ROLE {OWNER}")


@pytest.fixture
def shop(server: PostgresServer) -> Iterator[Shop]:
    shop = Shop(url=server.create_database())
    change(
        shop.url,
        f"CREATE SCHEMA app AUTHORIZATION {OWNER}",
        f"SET ROLE {OWNER}",
        "CREATE TABLE app.t (a int PRIMARY KEY) WITH (autovacuum_enabled = off)",
        "ALTER TABLE app.t CLUSTER ON t_pkey",
        "INSERT INTO app.t SELECT generate_series(1, 1000)",
        "DELETE FROM app.t WHERE a % 2 = 0",
        "ANALYZE app.t",
    )
    major = int(server.version.partition(".")[0])
    shop.grant("PostgreSQL 17 and later" if major >= MAINTAIN_IS_KNOWN else "PostgreSQL 14 to 16")
    shop.grant("Every release")
    yield shop
    server.drop_database(shop.url)
    change(server.url(), f"DROP ROLE {KEEPER}")


class TestTheGuidesGrants:
    def test_they_are_enough_to_maintain_and_to_check(self, shop: Shop) -> None:
        before = (file_of(shop.url, "app.t"), file_of(shop.url, "app.t_pkey"))
        counted = value(shop.url, COUNTS)

        results = {name: shop.maintain(name) for name in (*CHANGES, "amcheck")}

        assert {name: (one.outcome, one.verdict) for name, one in results.items()} == dict.fromkeys(
            results, (Outcome.COMPLETED, Verdict.EFFECTIVE)
        )
        assert value(shop.url, COUNTS) == counted + 2
        assert set(before).isdisjoint({file_of(shop.url, "app.t"), file_of(shop.url, "app.t_pkey")})
        assert (results["amcheck"].after["tables_checked"], results["amcheck"].after["indexes_checked"]) == (1, 1)

    def test_the_whole_database_is_walked(self, shop: Shop) -> None:
        results = {name: run(shop.as_keeper, name) for name in ("vacuum", "analyze", "reindex", "amcheck")}

        assert {name: (one.outcome, one.verdict) for name, one in results.items()} == dict.fromkeys(
            results, (Outcome.COMPLETED, Verdict.EFFECTIVE)
        )
        assert results["amcheck"].after["tables_checked"] > 50

    def test_an_inspection_measures_and_leaves_nothing_out(self, shop: Shop) -> None:
        found = shop.inspect()

        assert (found.operations, found.left_out) == (("vacuum", "analyze", "reindex"), "")
        assert found.measures["dead_rows"] == 500
        assert (found.measures["bloat_estimated"], found.measures["index_bloat_estimated"]) == (0, 0)

    def test_who_keeps_dead_rows_is_named(self, shop: Shop) -> None:
        pid, result = shop.blocked_vacuum()

        assert result.verdict is Verdict.NO_EFFECT
        assert f"session with pid {pid}" in result.reason

    def test_tables_that_come_later_are_maintained_too(self, shop: Shop) -> None:
        change(shop.url, f"SET ROLE {OWNER}", "CREATE TABLE app.later (a int PRIMARY KEY)")

        assert run(shop.as_keeper, "reindex", "app.later").verdict is Verdict.EFFECTIVE

    def test_what_they_let_the_role_read(self, shop: Shop) -> None:
        knows_maintain = bool(value(shop.url, "SELECT current_setting('server_version_num')::int >= 170000"))

        with psycopg.connect(shop.as_keeper, autocommit=True) as connection:
            may = connection.execute("SELECT has_table_privilege('app.t', 'SELECT')").fetchone()

        # Before there was a privilege to maintain, nothing less than the owner's rights would do.
        assert may == (not knows_maintain,)


def blind(shop: Shop) -> None:
    pid, result = shop.blocked_vacuum()
    assert f"pid {pid}" not in result.reason
    assert "pg_read_all_stats" in result.reason


def estimated(shop: Shop) -> None:
    with psycopg.connect(shop.as_keeper, autocommit=True) as connection:
        [statistics] = connection.execute("SELECT count(*) FROM pg_stats WHERE tablename = 't'").fetchone() or [0]
    # Who may not read a table does not see the statistics either that an estimate rests on.
    assert shop.inspect().measures.get("bloat_estimated") == (1 if statistics else None)


def not_checked(shop: Shop) -> None:
    result = shop.maintain("amcheck")
    assert result.failure is not None
    assert (result.failure.category, result.failure.retryable) == (FailureCategory.PERMISSION, False)


class TestEachGrant:
    @pytest.mark.parametrize(
        ("revoked", "then"),
        [
            ("pg_read_all_stats", blind),
            ("pg_stat_scan_tables", estimated),
            ("EXECUTE ON ALL FUNCTIONS IN SCHEMA checks", not_checked),
        ],
    )
    def test_is_needed_for_what_it_says(self, shop: Shop, revoked: str, then: Callable[[Shop], None]) -> None:
        change(shop.url, f"REVOKE {revoked} FROM {KEEPER}")

        then(shop)

    def test_is_needed_to_maintain(self, server: PostgresServer, shop: Shop) -> None:
        known = int(server.version.partition(".")[0]) >= MAINTAIN_IS_KNOWN
        change(shop.url, f"REVOKE {'MAINTAIN ON app.t' if known else OWNER} FROM {KEEPER}")

        results = [shop.maintain(name) for name in CHANGES]

        assert [one.failure and one.failure.category for one in results] == [FailureCategory.PERMISSION] * 4
