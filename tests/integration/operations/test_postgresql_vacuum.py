"""VACUUM: what is told is what the catalogues say to somebody else."""

import re

import pytest

from tests.integration.operations.doubles import RecordingControl
from tests.integration.operations.postgres_ground import (
    SNAPSHOT,
    change,
    column,
    database,
    file_of,
    holding,
    plan,
    run,
    value,
)
from worker_service.domain.outcome import FailureCategory, Outcome, Verdict
from worker_service.operations.postgresql.catalog import Table
from worker_service.operations.postgresql.names import Name
from worker_service.operations.postgresql.vacuum import in_order

_ONE = "BEGIN INSERT INTO x VALUES (1); EXCEPTION WHEN OTHERS THEN NULL; END; "
"""Uses up one transaction id."""
DEAD = "SELECT n_dead_tup FROM pg_stat_all_tables WHERE relid = %s::regclass"
VACUUMS = "SELECT vacuum_count FROM pg_stat_all_tables WHERE relid = %s::regclass"


@pytest.fixture
def url(postgres_url: str) -> str:
    """Lend a database with a table of 1,000 rows, of which half are dead."""
    change(
        postgres_url,
        "CREATE TABLE t (a int PRIMARY KEY, b text) WITH (autovacuum_enabled = false)",
        "INSERT INTO t SELECT g, g::text FROM generate_series(1, 1000) AS g",
        "DELETE FROM t WHERE a % 2 = 0",
    )
    return postgres_url


