"""Checking indexes: damage is a failure, and so is not being able to look for it."""

import pytest

from tests.integration.operations.doubles import RecordingControl
from tests.integration.operations.postgres_ground import change, holding, plan, run
from worker_service.domain.operation import Progress
from worker_service.domain.outcome import FailureCategory, Outcome, Verdict


@pytest.fixture
def url(postgres_url: str) -> str:
    change(
        postgres_url,
        "CREATE SCHEMA tools",
        "CREATE EXTENSION amcheck SCHEMA tools",
        "CREATE TABLE t (a int PRIMARY KEY)",
        "INSERT INTO t SELECT generate_series(1, 100)",
        'CREATE INDEX "it\'s \\ here" ON t (a)',
        "CREATE INDEX h ON t USING hash (a)",
    )
    return postgres_url


def damage(url: str) -> None:
    """Make an index in which the rows are not found any more where they belong."""
    function = "CREATE OR REPLACE FUNCTION f(int) RETURNS int IMMUTABLE LANGUAGE sql AS"
    change(url, f"{function} 'SELECT $1'", "CREATE INDEX tf ON t (f(a))", f"{function} 'SELECT $1 + 1'")


class TestFindings:
    @pytest.mark.parametrize("parent", [False, True])
    def test_sound_indexes_are_told_as_such(self, url: str, parent: bool) -> None:
        result = run(url, "amcheck", heapallindexed=True, parent=parent)

        assert (result.outcome, result.verdict) == (Outcome.COMPLETED, Verdict.EFFECTIVE)
        assert "no damage found" in result.reason
        assert result.after["indexes_checked"] > 100
        assert result.after["tables_checked"] > 50

    def test_damage_is_a_failure_that_names_its_index(self, url: str) -> None:
        damage(url)

        result = run(url, "amcheck", heapallindexed=True)

        assert result.outcome is Outcome.FAILED
        assert result.failure is not None
        assert (result.failure.reason, result.failure.category) == ("DAMAGED", FailureCategory.CORRUPT)
        assert "1 index is damaged: public.tf" in result.failure.message
        assert result.after["errors_found"] == 1

    def test_one_index_is_checked_alone(self, url: str) -> None:
        damage(url)

        result = run(url, "amcheck", '"public"."it\'s \\ here"', heapallindexed=True)

        assert result.verdict is Verdict.EFFECTIVE
        assert result.after["indexes_checked"] == 1

    def test_no_percentage_is_made_up_for_a_single_one(self, url: str) -> None:
        control = RecordingControl()

        run(url, "amcheck", "public.t_pkey", control)

        assert control.progresses == [Progress(phase="amcheck: the server does not tell how far it is")]

    def test_one_that_is_locked_was_not_checked(self, url: str) -> None:
        with holding(url, "LOCK TABLE t IN ACCESS EXCLUSIVE MODE"):
            result = run(url, "amcheck", lock_timeout_ms=50)

        assert result.verdict is Verdict.PARTIALLY_EFFECTIVE
        assert "public.t_pkey: Another session held a lock" in result.reason

    def test_other_kinds_of_index_are_none_of_its_own(self, url: str) -> None:
        assert run(url, "amcheck", "public.h").outcome is Outcome.SKIPPED
        assert not any('"h"' in statement for statement in plan(url, "amcheck"))

    def test_the_plan_names_the_function_where_it_is(self, url: str) -> None:
        table, *_ = plan(url, "amcheck", "public.t")
        (statement,) = plan(url, "amcheck", "public.t_pkey", parent=True)

        assert """ "tools".verify_heapam('"public"."t"'::regclass, """ in table

        assert statement == """SELECT "tools".bt_index_parent_check('"public"."t_pkey"'::regclass, false)"""


def damage_rows(url: str) -> None:
    """Have the catalogue say that rows are older than any can be."""
    change(
        url,
        "CREATE TABLE d AS SELECT generate_series(1, 3) AS a",
        "CREATE TABLE burnt ()",
        "SELECT txid_current()",
        "UPDATE pg_class SET relfrozenxid = txid_current()::text::xid WHERE relname = 'd'",
    )


class TestTables:
    def test_damage_in_a_table_is_a_failure_that_names_the_place(self, url: str) -> None:
        damage_rows(url)

        result = run(url, "amcheck")

        assert result.failure is not None
        assert (result.failure.reason, result.failure.category) == ("DAMAGED", FailureCategory.CORRUPT)
        assert result.failure.message.startswith("1 table is damaged: public.d: block 0, row 1: ")
        assert (result.after["errors_found"], result.after["tables_failed"]) == (1, 1)

    def test_a_table_without_an_index_is_checked(self, url: str) -> None:
        damage_rows(url)

        assert run(url, "amcheck", "public.d").outcome is Outcome.FAILED
        assert run(url, "amcheck", "public.d", heap=False).outcome is Outcome.SKIPPED

    def test_of_a_table_both_are_told(self, url: str) -> None:
        result = run(url, "amcheck", "public.t")

        assert result.reason == (
            "checked 3 indexes and tables: no damage found in 2 indexes and the rows of 1 table."
        )
        assert (result.after["indexes_checked"], result.after["tables_checked"]) == (2, 1)

    def test_without_the_right_to_read_rows_it_is_told_what_was_left_out(self, url: str) -> None:
        change(
            url,
            "CREATE TABLE bare ()",
            "CREATE ROLE looker LOGIN",
            "GRANT USAGE ON SCHEMA tools TO looker",
            "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA tools TO looker",
            "REVOKE EXECUTE ON FUNCTION tools.verify_heapam FROM looker",
        )
        try:
            named = url.replace("postgres@", "looker@")
            both, indexes = run(named, "amcheck", "public.t"), run(named, "amcheck", "public.t", heap=False)
            bare = run(named, "amcheck", "public.bare")
        finally:
            change(url, "DROP OWNED BY looker", "DROP ROLE looker")

        assert both.verdict is Verdict.PARTIALLY_EFFECTIVE
        assert "GRANT EXECUTE" in both.reason
        assert indexes.verdict is Verdict.EFFECTIVE
        assert bare.failure is not None
        assert bare.failure.category is FailureCategory.PERMISSION

    def test_an_old_release_of_the_extension_is_told(self, postgres_url: str) -> None:
        change(postgres_url, "CREATE EXTENSION amcheck VERSION '1.2'", "CREATE TABLE t (a int PRIMARY KEY)")

        result = run(postgres_url, "amcheck", "public.t")

        assert result.verdict is Verdict.PARTIALLY_EFFECTIVE
        assert "ALTER EXTENSION amcheck UPDATE" in result.reason


class TestNotPossible:
    def test_without_the_extension_nothing_is_known(self, postgres_url: str) -> None:
        result = run(postgres_url, "amcheck")

        assert plan(postgres_url, "amcheck") == ()
        assert result.failure is not None
        assert result.failure.reason == "EXTENSION_MISSING"
        assert "CREATE EXTENSION amcheck" in result.failure.message

    def test_without_the_right_nothing_is_known(self, url: str) -> None:
        change(url, "CREATE ROLE looker LOGIN")
        try:
            result = run(url.replace("postgres@", "looker@"), "amcheck")
        finally:
            change(url, "DROP ROLE looker")

        assert result.failure is not None
        assert result.failure.category is FailureCategory.PERMISSION
        assert "bt_index_check" in result.failure.message
