"""What a selection and a role's rights leave of a plan, and that the plan tells what would run."""

import re
from dataclasses import replace
from typing import Any

import pytest

from tests.integration.operations.doubles import RecordingControl
from tests.integration.operations.postgres_ground import (
    by_name,
    change,
    holding,
    inspect,
    operation,
    plan,
    run,
    target,
    value,
    what,
)
from worker_service.domain.inspection import INSPECT, Inspection, Scope, Selection, WantedOperation
from worker_service.domain.outcome import Outcome, Result
from worker_service.domain.selected import WatchedSelection, unless_nothing_fits, watched
from worker_service.operations.postgresql import PostgresqlEngine
from worker_service.operations.wording import size

ANALYZES = "SELECT analyze_count FROM pg_stat_all_tables WHERE relid = %s::regclass"
PARTITIONED = (
    "CREATE TABLE p (a int PRIMARY KEY) PARTITION BY RANGE (a)",
    "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100)",
    "CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (100) TO (200) PARTITION BY RANGE (a)",
    "CREATE TABLE p21 PARTITION OF p2 FOR VALUES FROM (100) TO (200)",
    "INSERT INTO p SELECT generate_series(0, 199)",
)


@pytest.fixture
def url(postgres_url: str) -> str:
    change(
        postgres_url,
        "CREATE TABLE t (a int PRIMARY KEY, b text)",
        "CREATE INDEX tb ON t (b)",
        "INSERT INTO t SELECT i, 'row ' || i FROM generate_series(1, 1000) AS i",
    )
    return postgres_url


class TestPartitionsBeforePostgresql18:
    """Where the statement on a partitioned table goes through its partitions too."""

    @pytest.fixture
    def url(self, url: str) -> str:
        change(url, *PARTITIONED)
        return url

    def test_a_partition_is_analysed_by_itself_where_it_alone_is_meant(self, url: str) -> None:
        found = inspect(url, Scope.TABLE, "analyze", selection=Selection(include=("public.p1",)))

        assert what(found) == {"public.p1": ("analyze",)}

    def test_without_their_parent_partitions_are_analysed_by_themselves(self, url: str) -> None:
        selection = Selection(include=("public.p*",), exclude=("public.p",))

        found = inspect(url, Scope.TABLE, "analyze", selection=selection)

        assert set(what(found)) == {"public.p1", "public.p2"}
        assert not any(one.left_out for one in found.objects)

    def test_a_partition_that_is_not_meant_is_not_analysed_through_its_parent(self, url: str) -> None:
        selection = Selection(include=("public.p*",), exclude=("public.p1",))

        found = by_name(inspect(url, Scope.TABLE, "analyze", selection=selection))
        for one in found.values():
            assert one.left_out or run(url, "analyze", one.object).after["tables_failed"] == 0

        assert {name: bool(one.left_out) for name, one in found.items()} == {"public.p": True, "public.p2": False}
        assert "its ANALYZE goes through all of its partitions" in (found["public.p"].left_out)
        assert [value(url, ANALYZES, name) for name in ("p", "p1", "p2", "p21")] == [0, 0, 1, 1]

    def test_a_role_that_owns_partitions_alone_has_them_analysed(self, url: str) -> None:
        change(url, "CREATE ROLE keeper LOGIN", "ALTER TABLE p1 OWNER TO keeper")
        try:
            found = by_name(inspect(url.replace("postgres@", "keeper@"), Scope.TABLE, "analyze"))
        finally:
            change(url, "DROP OWNED BY keeper CASCADE", "DROP ROLE keeper")

        assert {name for name, one in found.items() if not one.left_out} == {"public.p1"}
        assert "may not maintain it" in found["public.p"].left_out

    def test_a_branch_of_a_tree_is_done_once(self, url: str) -> None:
        result = run(url, "analyze", "public.p2")

        assert result.after["tables_analysed"] == 2
        assert [value(url, ANALYZES, name) for name in ("p", "p1", "p2", "p21")] == [0, 0, 1, 1]


class TestNothingFits:
    @pytest.mark.parametrize("wanted", ["analyze", "vacuum"])
    def test_a_mistyped_name_is_told_with_those_like_it(self, url: str, wanted: str) -> None:
        change(url, "CREATE TABLE clients (a int)", "CREATE VIEW customers AS SELECT 1 AS a", *PARTITIONED)

        asked, result = inspected(url, wanted, "public.client")

        assert result.outcome is Outcome.SKIPPED
        assert "names like it are public.clients" in result.reason
        assert len(set(asked)) == len(asked)
        assert ("public.customers", "customers") in asked
        assert not any(names[0] == "pg_catalog.pg_tables" for names in asked)

    def test_catalogues_that_the_role_may_not_maintain_are_not_taken(self, url: str) -> None:
        change(url, "CREATE ROLE keeper LOGIN")
        try:
            _, result = inspected(url.replace("postgres@", "keeper@"), "vacuum", "pg_catalog.pg_class")
        finally:
            change(url, "DROP ROLE keeper")

        assert result.outcome is Outcome.SKIPPED
        assert "nothing fits 'pg_catalog.pg_class'" in result.reason