class TestEffect:
    def test_dead_rows_are_removed_and_counted(self, url: str) -> None:
        assert value(url, DEAD, "t") == 500

        result = run(url, "vacuum", "public.t")

        assert (result.outcome, result.verdict) == (Outcome.COMPLETED, Verdict.EFFECTIVE)
        assert "removed 500 dead rows" in result.reason
        assert (result.before["dead_rows"], result.after["dead_rows"]) == (500, 0)
        assert value(url, DEAD, "t") == 0
        assert value(url, VACUUMS, "t") == 1

    def test_nothing_to_remove_has_no_effect(self, url: str) -> None:
        run(url, "vacuum", "public.t")

        result = run(url, "vacuum", "public.t")

        assert (result.outcome, result.verdict) == (Outcome.COMPLETED, Verdict.NO_EFFECT)
        assert value(url, VACUUMS, "t") == 2

    def test_a_database_is_vacuumed_whole_the_catalogues_too(self, url: str) -> None:
        control = RecordingControl()

        result = run(url, "vacuum", control=control)

        never = column(
            url,
            "SELECT relid::regclass FROM pg_stat_all_tables WHERE vacuum_count = 0 AND schemaname <> 'pg_toast'",
        )
        assert never == []
        assert result.verdict is Verdict.EFFECTIVE
        assert result.after["tables_vacuumed"] == result.after["tables"]
        assert [(one.done, one.total) for one in control.progresses] == [
            (number, int(result.after["tables"])) for number in range(int(result.after["tables"]))
        ]

    def test_a_partitioned_table_stands_for_its_partitions(self, url: str) -> None:
        change(
            url,
            "CREATE TABLE p (a int) PARTITION BY RANGE (a)",
            "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (500)",
            "CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (500) TO (1000)",
        )

        result = run(url, "vacuum", "public.p")

        assert result.after["tables_vacuumed"] == 2
        assert [value(url, VACUUMS, name) for name in ("p1", "p2", "t")] == [1, 1, 0]

    def test_what_is_planned_is_what_runs(self, url: str) -> None:
        statements = plan(url, "vacuum")

        assert any(statement.endswith('"public"."t"') for statement in statements)
        assert value(url, VACUUMS, "t") == 0

    def test_full_gives_the_bytes_back_and_is_told_by_the_new_file(self, url: str) -> None:
        before = file_of(url, "t")

        result = run(url, "vacuum", "public.t", full=True)

        assert result.verdict is Verdict.EFFECTIVE
        assert "removed 500 dead rows" in result.reason
        assert "1 table rewritten" in result.reason
        assert "dead_rows" not in result.after
        assert file_of(url, "t") != before

    def test_full_leaves_the_systems_catalogues_alone(self, url: str) -> None:
        result = run(url, "vacuum", full=True)

        assert result.after["tables_vacuumed"] == 1
        assert plan(url, "vacuum", full=True) == plan(url, "vacuum", "public.t", full=True)

    def test_what_was_not_counted_yet_is_heard_of(self, url: str) -> None:
        run(url, "vacuum", "public.t")
        with database(url) as other:
            other.execute("SELECT pg_stat_force_next_flush()")
            other.execute("SELECT 1")
            other.execute("DELETE FROM t WHERE a < 100")

            result = run(url, "vacuum", "public.t")

        assert "removed 50 dead rows" in result.reason
        assert result.verdict is Verdict.EFFECTIVE

    def test_in_another_language_the_counters_have_to_do(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("worker_service.operations.postgresql.verbose._ROWS", re.compile("Tupel: entfernt"))

        result = run(url, "vacuum", "public.t")

        assert "removed 500 dead rows" in result.reason

    def test_freeze_is_seen_in_the_age(self, url: str) -> None:
        change(url, "CREATE TABLE x (a int)", f"DO 'BEGIN {_ONE * 200} END'")
        before = value(url, "SELECT age(relfrozenxid) FROM pg_class WHERE oid = 't'::regclass")

        result = run(url, "vacuum", "public.t", freeze=True)

        after = value(url, "SELECT age(relfrozenxid) FROM pg_class WHERE oid = 't'::regclass")
        assert after < before
        assert result.after["oldest_xid_age"] == after


class TestWithoutEffect:
    def test_an_older_snapshot_keeps_every_dead_row_and_is_named(self, url: str) -> None:
        with holding(url, *SNAPSHOT) as reader:
            pid = reader.info.backend_pid
            change(url, "DELETE FROM t")
            run(url, "vacuum", "public.t")
            dead = value(url, DEAD, "t")

            result = run(url, "vacuum", "public.t")

            assert value(url, DEAD, "t") == dead > 0
        assert (result.outcome, result.verdict) == (Outcome.COMPLETED, Verdict.NO_EFFECT)
        assert f"session with pid {pid} (user postgres, idle in transaction" in result.reason
        assert f"{dead} dead rows cannot be removed" in result.reason

    def test_a_rewrite_beside_an_older_snapshot_keeps_its_rows(self, url: str) -> None:
        with holding(url, *SNAPSHOT):
            change(url, "DELETE FROM t WHERE a <= 101")

            result = run(url, "vacuum", "public.t", full=True)

        assert result.verdict is Verdict.PARTIALLY_EFFECTIVE
        assert "51 dead rows cannot be removed" in result.reason

    def test_what_could_be_removed_beside_it_is_partial(self, url: str) -> None:
        with holding(url, *SNAPSHOT):
            change(url, "DELETE FROM t WHERE a <= 101")

            result = run(url, "vacuum", "public.t")

            assert value(url, DEAD, "t") == result.after["dead_rows"] > 0
        assert (result.outcome, result.verdict) == (Outcome.COMPLETED, Verdict.PARTIALLY_EFFECTIVE)

    def test_a_locked_table_that_is_passed_over_is_not_done(self, url: str) -> None:
        with holding(url, "LOCK TABLE t IN ACCESS SHARE MODE", "LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE"):
            result = run(url, "vacuum", "public.t", skip_locked=True)

        assert value(url, VACUUMS, "t") == 0
        assert result.outcome is Outcome.FAILED
        assert result.failure is not None
        assert (result.failure.category, result.failure.retryable) == (FailureCategory.LOCKED, True)

    def test_a_lock_that_is_not_given_up_fails_its_table_alone(self, url: str) -> None:
        change(url, "CREATE TABLE u (a int)")
        with holding(url, "LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE"):
            result = run(url, "vacuum", lock_timeout_ms=50)

        assert (value(url, VACUUMS, "t"), value(url, VACUUMS, "u")) == (0, 1)
        assert (result.outcome, result.verdict) == (Outcome.COMPLETED, Verdict.PARTIALLY_EFFECTIVE)
        assert "public.t: Another session held a lock" in result.reason
        assert result.after["tables_failed"] == 1

    def test_a_lock_that_is_given_up_meanwhile_is_tried_again(self, url: str) -> None:
        change(url, "CREATE TABLE u (a int)")
        with holding(url, "LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE") as other:
            control = RecordingControl(on_progress=lambda told: other.rollback() if told.done == 60 else None)

            result = run(url, "vacuum", control=control, lock_timeout_ms=50)

        assert value(url, VACUUMS, "t") == 1
        assert result.verdict is Verdict.EFFECTIVE

    def test_tables_without_rights_are_not_done(self, url: str) -> None:
        change(url, "DROP ROLE IF EXISTS guest", "CREATE ROLE guest LOGIN", "CREATE TABLE u (a int)")
        change(url, "ALTER TABLE u OWNER TO guest")

        partial = run(url.replace("postgres@", "guest@"), "vacuum")
        none = run(url.replace("postgres@", "guest@"), "vacuum", "public.t")

        assert (value(url, VACUUMS, "t"), value(url, VACUUMS, "u")) == (0, 1)
        assert (partial.outcome, partial.verdict) == (Outcome.COMPLETED, Verdict.PARTIALLY_EFFECTIVE)
        assert "public.t: The worker's role may not do this" in partial.reason
        assert none.outcome is Outcome.FAILED
        assert none.failure is not None
        assert none.failure.category is FailureCategory.PERMISSION
        change(url, "DROP OWNED BY guest", "DROP ROLE guest")

    def test_temporary_tables_of_others_are_no_objects(self, url: str) -> None:
        with holding(url, "CREATE TEMPORARY TABLE mine (a int)") as other:
            other.commit()
            schema = value(url, "SELECT relnamespace::regnamespace::text FROM pg_class WHERE relname = 'mine'")

            result = run(url, "vacuum", f"{schema}.mine")
            statements = plan(url, "vacuum")

        assert result.outcome is Outcome.SKIPPED
        assert not any("mine" in statement for statement in statements)

    def test_a_table_that_is_gone_is_skipped(self, url: str) -> None:
        result = run(url, "vacuum", "public.never")

        assert result.outcome is Outcome.SKIPPED
        assert 'no table "public"."never"' in result.reason

    def test_a_table_that_goes_meanwhile_is_passed_over(self, url: str) -> None:
        change(url, "CREATE TABLE u (a int)")
        control = RecordingControl(
            on_progress=lambda told: change(url, "DROP TABLE IF EXISTS u") if told.done == 0 else None
        )

        result = run(url, "vacuum", control=control)

        assert (result.outcome, result.verdict) == (Outcome.COMPLETED, Verdict.EFFECTIVE)
        assert ("info", "public.u: it is not there any more.") in control.lines


class TestWithoutCounters:
    def test_the_servers_word_has_to_do(self, url: str) -> None:
        change(url, "ALTER ROLE postgres IN DATABASE " + url.rpartition("/")[2] + " SET track_counts = off")

        result = run(url, "vacuum", "public.t")

        assert result.outcome is Outcome.COMPLETED
        assert result.after["tables_vacuumed"] == 1
        assert value(url, VACUUMS, "t") == 0


class TestOrder:
    def test_those_near_to_wraparound_come_first_then_the_largest(self) -> None:
        tables = [
            table("small", pages=1, age=10),
            table("large", pages=100, age=10),
            table("old", pages=2, age=300),
            table("older", pages=1, age=400),
            table("multi", pages=1, age=1, mxid_age=5_000),
        ]

        ordered = [one.name.name for one in in_order(tables, (200, 2_000))]

        assert ordered == ["multi", "older", "old", "large", "small"]


def table(name: str, *, pages: int, age: int, mxid_age: int = 0) -> Table:
    return Table(
        oid=1,
        name=Name(schema="s", name=name),
        kind="r",
        pages=pages,
        rows=0,
        all_visible=0,
        age=age,
        mxid_age=mxid_age,
        live_rows=0,
        dead_rows=0,
        modified_rows=0,
        vacuums=0,
        analyzes=0,
        file=1,
        ancestors=(),
        toast_vacuums=0,
        toast_file=None,
        permitted=True,
    )
