"""What an inspection finds in a real server, and that each of its objects may then be maintained beside others."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count

import pytest

from manager_service.domain.conditions import condition
from manager_service.leasing.checks import MAX_REASON
from tests.documented import recommended
from tests.integration.operations.doubles import RecordingControl
from tests.integration.operations.mariadb_databases import Database, failure, logged
from tests.lodgings import wait_until
from worker_service.domain.errors import InvalidOperationError, TargetBusyError
from worker_service.domain.inspection import (
    INSPECT,
    Coverage,
    InspectedObject,
    Inspection,
    InspectionResult,
    Scope,
    Selection,
    WantedOperation,
)
from worker_service.domain.lock import Lock
from worker_service.domain.operation import Operation
from worker_service.domain.outcome import FailureCategory, Outcome, Result, Verdict
from worker_service.manager_client.inspections import inspection_result
from worker_service.operations.mariadb import MariadbEngine
from worker_service.operations.mariadb.connection import Connection, ServerError
from worker_service.operations.mariadb.inspecting import table_key
from worker_service.operations.mariadb.target_lock import place_names, table_lock_name
from worker_service.operations.wording import disk_need

NAMES = ['od d"ix :p %s', "back`tick", "MiXeD", "mixed", "q'uote", "sla/sh.dot", "#sharp", "é☃", "100%", "x" * 64]
EVERY = ("vacuum", "analyze", "reindex", "integrity_check")
ALL = Selection()
REBUILT = Coverage(operation="reindex", by="vacuum", reason="vacuum rebuilds it with all its indexes")


def wanted(*names: str, **options: str) -> tuple[WantedOperation, ...]:
    return tuple(WantedOperation(name=name, options=options) for name in names)


_children = count()


def looked(
    database: Database,
    scope: Scope = Scope.TABLE,
    operations: Sequence[WantedOperation] = wanted(*EVERY),
    *,
    selection: Selection = ALL,
    preview: bool = False,
    control: RecordingControl | None = None,
    url: str = "",
) -> Result:
    inspection = Inspection(scope=scope, operations=tuple(operations), selection=selection, preview=preview)
    # The server may still list the end of the look before, which was another child's.
    child = f"child-{next(_children)}"
    operation = Operation(name=INSPECT, target="app", inspection=inspection, child_job_id=child)
    return database.worker(control, url).execute(operation)


def found(result: Result) -> InspectionResult:
    assert (result.outcome, result.verdict) == (Outcome.COMPLETED, Verdict.EFFECTIVE)
    assert result.reason.endswith(".")
    assert result.inspection is not None
    return result.inspection


def by_name(result: Result) -> dict[str | None, InspectedObject]:
    objects = found(result).objects
    assert len({one.object for one in objects}) == len(objects)
    return {one.object: one for one in objects}


@pytest.fixture
def two(database: Database) -> Database:
    """Lend a database of two tables, the second of which is larger."""
    database.table("a", rows=3)
    database.table("b", rows=2_000)
    return database


class TestTables:
    def test_each_is_found_with_all_that_is_wanted_and_the_largest_first(self, two: Database) -> None:
        result = looked(two)

        objects = found(result).objects
        assert [one.object for one in objects] == ["b", "a"]
        assert {one.operations for one in objects} == {EVERY}
        assert result.reason == "found 2 tables."

    def test_as_is_customary_tables_are_found(self, two: Database) -> None:
        assert found(looked(two, Scope.CUSTOMARY)) == found(looked(two, Scope.TABLE))

    def test_at_the_scope_of_indexes_a_table_is_rebuilt_once(self, two: Database) -> None:
        objects = by_name(looked(two, Scope.INDEX, wanted("reindex")))

        assert {name: one.operations for name, one in objects.items()} == {"a": ("reindex",), "b": ("reindex",)}

    def test_nothing_is_changed(self, two: Database) -> None:
        before, rows = two.spaces(), two.checksums("a", "b")

        looked(two, preview=True)

        assert two.spaces() == before
        assert two.checksums("a", "b") == rows

    def test_an_empty_database_has_none(self, database: Database) -> None:
        assert found(looked(database)).objects == ()

    @pytest.mark.parametrize("operation", EVERY)
    def test_every_name_is_taken_by_each_operation(self, database: Database, operation: str) -> None:
        for name in NAMES:
            database.table(name, rows=3)
        objects = by_name(looked(database))

        results = {name: database.maintain(operation, table=name) for name in objects}

        assert set(objects) == set(NAMES)
        assert {result.outcome for result in results.values()} == {Outcome.COMPLETED}
        assert all("1 table" in result.reason for result in results.values())

    def test_the_database_may_have_any_name(self, database: Database) -> None:
        odd = Database(server=database.server, name=database.server.create_database("a%b:c`d E/f_é"))
        odd.table("item", rows=3)
        try:
            objects = by_name(looked(odd, selection=Selection(include=("a%b:c`d E/f_é.item",))))
        finally:
            odd.server.drop_database(odd.name)

        assert objects["item"].measures["file_bytes"] > 0


def purged(database: Database) -> bool:
    """Tell whether the pages of what was deleted are known to be free, after an ANALYZE."""
    database.run("ANALYZE TABLE item")
    pages = "SUM(IF(stat_name = '{}', stat_value, 0))"
    fewer = f"{pages.format('n_leaf_pages')} < 0.65 * {pages.format('size')}"
    sql = f"SELECT {fewer} FROM mysql.innodb_index_stats WHERE database_name = DATABASE() AND table_name = 'item'"
    return database.run(sql) == [(1,)]


class TestMeasures:
    def test_they_are_the_servers_numbers(self, database: Database) -> None:
        database.table("item", rows=6_000, kept=2)
        database.maintain("analyze")

        one = by_name(looked(database))["item"]

        measures = one.measures
        assert one.size_bytes == measures["size_bytes"] == measures["file_bytes"] == database.file_bytes("item")
        assert 2_000 < measures["rows"] < 4_000
        assert measures["data_bytes"] > 0 < measures["index_bytes"]
        whole = measures["data_bytes"] + measures["index_bytes"] + measures["free_bytes"]
        assert measures["free_ratio"] == pytest.approx(measures["free_bytes"] / whole)
        assert 0 <= measures["update_age_seconds"] < 60
        assert measures["never_analyzed"] == 0
        assert measures["statistics_age_s"] == measures["analyze_age_seconds"]
        assert measures["update_age_s"] == measures["update_age_seconds"]

    def test_how_long_ago_a_table_was_rebuilt_and_analysed_is_told(self, two: Database) -> None:
        two.run(
            f"UPDATE mysql.innodb_table_stats SET last_update = NOW() - INTERVAL 9 DAY"
            f" WHERE database_name = '{two.name}' AND table_name = 'a'"
        )
        aged = (
            "SELECT CREATE_TIME < NOW() - INTERVAL 1 SECOND FROM information_schema.TABLES WHERE TABLE_NAME = 'a'"
        )
        wait_until(lambda: (1,) in two.run(f"{aged} AND TABLE_SCHEMA = DATABASE()"), "it does not age")

        before = by_name(looked(two))["a"].measures
        two.maintain("vacuum", table="a")
        after = by_name(looked(two))["a"].measures

        assert before["analyze_age_seconds"] == pytest.approx(9 * 86_400, abs=60)
        assert after["rebuild_age_seconds"] < before["rebuild_age_seconds"]
        assert 0 <= after["analyze_age_seconds"] < 60

    def test_a_table_without_kept_statistics_was_never_analysed(self, two: Database) -> None:
        two.run(
            "CREATE TABLE unkept (id INT PRIMARY KEY) STATS_PERSISTENT=0",
            f"DELETE FROM mysql.innodb_table_stats WHERE database_name = '{two.name}' AND table_name = 'b'",
        )
        objects = by_name(looked(two))
        [whole] = found(looked(two, Scope.DATABASE)).objects
        two.maintain("analyze", table="b")
        analysed = by_name(looked(two))["b"].measures

        assert objects["b"].measures["never_analyzed"] == 1
        assert "analyze_age_seconds" not in objects["b"].measures
        assert not {"never_analyzed", "analyze_age_seconds"} & objects["unkept"].measures.keys()
        assert whole.measures["never_analyzed"] == 1
        assert whole.measures["analyze_age_seconds"] == max(
            one.measures.get("analyze_age_seconds", 0) for one in objects.values()
        )
        assert analysed["never_analyzed"] == 0

    def test_bloat_is_what_of_the_file_no_index_uses(self, database: Database) -> None:
        database.table("item", rows=60_000)
        database.maintain("vacuum")
        full = by_name(looked(database))["item"].measures
        database.run("DELETE FROM item WHERE id % 2 = 0")
        wait_until(lambda: purged(database), "the deleted rows are not purged")
        wasted = by_name(looked(database))["item"].measures
        [whole] = found(looked(database, Scope.DATABASE)).objects
        size = database.file_bytes("item")

        database.maintain("vacuum")

        returned = size - database.file_bytes("item")
        assert wasted["bloat_ratio"] > 0.4
        assert wasted["bloat_ratio"] == pytest.approx(wasted["bloat_bytes"] / wasted["file_bytes"])
        assert wasted["bloat_bytes"] == pytest.approx(returned, rel=0.4)
        assert wasted["free_ratio"] < 0.2
        assert whole.measures["bloat_bytes"] == pytest.approx(wasted["bloat_bytes"], rel=0.2)
        assert whole.measures["bloat_ratio"] == pytest.approx(wasted["bloat_ratio"], rel=0.2)
        rebuilt = by_name(looked(database))["item"].measures
        worth_it = condition(recommended()["MariaDB, vacuum"])
        assert [worth_it.holds(measures) for measures in (full, wasted, rebuilt)] == [False, True, False]

    def test_without_the_books_of_pages_bloat_is_what_no_index_has(self, two: Database) -> None:
        grants = ("SELECT", "PROCESS ON *.*", "SELECT ON mysql.innodb_table_stats")

        measures = by_name(looked(two, url=two.role(*grants)))["b"].measures

        held = measures["data_bytes"] + measures["index_bytes"]
        assert measures["bloat_bytes"] == measures["file_bytes"] - held
        assert measures["analyze_age_seconds"] >= 0

    def test_what_the_role_may_not_read_is_not_among_them(self, two: Database) -> None:
        measures = by_name(looked(two, url=two.role("SELECT")))["b"].measures

        assert measures["size_bytes"] == measures["data_bytes"] + measures["index_bytes"] > 0
        assert not {"file_bytes", "bloat_ratio", "analyze_age_seconds", "never_analyzed"} & measures.keys()

    def test_what_is_free_in_a_shared_tablespace_is_not_the_tables(self, database: Database) -> None:
        database.run("SET GLOBAL innodb_file_per_table = OFF")
        try:
            database.table("shared", rows=3)
        finally:
            database.run("SET GLOBAL innodb_file_per_table = ON")

        measures = by_name(looked(database))["shared"].measures

        assert "free_bytes" not in measures
        assert not {"free_ratio", "bloat_ratio"} & measures.keys()
        assert measures["data_bytes"] > 0

    def test_partitions_are_added_up(self, database: Database) -> None:
        database.run("CREATE TABLE item (id INT PRIMARY KEY) PARTITION BY HASH (id) PARTITIONS 3")

        one = by_name(looked(database))["item"]

        assert one.size_bytes == sum(
            path.stat().st_size for path in (database.server.data / database.name).glob("item*.ibd")
        )

    @pytest.mark.parametrize(("engine", "suffix"), [("MyISAM", "MYI"), ("Aria", "MAI")])
    def test_no_table_is_opened_that_the_server_would_repair(
        self, two: Database, engine: str, suffix: str
    ) -> None:
        two.table("item", rows=3_000, engine=engine)
        two.table("ITEM", rows=3)
        two.run("FLUSH TABLES item")
        path = two.server.data / two.name / f"item.{suffix}"
        os.truncate(path, path.stat().st_size // 2)

        objects = by_name(looked(two, preview=True))
        everything = by_name(looked(two, Scope.DATABASE, preview=True))

        assert failure(two.maintain("integrity_check", table="item")).reason == "DAMAGED"
        assert (objects["item"].size_bytes, objects["item"].measures) == (0, {})
        assert objects["ITEM"].size_bytes > 0
        assert everything[None].measures["tables"] == 4

    def test_a_few_questions_are_enough_for_many_tables(
        self, two: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[str] = []
        rows = Connection.rows

        def listen(self: Connection, sql: str, *arguments: object) -> list[tuple[object, ...]]:
            asked.append(sql)
            return rows(self, sql, *arguments)

        monkeypatch.setattr(Connection, "rows", listen)
        looked(two)
        few = len(asked)
        for number in range(20):
            two.table(f"t{number}")
        asked.clear()

        looked(two, preview=True)

        assert len(asked) == few


class TestDatabase:
    def test_it_is_one_object_with_all_operations_and_no_locks_of_its_own(self, two: Database) -> None:
        two.run("CREATE VIEW v AS SELECT 1")
        result = found(looked(two, Scope.DATABASE))

        [one] = result.objects
        assert (one.object, one.operations, one.locks, result.locks) == (None, EVERY, (), ())
        assert one.measures["tables"] == 2
        assert one.size_bytes == one.measures["file_bytes"] == two.file_bytes("a") + two.file_bytes("b")
        assert one.measures["rows"] > 0
        assert one.measures["never_analyzed"] == 0

    def test_a_selection_is_not_for_it(self, two: Database) -> None:
        [one] = found(looked(two, Scope.DATABASE, selection=Selection(exclude=("*",)))).objects

        assert one.measures["tables"] == 2

    def test_an_empty_one_is_left_out(self, database: Database) -> None:
        [one] = found(looked(database, Scope.DATABASE)).objects

        assert one.left_out == "there is no table in the database that the role may see"
        assert database.maintain("vacuum").outcome is Outcome.SKIPPED


class TestSelection:
    @pytest.mark.parametrize(
        ("selection", "names"),
        [
            (Selection(include=("a",)), {"a"}),
            (Selection(include=("{database}.b",)), {"b"}),
            (Selection(include=("other.a",)), set()),
            (Selection(exclude=("?",)), {"hidden"}),
            (Selection(exclude=("{database}.*",)), set()),
        ],
    )
    def test_a_table_is_named_with_its_database_or_without(
        self, two: Database, selection: Selection, names: set[str]
    ) -> None:
        two.table("hidden")
        include = tuple(pattern.format(database=two.name) for pattern in selection.include)
        exclude = tuple(pattern.format(database=two.name) for pattern in selection.exclude)

        assert set(by_name(looked(two, selection=Selection(include=include, exclude=exclude)))) == names


class TestLeftOut:
    def test_the_statements_of_a_walk_of_many_tables_are_no_longer_than_a_manager_takes(
        self, database: Database
    ) -> None:
        for number in range(60):
            database.run(f"CREATE TABLE table_with_quite_a_long_name_{number:02} (id INT) ENGINE=Aria")

        told = found(looked(database, Scope.DATABASE, preview=True))
        [whole] = inspection_result(told).objects

        assert max(len(text) for text in told.objects[0].previews) > MAX_REASON
        assert max(len(text) for text in whole.previews) <= MAX_REASON
        assert {text.splitlines()[-1] for text in whole.previews} == {"-- and 10 statements more"}

    def test_what_the_walk_leaves_alone_is_told_with_its_reason(self, two: Database) -> None:
        two.run(
            "CREATE VIEW v AS SELECT 1",
            "CREATE SEQUENCE s",
            "CREATE TABLE m (id INT) ENGINE=MEMORY",
        )

        result = looked(two, operations=wanted("vacuum"), preview=True)

        objects = by_name(result)
        assert objects["v"].left_out == "a view has no rows of its own"
        assert objects["s"].left_out == "a sequence is a single row"
        assert objects["m"].left_out.startswith("its rows are in memory")
        assert objects["v"].operations == ("vacuum",)
        assert objects["v"].previews == ()
        assert objects["a"].left_out == ""
        assert result.reason.startswith("found 2 tables, and ")
        for name, one in objects.items():
            assert (two.maintain("vacuum", table=name).outcome is Outcome.SKIPPED) is bool(one.left_out)

    def test_what_may_be_done_to_a_table_is_done(self, database: Database) -> None:
        database.run("CREATE TABLE m (id INT) ENGINE=MEMORY")

        one = by_name(looked(database, preview=True))["m"]

        assert (one.operations, one.left_out) == (("analyze", "integrity_check"), "")
        assert [preview.partition(" -- ")[0] for preview in one.previews] == [
            "ANALYZE TABLE `m`",
            "CHECK TABLE `m`",
        ]

    def test_a_table_that_the_role_may_not_see_is_told_where_its_file_is(self, two: Database) -> None:
        control = RecordingControl()
        url = two.role(f"SELECT, INSERT ON {two.name}.a", "PROCESS ON *.*")

        objects = by_name(looked(two, control=control, url=url))
        chosen = by_name(looked(two, selection=Selection(include=("a",)), url=url))

        assert objects["b"].left_out == "the role may not see it: grant it SELECT"
        assert objects["b"].operations == EVERY
        assert objects["a"].left_out == ""
        assert "The role may not see 1 table: b" in logged(control)
        assert set(chosen) == {"a"}


class TestRebuiltOnce:
    def test_a_reindex_beside_a_vacuum_is_covered_by_it(self, two: Database) -> None:
        two.table("aria", rows=3, engine="Aria")

        objects = by_name(looked(two, operations=wanted("reindex", "analyze", "vacuum")))

        assert objects["a"].covered == (REBUILT,)
        assert objects["a"].operations == ("reindex", "analyze", "vacuum")
        assert objects["aria"].covered == ()

    def test_of_a_database_both_are_done_and_the_plan_says_that_one_is_enough(self, two: Database) -> None:
        two.table("aria", rows=3, engine="Aria")

        [one] = found(looked(two, Scope.DATABASE, preview=True)).objects

        vacuum, _, reindex, _ = (preview.splitlines() for preview in one.previews)
        note = "; vacuum is the same rebuild, so one of the two is enough"
        assert one.covered == ()
        assert [line.endswith(note) for line in reindex] == [True, False, True]
        assert not any(line.endswith(note) for line in vacuum)

    @pytest.mark.parametrize("names", [("vacuum", "analyze"), ("reindex", "analyze")])
    def test_one_rebuild_alone_is_covered_by_nothing(self, two: Database, names: Sequence[str]) -> None:
        assert by_name(looked(two, operations=wanted(*names)))["a"].covered == ()

    @pytest.mark.parametrize(
        ("vacuum", "reindex", "enough"),
        [("false", "true", False), ("true", "false", True), ("false", "false", True)],
    )
    def test_replicas_get_their_rebuild_too(self, two: Database, vacuum: str, reindex: str, enough: bool) -> None:
        operations = (*wanted("vacuum", binlog=vacuum), *wanted("reindex", binlog=reindex))

        assert by_name(looked(two, operations=operations))["a"].covered == ((REBUILT,) if enough else ())

    def test_where_the_server_rebuilds_nothing_by_optimize_both_are_done(self, two: Database) -> None:
        known = "SHOW VARIABLES WHERE Variable_name IN ('innodb_optimize_fulltext_only', 'innodb_defragment')"
        by_alter = (*wanted("vacuum", rebuild="true"), *wanted("reindex"))
        seen = []
        for variable, _ in two.run(known):
            two.run(f"SET GLOBAL {variable} = ON")
            try:
                spaces = two.spaces()
                two.maintain("vacuum", table="a")
                kept = two.spaces() == spaces
                kinds = (by_name(looked(two, operations=each))["a"].covered for each in (wanted(*EVERY), by_alter))
                seen.append((kept, *kinds))
            finally:
                two.run(f"SET GLOBAL {variable} = OFF")

        assert set(seen) == {(True, (), (REBUILT,))}

    def test_a_vacuum_is_enough_for_the_indexes(self, two: Database) -> None:
        spaces = two.spaces()

        two.maintain("vacuum", table="a")

        assert two.spaces()["a"] != spaces["a"]
        assert two.spaces()["b"] == spaces["b"]

    def test_an_analyze_gathers_what_the_rebuild_does_not(self, two: Database) -> None:
        numbers = "SELECT COUNT(*) FROM mysql.column_stats WHERE db_name = DATABASE() AND table_name = 'a'"
        two.run("SET GLOBAL use_stat_tables = 'preferably'")
        try:
            two.maintain("vacuum", table="a")
            by_vacuum = two.run(numbers)
            two.maintain("analyze", table="a")
        finally:
            two.run("SET GLOBAL use_stat_tables = 'preferably_for_queries'")

        assert by_vacuum == [(0,)]
        assert two.run(numbers) == [(2,)]


class TestPreviews:
    def test_they_are_the_statements_and_whom_the_locks_keep_out(self, database: Database) -> None:
        database.table("od`d", rows=3)

        one = by_name(looked(database, preview=True))["od`d"]

        vacuum, analyze, reindex, check = one.previews
        assert vacuum.startswith("OPTIMIZE TABLE `od``d` -- everyone waits for a moment")
        assert analyze == "ANALYZE TABLE `od``d` -- nobody waits"
        assert reindex.startswith("ALTER TABLE `od``d` FORCE -- everyone waits for a moment")
        assert check == "CHECK TABLE `od``d` -- nobody waits"

    def test_a_rebuild_needs_the_room_of_a_second_copy(self, two: Database) -> None:
        one = by_name(looked(two, preview=True))["b"]
        whole = by_name(looked(two, Scope.DATABASE, preview=True))[None]

        needed = f"; {disk_need(one.measures['data_bytes'] + one.measures['index_bytes'])}"
        assert [needed in preview for preview in one.previews] == [True, False, True, False]
        assert [needed in preview.splitlines()[1] for preview in whole.previews] == [True, False, True, False]

    @pytest.mark.parametrize("engine", ["Aria", "MyISAM"])
    def test_other_engines_lock_the_whole_table(self, database: Database, engine: str) -> None:
        database.table("item", rows=3, engine=engine)

        one = by_name(looked(database, preview=True))["item"]

        assert [preview.partition(" -- ")[2] for preview in one.previews] == [
            "writers wait for all of it",
            "writers wait",
            "writers wait for all of it",
            "writers wait",
        ]

    def test_options_change_them(self, two: Database) -> None:
        operations = (
            *wanted("vacuum", online="true"),
            *wanted("integrity_check", depth="quick"),
        )

        vacuum, check = by_name(looked(two, operations=operations, preview=True))["a"].previews

        assert vacuum.startswith("ALTER TABLE `a` FORCE, ALGORITHM=INPLACE, LOCK=NONE -- ")
        assert "it fails where writers would wait longer; needs about " in vacuum
        assert check.startswith("CHECK TABLE `a` QUICK -- ")

    def test_of_a_database_they_are_those_of_its_tables(self, two: Database) -> None:
        two.run("CREATE VIEW v AS SELECT 1")
        vacuum, analyze, *_ = by_name(looked(two, Scope.DATABASE, preview=True))[None].previews

        assert [line.partition(" -- ")[0] for line in vacuum.splitlines()] == [
            "OPTIMIZE TABLE `a`",
            "OPTIMIZE TABLE `b`",
        ]
        assert analyze == "ANALYZE TABLE `a` -- nobody waits\nANALYZE TABLE `b` -- nobody waits"

    def test_of_many_tables_the_first_are_told_and_how_many_more(self, database: Database) -> None:
        for number in range(52):
            database.run(f"CREATE TABLE t{number:02} (id INT PRIMARY KEY)")

        [analyze] = by_name(looked(database, Scope.DATABASE, wanted("analyze"), preview=True))[None].previews

        assert len(analyze.splitlines()) == 51
        assert analyze.endswith("\n-- and 2 statements more")

    def test_without_one_there_are_none(self, two: Database) -> None:
        assert all(one.previews == () for one in found(looked(two)).objects)


class TestRefused:
    @pytest.mark.parametrize(
        ("operation", "message"),
        [
            (Operation(name=INSPECT, target="app", object="a"), "leave out its object"),
            (Operation(name=INSPECT, target="app", options={"depth": "quick"}), "no option 'depth'"),
            (
                Operation(name=INSPECT, target="app", inspection=Inspection(operations=wanted("vacum"))),
                "did you mean 'vacuum'",
            ),
            (
                Operation(name=INSPECT, target="app", inspection=Inspection(operations=wanted(INSPECT))),
                "no operation 'inspect'",
            ),
            (
                Operation(
                    name=INSPECT, target="app", inspection=Inspection(operations=wanted("vacuum", depth="x"))
                ),
                "no option 'depth'",
            ),
        ],
    )
    def test_what_cannot_be_planned_is_told(self, two: Database, operation: Operation, message: str) -> None:
        with pytest.raises(InvalidOperationError, match=message):
            two.worker().validate(operation)
        with pytest.raises(InvalidOperationError, match=message):
            MariadbEngine().plan(two.target(), operation)

    def test_it_has_no_statement_of_its_own_to_plan(self, two: Database) -> None:
        assert MariadbEngine().plan(two.target(), Operation(name=INSPECT, target="app")) == ()

    def test_another_database_at_the_url_is_noticed(self, two: Database) -> None:
        engine = MariadbEngine()
        engine.describe(two.target(url=two.server.url("mysql")))

        result = engine.worker(two.target(), RecordingControl()).execute(Operation(name=INSPECT, target="app"))

        assert failure(result).reason == "TARGET_REPLACED"

    def test_a_role_that_may_do_nothing_is_not_let_in(self, two: Database) -> None:
        assert failure(looked(two, url=two.role())).category is FailureCategory.PERMISSION


class TestStop:
    @pytest.mark.parametrize("struck", [False, True])
    def test_it_ends_the_look(self, two: Database, struck: bool) -> None:
        worker = two.worker(RecordingControl())
        inspection = Inspection(scope=Scope.TABLE, operations=wanted("vacuum"))
        rows = Connection.rows

        def stop_first(self: Connection, sql: str, *arguments: object) -> list[tuple[object, ...]]:
            if "information_schema.TABLES" in sql:
                worker.interrupt()
                if struck:
                    raise ServerError(1317, "Query execution was interrupted")
            return rows(self, sql, *arguments)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Connection, "rows", stop_first)
            result = worker.execute(Operation(name=INSPECT, target="app", inspection=inspection))

        assert result.outcome is Outcome.CANCELLED
        assert result.inspection is None


class TestLockKeys:
    def test_a_table_is_held_alone_and_its_database_shared(self, two: Database) -> None:
        identity = MariadbEngine().describe(two.target()).identity

        result = found(looked(two))

        assert result.locks == (Lock(key=identity, exclusive=False),)
        assert [one.locks for one in result.objects] == [
            (Lock(key=f"{identity}/b"),),
            (Lock(key=f"{identity}/a"),),
        ]

    def test_those_of_a_stated_identity_are_the_offered_ones(self, two: Database) -> None:
        engine, target = MariadbEngine(), two.target(identity="billing")
        [offered] = engine.describe(target).operations[0].locks
        inspection = Inspection(scope=Scope.TABLE)

        worker = engine.worker(target, RecordingControl())
        result = found(worker.execute(Operation(name=INSPECT, target="app", inspection=inspection)))

        assert result.locks == (Lock(key=offered.key, exclusive=False),)

    def test_long_names_stay_short_and_apart(self) -> None:
        keys = {table_key("key", name) for name in ("x" * 64, "x" * 63, "x" * 32, "x" * 8)}

        assert len(keys) == 4
        assert max(map(len, keys)) < 48


@contextmanager
def working_on(database: Database, table: str | None) -> Iterator[None]:
    """Let another worker be at work on a table, or on the whole database, by the lock that it holds."""
    first, *others = place_names(database.name)
    names = [first, *others] if table is None else [others[0], table_lock_name(database.name, table)]
    with database.server.connect(database.name) as connection, connection.cursor() as cursor:
        for name in names:
            cursor.execute("SELECT GET_LOCK(%s, 0)", (name,))
            assert cursor.fetchone() == (1,)
        yield


class TestLockInTheServer:
    def test_two_tables_are_worked_on_beside_each_other(self, two: Database) -> None:
        outcomes: list[Outcome] = []
        control = RecordingControl(
            on_progress=lambda _: outcomes.append(two.maintain("vacuum", table="b").outcome)
        )

        result = two.maintain("vacuum", control, table="a")

        assert result.outcome is Outcome.COMPLETED
        assert set(outcomes) == {Outcome.COMPLETED}

    @pytest.mark.parametrize(
        ("held", "wanted_table", "message"),
        [
            ("a", "a", "holds the table 'a' of the database"),
            (None, "a", "holds the database"),
            ("a", None, "holds a table of the database"),
            (None, None, "holds the database"),
        ],
    )
    def test_what_another_works_on_is_busy(
        self, two: Database, held: str | None, wanted_table: str | None, message: str
    ) -> None:
        refusals: list[str] = []

        def try_too(_: object) -> None:
            with pytest.raises(
                TargetBusyError, match=rf"Another operation {message}.* \(connection \d+\)"
            ) as busy:
                two.maintain("analyze", table=wanted_table)
            refusals.append(str(busy.value))

        result = two.maintain("vacuum", RecordingControl(on_progress=try_too), table=held)

        assert result.outcome is Outcome.COMPLETED
        assert refusals
        assert two.maintain("analyze", table=wanted_table).outcome is Outcome.COMPLETED

    def test_who_is_busy_keeps_nothing(self, two: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        kept: list[Connection] = []

        def leave_open(self: Connection) -> None:
            kept.append(self)

        with working_on(two, "a"), monkeypatch.context() as patched:
            patched.setattr(Connection, "close", leave_open)
            for table in ("a", None):
                with pytest.raises(TargetBusyError):
                    two.maintain("analyze", table=table)

        try:
            assert two.maintain("analyze").outcome is Outcome.COMPLETED
        finally:
            for connection in kept:
                connection.close()

    def test_a_worker_that_knows_one_lock_only_keeps_tables_off(self, two: Database) -> None:
        with two.server.connect(two.name) as older, older.cursor() as cursor:
            cursor.execute("SELECT GET_LOCK(%s, 0)", (place_names(two.name)[0],))

            with pytest.raises(TargetBusyError, match="holds the database"):
                two.maintain("analyze", table="a")

    def test_the_first_place_is_called_as_the_one_lock_was(self) -> None:
        digest = hashlib.sha256(b"shop").hexdigest()

        assert place_names("shop")[0] == f"overhaul:{digest[:32]}"

    def test_the_one_lock_of_older_workers_is_taken_with_the_whole_database(self, two: Database) -> None:
        seen: list[object] = []
        ask = f"SELECT IS_FREE_LOCK('{place_names(two.name)[0]}')"
        control = RecordingControl(on_progress=lambda _: seen.extend(two.run(ask)))

        two.maintain("analyze", control)

        assert set(seen) == {(0,)}

    def test_no_more_tables_at_once_than_there_are_places(self, two: Database) -> None:
        with two.server.connect(two.name) as others, others.cursor() as cursor:
            for name in place_names(two.name)[1:]:
                cursor.execute("SELECT GET_LOCK(%s, 0)", (name,))

            with pytest.raises(TargetBusyError, match="work on 15 tables"):
                two.maintain("analyze", table="a")

    def test_an_inspection_looks_beside_all_of_them(self, two: Database) -> None:
        with working_on(two, None):
            assert len(found(looked(two)).objects) == 2

    def test_names_are_short_and_apart(self) -> None:
        names = [*place_names("x" * 64), *place_names("a"), table_lock_name("a", "b"), table_lock_name("a", "c")]

        assert len(set(names)) == len(names)
        assert max(map(len, names)) <= 64
