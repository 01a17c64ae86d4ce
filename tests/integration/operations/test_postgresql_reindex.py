"""REINDEX: a new file, a valid index and no leftovers, as somebody else finds them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest

from tests.integration.operations.doubles import RecordingControl
from tests.integration.operations.postgres_ground import (
    SNAPSHOT,
    Running,
    change,
    column,
    database,
    file_of,
    holding,
    invalid,
    is_valid,
    plan,
    run,
    until,
    value,
)
from worker_service.domain.outcome import FailureCategory, Outcome, Verdict
from worker_service.operations.postgresql import prologue, reindex

PHASE = "SELECT phase FROM pg_stat_progress_create_index WHERE relid = 't'::regclass"
FILES = "SELECT indexrelid::regclass::text || pg_relation_filenode(indexrelid) FROM pg_index ORDER BY 1"
LEFT = " Invalid leftovers remain: public.tb_ccnew."
GATE = 4_711
COMPARE = f"BEGIN PERFORM pg_advisory_xact_lock_shared({GATE}); RETURN btint4cmp($1, $2); END"
GATED = (
    f"CREATE FUNCTION gated(int, int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS '{COMPARE}'",
    (
        "CREATE OPERATOR CLASS gated_ops FOR TYPE int USING btree AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, "
        "OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 gated(int, int)"
    ),
    "CREATE TABLE g (a int)",
    "INSERT INTO g SELECT generate_series(1, 10)",
)
"""A table whose indexes are built for as long as the gate is shut."""


@pytest.fixture
def url(postgres_url: str) -> Iterator[str]:
    """Lend a database with a table of 1,000 rows and two indexes."""
    change(
        postgres_url,
        "CREATE TABLE t (a int PRIMARY KEY, b int)",
        "CREATE INDEX tb ON t (b)",
        "INSERT INTO t SELECT g, g FROM generate_series(1, 1000) AS g",
    )
    yield postgres_url
    assert run(postgres_url, "reindex").outcome in {Outcome.COMPLETED, Outcome.SKIPPED}
    assert invalid(postgres_url) == []


class TestEffect:
    @pytest.mark.parametrize("concurrently", [True, False])
    def test_every_index_has_a_new_file(self, url: str, concurrently: bool) -> None:
        before = {name: file_of(url, name) for name in ("t_pkey", "tb", "pg_class_oid_index")}

        result = run(url, "reindex", concurrently=concurrently)

        changed = {name for name, file in before.items() if file_of(url, name) != file}
        assert changed == {"t_pkey", "tb"}
        assert (result.outcome, result.verdict) == (Outcome.COMPLETED, Verdict.EFFECTIVE)
        assert (result.after["indexes_rebuilt"], result.after["indexes_failed"]) == (2, 0)

    def test_one_index_is_rebuilt_alone(self, url: str) -> None:
        before = file_of(url, "t_pkey")

        result = run(url, "reindex", "public.tb")

        assert result.after["indexes_rebuilt"] == 1
        assert file_of(url, "t_pkey") == before

    @pytest.mark.parametrize(
        ("subject", "number"), [("public.p", 4), ("public.p_pkey", 2), ("public.p1", 2), ("public.p1_pkey", 1)]
    )
    def test_a_table_or_a_partitioned_index_stands_for_its_indexes(
        self, url: str, subject: str, number: int
    ) -> None:
        change(
            url,
            "CREATE TABLE p (a int PRIMARY KEY, b int) PARTITION BY RANGE (a)",
            "CREATE INDEX ON p (b)",
            "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (500)",
            "CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (500) TO (900)",
        )

        assert run(url, "reindex", subject).after["indexes_rebuilt"] == number
        assert len(plan(url, "reindex", subject)) == number

    def test_the_indexes_of_long_values_and_partitions_are_rebuilt(self, url: str) -> None:
        change(
            url,
            "CREATE TABLE p (a int PRIMARY KEY, b text) PARTITION BY RANGE (a)",
            "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (500)",
        )
        toast = value(url, "SELECT reltoastrelid::regclass::text || '_index' FROM pg_class WHERE relname = 'p1'")
        before = file_of(url, "p1_pkey"), file_of(url, toast)

        result = run(url, "reindex")

        assert result.verdict is Verdict.EFFECTIVE
        assert file_of(url, "p1_pkey") != before[0]
        assert file_of(url, toast) != before[1]

    def test_an_exclusion_constraint_is_left_out_with_its_reason(self, url: str) -> None:
        change(url, "CREATE TABLE x (a int, EXCLUDE USING btree (a WITH =))")
        before = file_of(url, "x_a_excl")

        beside = run(url, "reindex")
        named = run(url, "reindex", "public.x_a_excl")

        assert file_of(url, "x_a_excl") == before
        assert "1 index left out, an exclusion constraint's index" in beside.reason
        assert named.outcome is Outcome.SKIPPED
        assert run(url, "reindex", "public.x_a_excl", concurrently=False).verdict is Verdict.EFFECTIVE
        assert file_of(url, "x_a_excl") != before

    def test_the_systems_own_are_left_out_with_their_reason(self, url: str) -> None:
        result = run(url, "reindex", "pg_catalog.pg_class_oid_index")

        assert result.outcome is Outcome.SKIPPED
        assert "the system's catalogues" in result.reason

    def test_a_database_without_an_index_is_skipped(self, url: str) -> None:
        change(url, "DROP TABLE t")

        result = run(url, "reindex")

        assert result.outcome is Outcome.SKIPPED
        assert result.reason == "the database has no index but the system's own."

    def test_an_index_that_is_not_there_is_skipped(self, url: str) -> None:
        assert run(url, "reindex", "public.never").outcome is Outcome.SKIPPED


class TestFailures:
    def test_one_that_fails_does_not_keep_the_others_and_leaves_nothing(self, url: str) -> None:
        break_index(url)

        result = run(url, "reindex")

        assert (result.outcome, result.verdict) == (Outcome.COMPLETED, Verdict.PARTIALLY_EFFECTIVE)
        assert result.reason.startswith("rebuilt 2 of 3 indexes; not done: public.tf: ")
        assert invalid(url) == []
        change(url, "DROP INDEX tf")

    def test_when_all_fail_it_failed(self, url: str) -> None:
        break_index(url)

        result = run(url, "reindex", "public.tf")

        assert result.outcome is Outcome.FAILED
        assert result.failure is not None
        assert result.failure.category is FailureCategory.SCHEMA
        assert invalid(url) == []
        change(url, "DROP INDEX tf")

    def test_rows_that_violate_the_index_are_told(self, url: str) -> None:
        change(
            url,
            "CREATE UNIQUE INDEX tu ON t (b)",
            "UPDATE pg_index SET indisready = false, indisvalid = false WHERE indexrelid = 'tu'::regclass",
        )
        change(url, "INSERT INTO t VALUES (2000, 1)")

        result = run(url, "reindex", "public.tu")

        assert result.failure is not None
        assert result.failure.reason == "DUPLICATE_KEY"
        change(url, "DROP INDEX tu")

    def test_a_writer_that_does_not_end_is_waited_for_until_the_timeout(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(reindex, "Patience", lambda _: lambda _: None)
        before = column(url, FILES)
        with holding(url, "UPDATE t SET b = b WHERE a = 1"):
            result = run(url, "reindex", "public.tb", lock_timeout_ms=100)

            assert result.outcome is Outcome.FAILED
        assert result.failure is not None
        assert (result.failure.category, result.failure.retryable) == (FailureCategory.LOCKED, True)
        assert column(url, FILES)[: len(before)] == before
        assert result.failure.message.endswith(LEFT)
        assert result.reason == result.failure.message

    def test_one_that_the_server_ends_tells_what_it_has_left(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(prologue, "_BACKSTOP", timedelta(seconds=0.4))
        with holding(url, "UPDATE t SET b = b WHERE a = 1"):
            result = run(url, "reindex", "public.tb", lock_timeout_ms=0, timeout=timedelta())

            assert invalid(url) == ["tb_ccnew"]
        assert result.failure is not None
        assert (result.failure.reason, result.reason) == ("QUERY_CANCELED", result.failure.message)
        assert result.reason.endswith(f"It rebuilt 0 of 1 index.{LEFT}")

    def test_a_timeout_at_the_very_end_comes_after_the_new_index(self, url: str) -> None:
        before = file_of(url, "tb"), file_of(url, "t_pkey")
        with holding(url, "SELECT count(*) FROM t"):
            result = run(url, "reindex", lock_timeout_ms=600)

            changed = [file_of(url, name) != file for name, file in zip(("tb", "t_pkey"), before, strict=True)]
            leftovers = invalid(url)
        assert result.after["indexes_rebuilt"] == sum(changed) >= 1
        assert result.verdict is Verdict.PARTIALLY_EFFECTIVE
        assert "in spite of an error at its end" in result.reason or "not done" in result.reason
        assert all(name in result.reason for name in leftovers)

    def test_for_an_old_transaction_no_rebuild_is_begun(self, url: str) -> None:
        before = column(url, FILES)
        with holding(url, *SNAPSHOT) as reader:
            until(
                lambda: value(
                    url,
                    "SELECT now() - xact_start > interval '0.2 s' FROM pg_stat_activity WHERE pid = %s",
                    reader.info.backend_pid,
                )
            )
            pid = reader.info.backend_pid

            result = run(url, "reindex", "public.tb", lock_timeout_ms=200)

            assert column(url, FILES) == before
        assert result.failure is not None
        assert result.failure.reason == "OLD_TRANSACTION"
        assert f"session with pid {pid}" in result.failure.message

    @pytest.mark.parametrize(
        ("indexes", "statement"),
        [
            (["(a gated_ops)"], "REINDEX INDEX CONCURRENTLY g0"),
            (["(a gated_ops)", "(a)"], "REINDEX TABLE CONCURRENTLY g"),
            (["(a gated_ops)"], "CREATE INDEX CONCURRENTLY g1 ON g (a gated_ops)"),
        ],
    )
    def test_another_rebuild_beside_readers_is_none_that_it_waits_for(
        self, url: str, indexes: list[str], statement: str
    ) -> None:
        before = file_of(url, "tb")

        with building(url, indexes, statement):
            result = run(url, "reindex", "public.tb", lock_timeout_ms=200)

        assert result.verdict is Verdict.EFFECTIVE
        assert file_of(url, "tb") != before

    @pytest.mark.parametrize(
        ("indexes", "statement"),
        [
            (["((a + 0) gated_ops)"], "REINDEX INDEX CONCURRENTLY g0"),
            (["(a gated_ops) WHERE a > 0"], "REINDEX INDEX CONCURRENTLY g0"),
            # The server waits for it, too, once it has come to the second.
            (["(a gated_ops)", "(a) WHERE a > 0"], "REINDEX TABLE CONCURRENTLY g"),
            (["(a gated_ops)"], "REINDEX INDEX g0"),
        ],
    )
    def test_a_build_that_the_server_waits_for_is(self, url: str, indexes: list[str], statement: str) -> None:
        before = file_of(url, "tb")

        with building(url, indexes, statement):
            result = run(url, "reindex", "public.tb", lock_timeout_ms=200)

        assert result.failure is not None
        assert result.failure.reason == "OLD_TRANSACTION"
        assert file_of(url, "tb") == before

    def test_two_that_take_long_side_by_side_both_come_to_their_end(self, url: str) -> None:
        slowly = GATED[0].replace(f"pg_advisory_xact_lock_shared({GATE})", "pg_sleep(0.06)")
        tables = ("g", "h")
        change(url, slowly, *GATED[1:], "CREATE TABLE h AS SELECT a FROM g")
        change(
            url, *(f"CREATE INDEX {table}{number} ON {table} (a gated_ops)" for table in tables for number in "12")
        )

        both = [Running(url, "reindex", f"public.{table}", child=table, lock_timeout_ms=100) for table in tables]

        assert [one.result().reason for one in both] == ["rebuilt 2 indexes."] * 2
        change(url, "DROP TABLE g, h")

    def test_a_cancel_while_it_waits_for_one_begins_no_rebuild(self, url: str) -> None:
        before = column(url, FILES)
        with holding(url, *SNAPSHOT) as reader:
            age = "SELECT now() - xact_start > interval '2 s' FROM pg_stat_activity WHERE pid = %s"
            until(lambda: value(url, age, reader.info.backend_pid))
            running = Running(url, "reindex", lock_timeout_ms=2_000)
            running.wait_until_it_has_begun()
            result = running.interrupt()

            assert column(url, FILES) == before
        assert result.outcome is Outcome.CANCELLED

    def test_releases_that_damage_indexes_are_refused(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        number = value(url, "SELECT current_setting('server_version_num')::int")
        monkeypatch.setattr("worker_service.operations.postgresql.reindex._DAMAGING", range(number, number + 1))
        before = column(url, FILES)

        result = run(url, "reindex")

        assert result.failure is not None
        assert result.failure.reason == "DAMAGES_INDEXES"
        assert column(url, FILES) == before
        assert run(url, "reindex", concurrently=False).verdict is Verdict.EFFECTIVE
        monkeypatch.undo()


class TestCancel:
    def test_an_early_one_leaves_the_index_as_it_was_and_nothing_else(self, url: str) -> None:
        before = column(url, FILES)
        with holding(url, *SNAPSHOT):
            running = Running(url, "reindex")
            until(lambda: value(url, PHASE) == "waiting for old snapshots")

            result = running.interrupt()

            assert result.outcome is Outcome.CANCELLED
            assert "rebuilt 0 of 2" in result.reason
            assert column(url, FILES) == before

    def test_one_that_leaves_an_index_tells_of_it(self, url: str) -> None:
        with holding(url, "UPDATE t SET b = b WHERE a = 1"):
            running = Running(url, "reindex", "public.tb")
            until(lambda: value(url, PHASE) == "waiting for writers before build")

            result = running.interrupt()

            assert invalid(url) == ["tb_ccnew"]
        assert result.outcome is Outcome.CANCELLED
        assert result.reason == f"stopped after it rebuilt 0 of 1 index; what was done stays.{LEFT}"

    def test_a_late_one_comes_after_the_new_index(self, url: str) -> None:
        before = file_of(url, "tb")
        with holding(url, "SELECT count(*) FROM t"):
            running = Running(url, "reindex", "public.tb")
            until(lambda: value(url, PHASE) == "waiting for readers before marking dead")

            result = running.interrupt()

            assert (file_of(url, "tb") != before, is_valid(url, "tb")) == (True, True)
            assert invalid(url) == ["tb_ccold"]
        assert (result.outcome, result.verdict) == (Outcome.COMPLETED, Verdict.PARTIALLY_EFFECTIVE)
        assert "Invalid leftovers remain: public.tb_ccold." in result.reason
        assert run(url, "reindex", "public.tb").verdict is Verdict.EFFECTIVE
        assert invalid(url) == []


class TestLeftovers:
    @pytest.mark.parametrize("name", ["tb_ccnew", "tb_ccold3", "tb_ccnew_ccold"])
    def test_they_are_planned_and_dropped(self, url: str, name: str) -> None:
        leave(url, name)
        control = RecordingControl()

        statements = plan(url, "reindex")
        result = run(url, "reindex", control=control)

        assert statements[0] == f'DROP INDEX CONCURRENTLY IF EXISTS "public"."{name}"'
        assert not any("REINDEX" in statement and name in statement for statement in statements)
        assert invalid(url) == []
        assert result.verdict is Verdict.EFFECTIVE
        assert any("dropped" in text for _, text in control.lines)

    def test_those_of_somebody_else_are_not(self, url: str) -> None:
        change(url, "CREATE INDEX mine_ccnew ON t (b)")
        before = file_of(url, "mine_ccnew")

        run(url, "reindex")

        assert file_of(url, "mine_ccnew") != before

    def test_one_that_a_rewrite_has_made_valid_is_told_of_and_kept(self, url: str) -> None:
        leave(url, "tb_ccnew")
        change(url, "VACUUM (FULL) t")
        assert invalid(url) == []
        control = RecordingControl()

        result = run(url, "reindex", "public.t", control=control)

        warnings = [text for level, text in control.lines if level == "warning"]
        assert result.verdict is Verdict.EFFECTIVE
        assert [text.partition(":")[0] for text in warnings] == ["public.tb_ccnew"]
        assert "drop it if it is a copy" in warnings[0]
        assert file_of(url, "tb_ccnew")

    def test_those_of_long_names_are_known(self, url: str) -> None:
        name = "x" * 63
        change(url, f"CREATE INDEX {name} ON t (b)")
        leave(url, name[:57] + "_ccnew")

        run(url, "reindex")

        assert invalid(url) == []

    def test_one_that_may_be_under_construction_is_left_alone(self, url: str) -> None:
        leave(url, "tb_ccnew")
        change(url, "CREATE TABLE u (a int PRIMARY KEY)")
        with holding(url, "LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE"):
            alone = run(url, "reindex", "public.u_pkey")
            result = run(url, "reindex", lock_timeout_ms=50)

            assert invalid(url) == ["tb_ccnew"]
        assert (alone.verdict, alone.reason) == (Verdict.EFFECTIVE, "rebuilt 1 index.")
        assert result.verdict is Verdict.PARTIALLY_EFFECTIVE
        assert result.reason.endswith(LEFT)


BUILT_FOR = f"""
SELECT a.xact_start < clock_timestamp() - make_interval(secs => %s) FROM pg_locks AS l
JOIN pg_stat_activity AS a USING (pid) WHERE l.objid = {GATE} AND NOT l.granted
"""


@contextmanager
def shut_gate(url: str) -> Iterator[None]:
    with database(url) as gatekeeper:
        gatekeeper.execute("SELECT pg_advisory_lock(%s)", [GATE])
        yield


@contextmanager
def building(url: str, indexes: list[str], statement: str) -> Iterator[None]:
    """Have somebody else build indexes of another table that have these columns, for longer than is waited."""
    change(url, *GATED, *(f"CREATE INDEX g{number} ON g {columns}" for number, columns in enumerate(indexes)))
    builder = threading.Thread(target=change, args=(url, statement))
    with shut_gate(url):
        builder.start()
        until(lambda: value(url, BUILT_FOR, 0.2))
        yield
    builder.join()


def break_index(url: str) -> None:
    """Make an index that was built once and cannot be again."""
    function = "CREATE OR REPLACE FUNCTION f(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS"
    change(
        url,
        f"{function} 'BEGIN RETURN $1; END'",
        "CREATE INDEX tf ON t (f(a))",
        f"{function} 'BEGIN RAISE EXCEPTION ''broken''; END'",
    )


def leave(url: str, name: str) -> None:
    """Leave what a rebuild leaves that is broken off."""
    change(url, f"CREATE INDEX {name} ON t (b)")
    change(url, f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{name}'::regclass")