def inspected(url: str, wanted: str, include: str) -> tuple[list[tuple[str, ...]], Result]:
    """Return the names that the selection was asked about, and what comes of it, as a worker has it."""
    chosen = Inspection(
        scope=Scope.TABLE, operations=(WantedOperation(name=wanted),), selection=Selection(include=(include,))
    )
    asked = watched(replace(operation(INSPECT), inspection=chosen))
    answer = PostgresqlEngine().worker(target(url), RecordingControl()).execute(asked)
    assert asked.inspection is not None
    assert isinstance(asked.inspection.selection, WatchedSelection)
    return asked.inspection.selection.asked, unless_nothing_fits(answer, asked.inspection)


class TestStatements:
    """The statements of an object, all of them, as they would run."""

    @pytest.fixture
    def url(self, url: str) -> str:
        change(
            url,
            *(f"CREATE INDEX more{number} ON t (b, a)" for number in range(4)),
            "CREATE INDEX tb_ccnew ON t (b)",
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'tb_ccnew'::regclass",
            "ALTER TABLE t CLUSTER ON t_pkey",
        )
        return url

    def test_all_are_told_however_many(self, url: str) -> None:
        [preview] = by_name(inspect(url, Scope.TABLE, "reindex", preview=True))["public.t"].previews

        assert "more" not in preview.replace('"more', "")
        assert preview.count("REINDEX INDEX CONCURRENTLY") == 6

    @pytest.mark.parametrize(
        ("wanted", "then"),
        [
            (WantedOperation(name="reindex"), "REINDEX INDEX CONCURRENTLY"),
            (WantedOperation(name="vacuum", options={"full": "true"}), "VACUUM (VERBOSE, FULL"),
            (WantedOperation(name="cluster"), "CLUSTER"),
        ],
        ids=lambda one: one.name if isinstance(one, WantedOperation) else "",
    )
    def test_they_begin_with_what_drops_the_leftovers_of_broken_off_rebuilds(
        self, url: str, wanted: WantedOperation, then: str
    ) -> None:
        found = by_name(inspect(url, Scope.TABLE, wanted, preview=True))

        [preview] = found["public.t"].previews
        assert preview.startswith(f'DROP INDEX CONCURRENTLY IF EXISTS "public"."tb_ccnew"; {then}')
        assert preview.count("DROP") == 1
        assert not any("DROP" in str(one.previews) for name, one in found.items() if name != "public.t")

    def test_a_single_indexs_begin_so_too(self, url: str) -> None:
        [preview] = by_name(inspect(url, Scope.INDEX, "reindex", preview=True))["public.t_pkey"].previews

        assert preview.startswith(
            'DROP INDEX CONCURRENTLY IF EXISTS "public"."tb_ccnew"; REINDEX INDEX CONCURRENTLY "public"."t_pkey"; '
        )

    def test_a_leftover_that_a_session_may_be_building_is_not_dropped(self, url: str) -> None:
        with holding(url, "LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE"):
            [preview] = by_name(inspect(url, Scope.TABLE, "reindex", preview=True))["public.t"].previews

        assert "DROP" not in preview


