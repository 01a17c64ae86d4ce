"""What a selection and a role's rights leave of a plan, and that the plan tells what would run."""

import pytest

from tests.integration.operations.postgres_ground import by_name, change, holding, inspect, run, value, what
from worker_service.domain.inspection import Scope, Selection, WantedOperation

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
