"""What an inspection finds, and that every object of it can be maintained, beside others."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from tests.integration.operations.doubles import RecordingControl
from tests.integration.operations.postgres_ground import (
    OWN,
    Running,
    by_name,
    change,
    database,
    holding,
    inspect,
    operation,
    run,
    target,
    until,
    value,
    what,
)
from tests.postgres import PostgresServer
from worker_service.domain.errors import InvalidOperationError, TargetBusyError
from worker_service.domain.inspection import (
    INSPECT,
    Inspection,
    Scope,
    Selection,
    WantedOperation,
)
from worker_service.domain.lock import Lock
from worker_service.domain.outcome import Outcome, Verdict
from worker_service.operations.postgresql import PostgresqlEngine, bloat, inventory
from worker_service.operations.postgresql.exclusion import LOCK, TABLE_CLASS, TargetLock, locks_for, locks_of
from worker_service.operations.postgresql.holders import snapshot_holders, waited_for
from worker_service.operations.postgresql.names import Name
from worker_service.operations.postgresql.wording import quoted

NAMES = ['qu"ote', "per%cent %s", "Mixed Case", "dot.ted", "apo'strophe", "x" * 63, "ü" * 31, "select", "$1 {} :a"]
BUSY = "SELECT count(*) FROM pg_locks WHERE NOT granted"


def indexes(url: str, *names: str) -> list[Mapping[str, float]]:
    found = by_name(inspect(url, Scope.INDEX, "reindex"))
    return [found[f"public.{name}"].measures for name in names]


def other(**more: Any) -> dict[str, Any]:
    return {"child": "01993f00-0000-7000-8000-00000000000b", **more}


@pytest.fixture
def url(postgres_url: str) -> str:
    change(
        postgres_url,
        "CREATE TABLE t (a int PRIMARY KEY, b text)",
        "CREATE TABLE u (a int PRIMARY KEY)",
        "CREATE INDEX tb ON t (b)",
        "INSERT INTO t SELECT i, 'row ' || i FROM generate_series(1, 1000) AS i",
    )
    return postgres_url


PARTITIONED = (
    "CREATE TABLE p (a int PRIMARY KEY) PARTITION BY RANGE (a)",
    "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100)",
    "CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (100) TO (200) PARTITION BY RANGE (a)",
    "CREATE TABLE p21 PARTITION OF p2 FOR VALUES FROM (100) TO (200)",
    "INSERT INTO p SELECT generate_series(0, 199)",
)


class TestScopes:
    def test_tables_have_what_is_done_to_tables(self, url: str) -> None:
        found = inspect(url, Scope.TABLE, "vacuum", "analyze", "reindex")

        assert what(found) == {
            "public.t": ("vacuum", "analyze", "reindex"),
            "public.u": ("vacuum", "analyze", "reindex"),
        }

    def test_as_is_customary_tables_are_found(self, url: str) -> None:
        wanted = ("vacuum", "analyze", "reindex")

        assert what(inspect(url, Scope.CUSTOMARY, *wanted)) == what(inspect(url, Scope.TABLE, *wanted))

    def test_indexes_have_what_is_done_to_indexes(self, url: str) -> None:
        change(url, "CREATE EXTENSION amcheck")

        found = inspect(url, Scope.INDEX, "reindex", "vacuum", "amcheck")

        assert what(found) == {
            "public.t": ("vacuum",),
            "public.u": ("vacuum",),
            "public.t_pkey": ("reindex", "amcheck"),
            "public.tb": ("reindex", "amcheck"),
            "public.u_pkey": ("reindex", "amcheck"),
        }

    @pytest.mark.parametrize("wanted", [("vacuum", "reindex"), ("reindex", "vacuum")])
    def test_what_is_wanted_first_comes_first(self, url: str, wanted: tuple[str, ...]) -> None:
        found = inspect(url, Scope.INDEX, *wanted)

        assert found.objects[0].operations == wanted[:1]
        assert found.objects[-1].operations == wanted[1:]

    def test_a_database_is_one_object_without_a_name_and_with_its_own_locks(self, url: str) -> None:
        found = inspect(url, Scope.DATABASE, "vacuum", "reindex", preview=True)

        (whole,) = found.objects
        assert (whole.object, whole.operations, whole.locks, found.locks) == (None, ("vacuum", "reindex"), (), ())
        assert whole.size_bytes == value(url, "SELECT pg_database_size(current_database())")
        assert whole.measures["live_rows"] == 1000
        assert whole.measures["xid_age"] > 0
        assert 'VACUUM (VERBOSE) "' in whole.previews[0]
        assert whole.previews[1].count("REINDEX INDEX CONCURRENTLY") == 4  # that of long values too

    def test_tables_are_checked_with_their_indexes_and_also_without_any(self, url: str) -> None:
        change(url, "CREATE EXTENSION amcheck", "CREATE TABLE bare (a int)")

        found = by_name(inspect(url, Scope.TABLE, "amcheck", preview=True))

        assert set(found) == {"public.t", "public.u", "public.bare"}
        assert found["public.t"].previews[0].count("verify_heapam") == 1
        assert found["public.t"].previews[0].count("bt_index_check") == 2
        assert "verify_heapam" in found["public.bare"].previews[0]

    def test_only_marked_tables_are_clustered(self, url: str) -> None:
        change(url, "ALTER TABLE t CLUSTER ON t_pkey")

        assert what(inspect(url, Scope.INDEX, "cluster")) == {"public.t": ("cluster",)}

    def test_catalogues_are_found_as_the_whole_database_has_them(self, url: str) -> None:
        found = inspect(url, Scope.TABLE, "vacuum", "reindex", "cluster", selection=Selection())

        catalogue = by_name(found)["pg_catalog.pg_class"]
        assert catalogue.operations == ("vacuum",)
        assert len(found.objects) == run(url, "vacuum").after["tables"]

    def test_a_full_vacuum_leaves_catalogues_alone(self, url: str) -> None:
        full = WantedOperation(name="vacuum", options={"full": "true"})

        assert set(what(inspect(url, Scope.TABLE, full, selection=Selection()))) == {"public.t", "public.u"}

    @pytest.mark.parametrize("wanted", [WantedOperation(name="vacum"), WantedOperation(name=INSPECT)])
    def test_what_cannot_be_wanted_is_refused(self, wanted: WantedOperation) -> None:
        worker = PostgresqlEngine().worker(target("postgresql://h/app"), RecordingControl())

        with pytest.raises(InvalidOperationError, match="no operation"):
            worker.validate(replace(operation(INSPECT), inspection=Inspection(operations=(wanted,))))

    def test_one_object_is_not_inspected(self) -> None:
        worker = PostgresqlEngine().worker(target("postgresql://h/app"), RecordingControl())

        with pytest.raises(InvalidOperationError, match="whole database is inspected"):
            worker.validate(operation(INSPECT, "public.t"))


class TestSelection:
    @pytest.mark.parametrize("pattern", ["t", "public.t", "*.t", "[t]"])
    def test_a_table_is_meant_by_either_name(self, url: str, pattern: str) -> None:
        found = inspect(url, Scope.TABLE, "vacuum", selection=Selection(include=(pattern,)))

        assert set(what(found)) == {"public.t"}

    def test_an_index_is_meant_by_its_own(self, url: str) -> None:
        found = inspect(url, Scope.INDEX, "reindex", selection=Selection(include=("t*",), exclude=("*_pkey",)))

        assert set(what(found)) == {"public.tb"}


class TestMeasures:
    def test_a_table_whose_vacuum_the_server_is_about_to_force_is_urgent(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calm = by_name(inspect(url, Scope.TABLE, "vacuum"))["public.t"]
        # The least that a server can be set to would take a hundred thousand transactions.
        limit = "current_setting('autovacuum_freeze_max_age')"
        assert limit in inventory._SETTINGS
        monkeypatch.setattr(inventory, "_SETTINGS", inventory._SETTINGS.replace(limit, "'1'"))

        urgent = by_name(inspect(url, Scope.TABLE, "vacuum"))["public.t"]

        assert urgent.measures["xid_age_ratio"] == urgent.measures["xid_age"] >= 1
        assert (calm.urgent, urgent.urgent) == (False, True)

    def test_those_of_a_table(self, url: str) -> None:
        change(url, "VACUUM t", "DELETE FROM t WHERE a > 750")
        change(url, "ANALYZE t")

        one = by_name(inspect(url, Scope.TABLE, "vacuum"))["public.t"]

        total = value(url, "SELECT pg_total_relation_size('t')")
        assert one.size_bytes == one.measures["size_bytes"] == total
        assert one.measures["table_bytes"] + one.measures["index_bytes"] == total
        assert (one.measures["live_rows"], one.measures["dead_rows"]) == (750, 250)
        assert one.measures["dead_ratio"] == 0.25
        assert one.measures["modified_rows"] == 0
        assert (one.measures["never_vacuumed"], one.measures["never_analyzed"]) == (0, 0)
        assert 0 <= one.measures["vacuum_age_seconds"] < 60
        assert one.measures["pages"] > 0
        assert one.measures["xid_age"] == pytest.approx(
            value(url, "SELECT age(relfrozenxid) FROM pg_class WHERE oid = 't'::regclass"), abs=50
        )
        assert 0 < one.measures["xid_age_ratio"] < 1e-3
        assert one.measures["size_estimated"] == 0

    def test_a_table_that_was_never_vacuumed_has_no_age(self, url: str) -> None:
        measures = by_name(inspect(url, Scope.TABLE, "vacuum"))["public.t"].measures

        assert (measures["never_vacuumed"], measures["never_analyzed"]) == (1, 1)
        assert not {"vacuum_age_seconds", "analyze_age_seconds"} & measures.keys()
        assert measures["inserted_rows"] == 1000
        assert measures["modified_ratio"] == 1

    def test_bloat_is_near_the_truth(self, url: str) -> None:
        change(
            url, "INSERT INTO t SELECT i, 'row ' || i FROM generate_series(1001, 50000) AS i", "VACUUM ANALYZE t"
        )
        full = by_name(inspect(url, Scope.TABLE, "vacuum"))["public.t"].measures
        change(url, "DELETE FROM t WHERE a % 2 = 0")
        change(url, "VACUUM ANALYZE t")

        half = by_name(inspect(url, Scope.TABLE, "vacuum"))["public.t"].measures

        assert full["bloat_ratio"] < 0.1
        assert half["bloat_ratio"] == pytest.approx(0.5, abs=0.1)
        assert half["bloat_estimated"] == 1

    @pytest.mark.parametrize("extension", [False, True])
    def test_bloat_of_an_index_is_near_the_truth(self, url: str, extension: bool) -> None:
        if extension:
            change(url, "CREATE SCHEMA tools", "CREATE EXTENSION pgstattuple SCHEMA tools")
        change(
            url,
            "INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1001, 30000) AS i",
            "CREATE INDEX expressed ON t (upper(b))",
            "REINDEX TABLE t",
            "VACUUM ANALYZE t",
        )
        full = indexes(url, "t_pkey", "expressed")
        change(url, "DELETE FROM t WHERE a % 3 > 0")
        change(url, "VACUUM ANALYZE t")

        third = indexes(url, "t_pkey", "expressed")
        of_table = by_name(inspect(url, Scope.TABLE, "reindex"))["public.t"].measures

        for before, after in zip(full, third, strict=True):
            assert before["bloat_ratio"] < 0.1
            assert after["bloat_ratio"] == pytest.approx(2 / 3, abs=0.1)
            assert after["bloat_bytes"] == pytest.approx(after["bloat_ratio"] * after["size_bytes"])
            assert after["bloat_estimated"] == (not extension)
        assert of_table["index_bloat_ratio"] == pytest.approx(2 / 3, abs=0.1)
        assert of_table["index_bloat_estimated"] == (not extension)

    def test_the_extension_measures_tables_that_have_no_statistics(self, url: str) -> None:
        change(
            url,
            "CREATE EXTENSION pgstattuple",
            "CREATE TABLE fresh AS SELECT i AS a FROM generate_series(1, 30000) AS i",
            "DELETE FROM fresh WHERE a % 2 = 0",
        )

        measures = by_name(inspect(url, Scope.TABLE, "vacuum"))["public.fresh"].measures

        dead = value(url, "SELECT dead_tuple_len + approx_free_space FROM pgstattuple_approx('fresh')")
        assert measures["bloat_bytes"] == pytest.approx(dead, rel=0.01)
        assert (measures["bloat_ratio"] > 0.2, measures["bloat_estimated"]) == (True, 0)

    def test_what_is_dear_to_measure_is_estimated(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bloat, "_MOST", 0)
        change(url, "CREATE EXTENSION pgstattuple", "ANALYZE t, u")

        found = by_name(inspect(url, Scope.INDEX, "vacuum", "reindex"))

        assert found["public.t"].measures["bloat_estimated"] == 1
        assert found["public.tb"].measures["bloat_estimated"] == 1

    def test_a_role_that_may_not_measure_is_told_an_estimate(self, url: str) -> None:
        change(url, "CREATE EXTENSION pgstattuple", "ANALYZE t, u", "CREATE ROLE reader LOGIN")
        change(url, "GRANT SELECT ON t TO reader")
        try:
            found = by_name(inspect(url.replace("postgres@", "reader@"), Scope.INDEX, "reindex"))
        finally:
            change(url, "DROP OWNED BY reader", "DROP ROLE reader")

        assert found["public.tb"].measures["bloat_estimated"] == 1
        assert "bloat_ratio" not in found["public.u_pkey"].measures

    def test_what_somebody_holds_alone_is_not_waited_for_to_be_measured(self, url: str) -> None:
        change(url, "CREATE EXTENSION pgstattuple", "ANALYZE t, u")
        with holding(url, "LOCK TABLE t IN ACCESS EXCLUSIVE MODE"):
            found = by_name(inspect(url, Scope.TABLE, "vacuum"))

        assert found["public.t"].measures["bloat_estimated"] == 1
        assert found["public.u"].measures["bloat_estimated"] == 0

    def test_a_role_that_may_not_read_a_table_knows_no_bloat(self, url: str) -> None:
        change(url, "ANALYZE t", "ANALYZE u", "CREATE ROLE reader LOGIN", "GRANT SELECT ON t TO reader")
        try:
            found = by_name(inspect(url.replace("postgres@", "reader@"), Scope.TABLE, "vacuum"))
        finally:
            change(url, "DROP OWNED BY reader", "DROP ROLE reader")

        assert "bloat_ratio" in found["public.t"].measures
        assert "bloat_ratio" not in found["public.u"].measures

    def test_those_of_an_index(self, url: str) -> None:
        change(url, "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'tb'::regclass")

        found = by_name(inspect(url, Scope.INDEX, "reindex"))

        one = found["public.tb"]
        assert one.size_bytes == one.measures["size_bytes"] == value(url, "SELECT pg_relation_size('tb')")
        assert one.measures["table_bytes"] == value(url, "SELECT pg_table_size('t')")
        assert (one.measures["valid"], found["public.t_pkey"].measures["valid"]) == (0, 1)
        assert one.measures["scans"] == 0

    def test_nobody_is_waited_for(self, url: str) -> None:
        change(url, "VACUUM t")
        with holding(url, "LOCK TABLE t IN ACCESS EXCLUSIVE MODE"):
            found = by_name(inspect(url, Scope.TABLE, "vacuum", "reindex"))

        assert {name: one.measures["size_estimated"] for name, one in found.items()} == {
            "public.t": 1,
            "public.u": 0,
        }
        assert found["public.t"].size_bytes > 0

    def test_who_comes_between_is_not_waited_for_either(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        nobody = "SELECT relation FROM pg_locks WHERE false"
        monkeypatch.setattr("worker_service.operations.postgresql.details._LOCKED", nobody)
        change(url, "VACUUM t")
        with holding(url, "LOCK TABLE t IN ACCESS EXCLUSIVE MODE"):
            found = by_name(inspect(url, Scope.TABLE, "vacuum"))

        assert found["public.t"].size_bytes > 0

    def test_it_takes_no_more_statements_for_many_tables(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[object] = []
        execute = psycopg.Connection.execute

        def counting(self: Any, query: Any, *more: Any, **named: Any) -> Any:
            asked.append(query)
            return execute(self, query, *more, **named)

        wanted = ("vacuum", "analyze", "reindex", "cluster", "amcheck")
        with monkeypatch.context() as patched:
            patched.setattr(psycopg.Connection, "execute", counting)
            inspect(url, Scope.INDEX, *wanted, preview=True)
            few = len(asked)
        change(url, *(f"CREATE TABLE n{number} (a int PRIMARY KEY)" for number in range(300)))
        asked.clear()
        monkeypatch.setattr(psycopg.Connection, "execute", counting)

        found = inspect(url, Scope.INDEX, *wanted, preview=True)

        assert len(found.objects) == 605
        assert len(asked) == few < 25


class TestOneObject:
    @pytest.mark.parametrize(("name", "most"), [("vacuum", 10), ("analyze", 10), ("reindex", 13)])
    def test_it_costs_few_statements(
        self, url: str, monkeypatch: pytest.MonkeyPatch, name: str, most: int
    ) -> None:
        asked: list[str] = []
        execute = psycopg.Connection.execute

        def counting(self: Any, query: Any, *more: Any, **named: Any) -> Any:
            asked.append(str(query))
            return execute(self, query, *more, **named)

        monkeypatch.setattr(psycopg.Connection, "execute", counting)

        result = run(url, name, "public.t")

        assert result.verdict is not None
        assert len(asked) <= most, asked
        assert not any("pg_database_size" in query or "pg_stats" in query for query in asked)


class TestPassedOver:
    @pytest.mark.parametrize(
        ("operation", "name", "why"),
        [("vacuum", "p", "its partitions are listed"), ("reindex", "bare", "indexes that it does not have")],
    )
    def test_a_table_that_is_asked_for_by_name_is_told_of(
        self, url: str, operation: str, name: str, why: str
    ) -> None:
        change(url, *PARTITIONED, "CREATE TABLE bare (a int)")

        found = by_name(inspect(url, Scope.TABLE, operation, selection=Selection(include=(name,))))

        assert list(found) == [f"public.{name}"]
        assert why in found[f"public.{name}"].left_out
        assert found[f"public.{name}"].operations == (operation,)

    def test_where_all_are_meant_it_is_not(self, url: str) -> None:
        change(url, *PARTITIONED)

        assert "public.p" not in by_name(inspect(url, Scope.TABLE, "vacuum"))


class TestPartitions:
    def test_a_parent_is_only_analysed_and_its_partitions_are_tables(self, url: str) -> None:
        change(url, *PARTITIONED)

        found = by_name(
            inspect(
                url,
                Scope.TABLE,
                "vacuum",
                "analyze",
                "reindex",
                selection=Selection(include=("p", "p[0-9]*")),
            )
        )

        assert {name: one.operations for name, one in found.items()} == {
            "public.p": ("analyze",),
            "public.p1": ("vacuum", "reindex"),
            "public.p21": ("vacuum", "reindex"),
        }
        assert found["public.p"].measures["live_rows"] == 200
        assert found["public.p"].size_bytes == found["public.p1"].size_bytes + found["public.p21"].size_bytes

    def test_partitions_share_the_keys_of_what_they_are_part_of(self, url: str) -> None:
        change(url, *PARTITIONED)

        found = by_name(inspect(url, Scope.TABLE, "vacuum", "analyze"))

        key = PostgresqlEngine().describe(target(url)).identity
        number = {name: value(url, "SELECT %s::regclass::oid", name) for name in ("p", "p1", "p2", "p21")}
        assert found["public.p"].locks == (Lock(key=f"{key}/{number['p']}"),)
        assert set(found["public.p21"].locks) == {
            Lock(key=f"{key}/{number['p']}", exclusive=False),
            Lock(key=f"{key}/{number['p2']}", exclusive=False),
            Lock(key=f"{key}/{number['p21']}"),
        }

    def test_a_parent_waits_for_its_partitions_and_they_for_it(self, url: str) -> None:
        change(url, *PARTITIONED)
        with holding(url, "LOCK TABLE p21 IN SHARE UPDATE EXCLUSIVE MODE"):
            running = Running(url, "vacuum", "public.p21", lock_timeout_ms=0)
            until(lambda: value(url, BUSY))
            with pytest.raises(TargetBusyError):
                run(url, "analyze", "public.p", **other(lock_timeout_ms=100))
            assert run(url, "vacuum", "public.p1", **other()).outcome is Outcome.COMPLETED
            running.interrupt()

    def test_the_newest_server_analyses_a_parent_without_its_partitions(
        self, newest_postgres: PostgresServer
    ) -> None:
        newest = newest_postgres.create_database()
        change(newest, *PARTITIONED)

        found = what(inspect(newest, Scope.TABLE, "analyze"))
        result = run(newest, "analyze", "public.p")

        counts = "SELECT analyze_count FROM pg_stat_all_tables WHERE relname = %s"
        assert set(found) == {"public.p", "public.p1", "public.p2", "public.p21"}
        assert result.verdict is Verdict.EFFECTIVE
        assert [value(newest, counts, name) for name in ("p", "p1", "p21")] == [1, 0, 0]
        newest_postgres.drop_database(newest)


class TestLocks:
    def test_objects_have_their_tables_key_and_share_the_databases(self, url: str) -> None:
        found = inspect(url, Scope.INDEX, "vacuum", "reindex")

        key = PostgresqlEngine().describe(target(url)).identity
        number = value(url, "SELECT 't'::regclass::oid")
        assert found.locks == (Lock(key=key, exclusive=False),)
        own = {one.locks for one in found.objects if one.object in {"public.t", "public.tb", "public.t_pkey"}}
        assert own == {(Lock(key=f"{key}/{number}"),)}

    def test_an_index_of_long_values_has_the_key_of_whose_they_are(self, url: str) -> None:
        toast = value(url, "SELECT reltoastrelid::regclass::text FROM pg_class WHERE oid = 't'::regclass")
        name = f"{toast}_index"

        one = by_name(inspect(url, Scope.INDEX, "reindex", selection=Selection()))[name]

        number = value(url, "SELECT 't'::regclass::oid")
        assert one.locks[-1].key.endswith(f"/{number}")
        assert held(url, Name.parse(name))[-1].number == number

    def test_an_index_of_a_partitions_long_values_shares_the_keys_of_what_it_is_part_of(self, url: str) -> None:
        change(url, "CREATE TABLE q (a int, b text) PARTITION BY RANGE (a)")
        change(url, "CREATE TABLE q1 PARTITION OF q FOR VALUES FROM (0) TO (100)")
        toast = value(url, "SELECT reltoastrelid::regclass::text FROM pg_class WHERE oid = 'q1'::regclass")

        keys = by_name(inspect(url, Scope.INDEX, "reindex", selection=Selection()))[f"{toast}_index"].locks

        locks = held(url, Name.parse(f"{toast}_index"))
        numbers = [value(url, "SELECT %s::regclass::oid", name) for name in ("q", "q1")]
        assert [(lock.number, lock.exclusive) for lock in locks[1:]] == [(numbers[0], False), (numbers[1], True)]
        assert [(key.key.rpartition("/")[2], key.exclusive) for key in keys] == [
            (str(numbers[0]), False),
            (str(numbers[1]), True),
        ]

    def test_inspecting_shares_the_database(self, url: str) -> None:
        offered = {one.name: one.locks for one in PostgresqlEngine().describe(target(url)).operations}

        assert [lock.exclusive for lock in offered[INSPECT]] == [False]
        assert [lock.exclusive for lock in offered["vacuum"]] == [True]

    def test_it_goes_on_beside_work_on_a_table(self, url: str) -> None:
        with working(url, "public.t"):
            assert len(inspect(url, Scope.TABLE, "vacuum").objects) == 2

    def test_two_tables_are_maintained_at_once(self, url: str) -> None:
        with working(url, "public.t"):
            results = [run(url, name, "public.u", **other()) for name in ("vacuum", "analyze", "reindex")]

        assert [one.outcome for one in results] == [Outcome.COMPLETED] * 3

    @pytest.mark.parametrize("subject", ["public.t", "public.tb"])
    def test_one_table_is_not_maintained_twice(self, url: str, subject: str) -> None:
        with working(url, "public.t"), pytest.raises(TargetBusyError, match=r"pid \d+ \(overhaul:.*a:1\)"):
            run(url, "reindex", subject, **other(lock_timeout_ms=100))

    def test_the_whole_database_is_busy_while_a_table_is(self, url: str) -> None:
        with working(url, "public.t"), pytest.raises(TargetBusyError, match=r"pid \d+ \(overhaul:.*a:1\)"):
            run(url, "analyze", **other())

    def test_a_table_is_busy_while_the_whole_database_is(self, url: str) -> None:
        with working(url, None), pytest.raises(TargetBusyError, match=r"pid \d+ \(overhaul:.*a:1\)"):
            run(url, "analyze", "public.u", **other())

    def test_what_is_not_there_is_no_reason_to_be_busy(self, url: str) -> None:
        with working(url, "public.t"):
            assert run(url, "vacuum", "public.none", **other()).outcome is Outcome.SKIPPED

    def test_a_vacuum_of_another_table_is_no_old_transaction(self, url: str) -> None:
        change(url, "CREATE TABLE s AS SELECT i, repeat('x', 500) FROM generate_series(1, 20000) AS i")
        change(url, "DELETE FROM s WHERE i % 2 = 0")
        number = value(url, "SELECT 't'::regclass::oid")
        running = Running(url, "vacuum", "public.s", cost_delay_ms=100)
        until(lambda: value(url, "SELECT count(*) FROM pg_stat_progress_vacuum"))
        with database(url) as connection:

            def read(query: str, *values: object) -> list[tuple[Any, ...]]:
                return connection.execute(query.encode(), values or None).fetchall()

            beside = [holder.program for holder in waited_for(read, number, 0.0)]
            keeping = [holder.program for holder in snapshot_holders(read, 0.0, [])]
            still = value(url, "SELECT count(*) FROM pg_stat_progress_vacuum")
        running.interrupt()

        assert still == 1
        assert not any("overhaul:" in program for program in (*beside, *keeping))

    def test_a_large_number_fits(self, url: str) -> None:
        large = TargetLock(space=TABLE_CLASS, number=4_000_000_000, exclusive=True)
        with database(url) as connection:
            assert connection.execute(f"SELECT {large.call}".encode()).fetchone() == (True,)
            row = connection.execute("SELECT classid, objid FROM pg_locks WHERE locktype = 'advisory'").fetchone()
        assert row == (TABLE_CLASS, 4_000_000_000)

    def test_all_are_given_back(self, url: str) -> None:
        number = value(url, "SELECT 't'::regclass::oid")
        for _ in range(20):
            run(url, "analyze", "public.t")
            run(url, "vacuum", "public.t")
            run(url, "analyze")
        with database(url) as connection:
            for lock in (*locks_of(number, ()), TargetLock(space=LOCK[0], number=LOCK[1], exclusive=True)):
                assert connection.execute(f"SELECT {lock.call}".encode()).fetchone() == (True,)


def held(url: str, subject: Name) -> tuple[TargetLock, ...]:
    with database(url) as connection:
        return locks_for(
            lambda query, *values: connection.execute(query.encode(), values or None).fetchall(),
            subject,
            alone=True,
        )


class working:  # noqa: N801 - a context, as ``holding`` is
    """Run an operation that waits for a lock until the context ends."""

    def __init__(self, url: str, subject: str | None) -> None:
        self._url = url
        self._subject = subject
        self._holding = holding(url, "LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE")

    def __enter__(self) -> None:
        self._holding.__enter__()
        self._running = Running(self._url, "vacuum", self._subject, lock_timeout_ms=0)
        until(lambda: value(self._url, BUSY))

    def __exit__(self, *error: object) -> None:
        self._running.interrupt()
        self._holding.__exit__(None, None, None)


class TestPreviews:
    def test_they_are_what_runs_and_whom_it_keeps_out(self, url: str) -> None:
        wanted = (WantedOperation(name="vacuum", options={"freeze": "true"}), "analyze", "reindex")

        one = by_name(inspect(url, Scope.TABLE, *wanted, preview=True))["public.t"]

        lock = "; SHARE UPDATE EXCLUSIVE: keeps out changes of the table's definition and other maintenance"
        rebuild = "REINDEX INDEX CONCURRENTLY"
        assert one.previews == (
            f'VACUUM (VERBOSE, FREEZE) "public"."t"{lock}',
            f'ANALYZE "public"."t"{lock}',
            f'{rebuild} "public"."t_pkey"; {rebuild} "public"."tb"{lock}; needs about 49.2 kB of disk meanwhile',
        )

    @pytest.mark.parametrize(
        ("name", "options", "lock"),
        [
            ("vacuum", {"full": "true"}, "; ACCESS EXCLUSIVE: keeps out everybody"),
            ("cluster", {}, "; ACCESS EXCLUSIVE: keeps out everybody"),
            ("reindex", {"concurrently": "false"}, "keeps out writers, and readers of the index"),
            ("amcheck", {}, "; ACCESS SHARE: keeps out"),
            ("amcheck", {"parent": "true"}, "; SHARE: keeps out writers"),
        ],
    )
    def test_options_change_the_lock(self, url: str, name: str, options: dict[str, str], lock: str) -> None:
        change(url, "ALTER TABLE t CLUSTER ON t_pkey")

        found = inspect(url, Scope.TABLE, WantedOperation(name=name, options=options), preview=True)

        assert lock in by_name(found)["public.t"].previews[0]

    def test_there_are_none_where_they_are_not_asked_for(self, url: str) -> None:
        assert by_name(inspect(url, Scope.TABLE, "vacuum"))["public.t"].previews == ()


class TestLeftOut:
    def test_foreign_and_temporary_tables_and_views_are_told(self, url: str) -> None:
        change(
            url,
            "CREATE VIEW v AS SELECT 1 AS a",
            "CREATE FOREIGN DATA WRAPPER far",
            "CREATE SERVER away FOREIGN DATA WRAPPER far",
            "CREATE FOREIGN TABLE f (a int) SERVER away",
        )
        with database(url) as connection:
            connection.execute("CREATE TEMPORARY TABLE mine (a int)")

            found = by_name(inspect(url, Scope.TABLE, "vacuum", "reindex"))

        left_out = {one.object: one.left_out for one in found.values() if one.left_out}
        assert "foreign table" in left_out.pop("public.f")
        assert left_out.pop("public.v") == "it is a view, which has no rows of its own"
        ((name, why),) = left_out.items()
        assert (name or "").endswith(".mine")
        assert "temporary table of another session" in why

    def test_a_materialized_view_is_maintained(self, url: str) -> None:
        change(url, "CREATE MATERIALIZED VIEW m AS SELECT 1 AS a")

        assert by_name(inspect(url, Scope.TABLE, "vacuum"))["public.m"].left_out == ""

    def test_the_systems_own_views_are_told_where_they_are_named(self, url: str) -> None:
        named = Selection(include=("pg_catalog.pg_tables", "*.tables"))

        found = inspect(url, Scope.TABLE, "vacuum", selection=named).objects
        every = what(inspect(url, Scope.TABLE, "vacuum", selection=Selection()))

        assert {one.object for one in found} == {"pg_catalog.pg_tables", "information_schema.tables"}
        assert all("view" in one.left_out for one in found)
        assert not {"pg_catalog.pg_tables", "information_schema.tables"} & set(every)

    def test_views_have_no_part_in_a_walk_by_index(self, url: str) -> None:
        change(url, "CREATE VIEW v AS SELECT 1 AS a")

        assert "public.v" not in what(inspect(url, Scope.INDEX, "reindex"))
        assert what(inspect(url, Scope.INDEX, "reindex", "vacuum"))["public.v"] == ("vacuum",)

    def test_an_exclusion_constraints_index_is_told(self, url: str) -> None:
        change(url, "CREATE TABLE e (r int4range, EXCLUDE USING gist (r WITH &&))")
        plain = WantedOperation(name="reindex", options={"concurrently": "false"})

        found = by_name(inspect(url, Scope.INDEX, "reindex"))
        control = RecordingControl()
        of_tables = by_name(inspect(url, Scope.TABLE, "vacuum", "reindex", control=control))

        assert "concurrently=false" in found["public.e_r_excl"].left_out
        assert by_name(inspect(url, Scope.INDEX, plain))["public.e_r_excl"].left_out == ""
        assert (of_tables["public.e"].operations, of_tables["public.e"].left_out) == (("vacuum",), "")
        assert any("reindex leaves out 1 object: an exclusion constraint" in text for _, text in control.lines)

    def test_a_leftover_goes_with_its_neighbours(self, url: str) -> None:
        change(
            url,
            "CREATE INDEX tb_ccnew ON t (b)",
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'tb_ccnew'::regclass",
        )

        assert "public.tb_ccnew" not in by_name(inspect(url, Scope.INDEX, "reindex"))
        run(url, "reindex", "public.t_pkey")
        assert value(url, "SELECT to_regclass('tb_ccnew')") is None


class TestRights:
    @pytest.fixture(params=["own", "newest"])
    def kept(
        self, request: pytest.FixtureRequest, postgres: PostgresServer, newest_postgres: PostgresServer
    ) -> Iterator[str]:
        """Lend a database with tables of another, and a role that owns one of them."""
        server = postgres if request.param == "own" else newest_postgres
        url = server.create_database()
        change(
            url,
            "CREATE ROLE limited LOGIN",
            "CREATE SCHEMA app",
            "CREATE SCHEMA shut",
            "GRANT USAGE ON SCHEMA app TO limited",
            "CREATE TABLE app.own (a int PRIMARY KEY)",
            "CREATE TABLE app.others (a int PRIMARY KEY)",
            "CREATE TABLE shut.t (a int PRIMARY KEY)",
            "ALTER TABLE app.own OWNER TO limited",
        )
        yield url
        server.drop_database(url)
        change(server.url(), "DROP ROLE limited")

    def test_the_right_that_is_missing_is_named(self, kept: str) -> None:
        found = by_name(inspect(kept.replace("postgres@", "limited@"), Scope.TABLE, "vacuum", "reindex"))

        assert found["app.own"].left_out == ""
        assert "may not maintain it" in found["app.others"].left_out
        assert found["shut.t"].left_out.endswith('GRANT USAGE ON SCHEMA "shut"')

    def test_it_is_worded_so_that_it_can_be_typed_as_it_is(self, kept: str) -> None:
        odd = 'Odd, "shut". Schema'
        change(kept, f"CREATE SCHEMA {quoted(odd)}", f'CREATE TABLE {quoted(odd)}."T.1 %" (a int)')
        url, selection = kept.replace("postgres@", "limited@"), Selection(include=("*T.1 %",))
        hints = []
        for _ in range(2):
            (found,) = inspect(url, Scope.TABLE, "vacuum", selection=selection).objects
            hints.append(found.left_out)
            if "GRANT" in found.left_out:
                change(kept, f"{found.left_out.partition(': ')[2].removesuffix(', or pg_maintain')} TO limited")
        (granted,) = inspect(url, Scope.TABLE, "vacuum", selection=selection).objects

        assert hints[0].startswith("the role may not use its schema")
        assert hints[1].startswith("the role may not maintain it")
        assert granted.left_out == ("" if "GRANT" in hints[1] else hints[1])

    def test_what_is_left_out_is_what_would_fail(self, kept: str) -> None:
        url = kept.replace("postgres@", "limited@")
        wanted = ("vacuum", "analyze", "reindex")
        selection = Selection(exclude=OWN.exclude)

        for one in inspect(url, Scope.TABLE, *wanted, selection=selection).objects:
            for name in one.operations:
                result = run(url, name, one.object)
                assert (result.outcome is Outcome.COMPLETED) == (not one.left_out), (one, name, result)

    def test_catalogues_are_left_to_who_may_and_counted(self, kept: str) -> None:
        control, rewriting = RecordingControl(), RecordingControl()
        url = kept.replace("postgres@", "limited@")
        full = WantedOperation(name="vacuum", options={"full": "true"})

        found = inspect(url, Scope.TABLE, "vacuum", selection=Selection(), control=control)
        inspect(url, Scope.TABLE, full, selection=Selection(), control=rewriting)

        number = value(
            kept,
            "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relnamespace::regnamespace::text = ANY (%s)",
            ["pg_catalog", "information_schema"],
        )
        assert set(what(found)) == {"app.own", "app.others", "shut.t"}
        assert ("info", f"{number} system catalogues that the role may not maintain are left to autovacuum.") in (
            control.lines
        )
        assert not any("catalogue" in text for _, text in rewriting.lines)

    def test_catalogues_that_are_not_meant_are_not_counted(self, kept: str) -> None:
        control = RecordingControl()

        inspect(kept.replace("postgres@", "limited@"), Scope.TABLE, "vacuum", control=control)

        assert not any("catalogue" in text for _, text in control.lines)

    def test_the_databases_owner_may_not_rebuild_what_others_own(self, kept: str) -> None:
        change(kept, f"ALTER DATABASE {kept.rpartition('/')[2]} OWNER TO limited")
        url = kept.replace("postgres@", "limited@")

        found = by_name(inspect(url, Scope.TABLE, "vacuum", "reindex"))
        rebuilt = by_name(inspect(url, Scope.TABLE, "reindex"))

        assert (found["app.others"].operations, found["app.others"].left_out) == (("vacuum",), "")
        assert "may not maintain it" in rebuilt["app.others"].left_out
        assert run(url, "vacuum", "app.others").outcome is Outcome.COMPLETED
        assert run(url, "reindex", "app.others").outcome is Outcome.FAILED


@pytest.fixture(scope="module")
def named(postgres: PostgresServer) -> Iterator[str]:
    """Lend a database with a table and an index of each name, in a schema of that name."""
    url = postgres.create_database()
    with database(url) as connection:
        for name in NAMES:
            schema, table = quoted(name), f"{quoted(name)}.{quoted(name)}"
            connection.execute(f"CREATE SCHEMA {schema}".encode())
            connection.execute(f"CREATE TABLE {table} (a int)".encode())
            connection.execute(f"CREATE INDEX {quoted('i' + name[:-1])} ON {table} (a)".encode())
            connection.execute(f"ALTER TABLE {table} CLUSTER ON {quoted('i' + name[:-1])}".encode())
        connection.execute("CREATE EXTENSION amcheck")
    yield url
    postgres.drop_database(url)


class TestNames:
    @pytest.mark.parametrize("scope", [Scope.TABLE, Scope.INDEX])
    def test_every_object_can_be_maintained(self, named: str, scope: Scope) -> None:
        found = inspect(named, scope, "vacuum", "analyze", "reindex", "cluster", "amcheck", preview=True)

        assert len(found.objects) == len(NAMES) * (1 if scope is Scope.TABLE else 2)
        for one in found.objects:
            assert one.left_out == ""
            assert len(one.previews) == len(one.operations)
            for name in one.operations:
                result = run(named, name, one.object)
                assert result.outcome is Outcome.COMPLETED, (one.object, name, result)

    def test_selections_are_of_names_without_quotes(self, named: str) -> None:
        selection = Selection(include=("Mixed Case.Mixed Case", "dot.*ted", 'qu"ote'), exclude=OWN.exclude)

        found = what(inspect(named, Scope.TABLE, "vacuum", selection=selection))

        assert set(found) == {"Mixed Case.Mixed Case", '"dot.ted"."dot.ted"', '"qu""ote"."qu""ote"'}