class TestWhatCannotRun:
    """An operation that would fail for every object is no statement of any."""

    def test_without_the_extension_nothing_is_checked(self, url: str) -> None:
        found = inspect(url, Scope.TABLE, "amcheck", preview=True).objects
        [whole] = inspect(url, Scope.DATABASE, "amcheck", preview=True).objects

        assert {(one.object, "CREATE EXTENSION amcheck" in one.left_out) for one in found} == {("public.t", True)}
        assert "SELECT" not in str([one.previews for one in (*found, whole)])
        assert "no statement: The extension amcheck is not in this database" in whole.previews[0]

    @pytest.mark.parametrize(
        "right", ["EXECUTE ON ALL FUNCTIONS IN SCHEMA tools", "USAGE ON SCHEMA tools"], ids=["execute", "usage"]
    )
    def test_without_a_right_nothing_is_checked(self, url: str, right: str) -> None:
        change(
            url,
            "CREATE SCHEMA tools",
            "CREATE EXTENSION amcheck SCHEMA tools",
            "CREATE ROLE looker LOGIN",
            f"GRANT {right} TO looker",
        )
        try:
            limited = url.replace("postgres@", "looker@")
            found = inspect(limited, Scope.INDEX, "amcheck", preview=True).objects
            statements = plan(limited, "amcheck")
        finally:
            change(url, "DROP OWNED BY looker", "DROP ROLE looker")

        assert {one.object for one in found} == {"public.t_pkey", "public.tb"}
        assert all("may not run bt_index_check: GRANT EXECUTE" in one.left_out for one in found)
        assert statements == ()

    def test_rows_that_an_old_release_cannot_check_are_not_planned(self, url: str) -> None:
        change(url, "CREATE EXTENSION amcheck VERSION '1.2'", "CREATE TABLE bare (a int)")

        found = by_name(inspect(url, Scope.TABLE, "amcheck", preview=True))

        assert found["public.t"].previews[0].count("bt_index_check") == 2
        assert "verify_heapam" not in found["public.t"].previews[0]
        assert "ALTER EXTENSION amcheck UPDATE" in found["public.bare"].left_out

    def test_rows_that_the_role_may_not_read_are_not_planned(self, url: str) -> None:
        change(
            url,
            "CREATE EXTENSION amcheck",
            "CREATE TABLE bare (a int)",
            "CREATE ROLE looker LOGIN",
            "GRANT EXECUTE ON FUNCTION bt_index_check(regclass), bt_index_check(regclass, bool) TO looker",
        )
        try:
            found = by_name(inspect(url.replace("postgres@", "looker@"), Scope.TABLE, "amcheck", preview=True))
        finally:
            change(url, "DROP OWNED BY looker", "DROP ROLE looker")

        assert "verify_heapam" not in found["public.t"].previews[0]
        assert "GRANT EXECUTE" in found["public.bare"].left_out

    def test_what_the_server_would_damage_is_not_planned(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        number = value(url, "SELECT current_setting('server_version_num')::int")
        monkeypatch.setattr("worker_service.operations.postgresql.reindex._DAMAGING", range(number, number + 1))
        locking = WantedOperation(name="reindex", options={"concurrently": "false"})

        beside = inspect(url, Scope.TABLE, "reindex", preview=True).objects
        [whole] = inspect(url, Scope.DATABASE, "reindex", preview=True).objects
        alone = inspect(url, Scope.TABLE, locking, preview=True).objects

        assert ["upgrade to 14.4 or later" in one.left_out for one in beside] == [True]
        assert "no statement: PostgreSQL 14.0 to 14.3 damage" in whole.previews[0]
        assert plan(url, "reindex") == ()
        assert [one.left_out for one in alone] == [""]


class TestDisk:
    """What statements need on the disk beside what is there."""

    @pytest.fixture
    def url(self, url: str) -> str:
        change(
            url, "INSERT INTO t SELECT i, 'row ' || i FROM generate_series(1001, 40000) AS i", "VACUUM ANALYZE t"
        )
        return url

    @pytest.mark.parametrize(
        ("scope", "named"), [(Scope.INDEX, "public.tb"), (Scope.TABLE, "public.t"), (Scope.DATABASE, None)]
    )
    def test_a_rebuild_needs_the_size_of_the_largest_index(
        self, url: str, scope: Scope, named: str | None
    ) -> None:
        sizes = [value(url, "SELECT pg_relation_size(%s)", name) for name in ("tb", "t_pkey")]

        [preview] = by_name(inspect(url, scope, "reindex", preview=True))[named].previews

        assert sizes[0] > sizes[1]
        assert preview.endswith(f"; needs about {size(sizes[0])} of disk meanwhile")

    def test_several_at_once_need_it_for_each(self, url: str) -> None:
        change(url, "CREATE TABLE u AS SELECT * FROM t", "CREATE INDEX ub ON u (b)")
        sizes = sum(value(url, "SELECT pg_relation_size(%s)", name) for name in ("tb", "ub"))
        at_once = WantedOperation(name="reindex", options={"jobs": "2"})

        [whole] = inspect(url, Scope.DATABASE, at_once, preview=True).objects

        assert whole.previews[0].endswith(f"; needs about {size(sizes)} of disk meanwhile")

    @pytest.mark.parametrize("wanted", ["vacuum", "cluster"])
    def test_a_rewrite_needs_the_size_of_what_is_live(self, url: str, wanted: str) -> None:
        change(url, "ALTER TABLE t CLUSTER ON t_pkey")
        options: dict[str, Any] = {"full": True} if wanted == "vacuum" else {}
        change(url, "DELETE FROM t WHERE a % 2 = 0")
        change(url, "VACUUM ANALYZE t")
        large = value(url, "SELECT pg_total_relation_size('t')")

        told = needed(url, WantedOperation(name=wanted, options=dict.fromkeys(options, "true")))
        run(url, wanted, "public.t", **options)

        small = value(url, "SELECT pg_total_relation_size('t')")
        assert small < 0.7 * large
        assert told == pytest.approx(small, rel=0.15)

    def test_what_works_in_place_needs_none(self, url: str) -> None:
        found = by_name(inspect(url, Scope.TABLE, "vacuum", "analyze", preview=True))
        [whole] = inspect(url, Scope.DATABASE, "vacuum", "analyze", preview=True).objects

        assert len(found["public.t"].previews) == len(whole.previews) == 2
        assert "disk" not in str((found["public.t"].previews, whole.previews))


def needed(url: str, wanted: WantedOperation) -> float:
    """Return the bytes that the plan of the table tells."""
    [preview] = by_name(inspect(url, Scope.TABLE, wanted, preview=True))["public.t"].previews
    found = re.search(r"; needs about ([0-9.]+) MB of disk meanwhile\Z", preview)
    assert found, preview
    return float(found[1]) * 1e6
