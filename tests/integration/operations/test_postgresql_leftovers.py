"""What a concurrent rebuild has left that was broken off, when its table is rewritten."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.operations.doubles import RecordingControl
from tests.integration.operations.postgres_ground import change, column, file_of, holding, invalid, plan, run
from worker_service.domain.outcome import FailureCategory, Outcome, Result, Verdict

REWRITES = [("vacuum", {"full": True}), ("cluster", {})]
INDEXES = "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = 't'::regclass ORDER BY 1"


@pytest.fixture
def url(postgres_url: str) -> str:
    """Lend a database with a table that has an index and the leftover of another rebuild of it."""
    change(
        postgres_url,
        "CREATE TABLE t (a int PRIMARY KEY, b text)",
        "INSERT INTO t SELECT i, 'row ' || i FROM generate_series(1, 1000) AS i",
        "CREATE INDEX tb ON t (b)",
        "ALTER TABLE t CLUSTER ON tb",
        "CREATE INDEX tb_ccnew ON t (b)",
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'tb_ccnew'::regclass",
    )
    return postgres_url


@pytest.mark.parametrize(("operation", "options"), REWRITES)
class TestLeftovers:
    @pytest.mark.parametrize("subject", ["public.t", None])
    def test_a_rewrite_drops_it_instead_of_making_it_valid(
        self, url: str, operation: str, options: dict[str, Any], subject: str | None
    ) -> None:
        before = file_of(url, "t")
        control = RecordingControl()

        statements = plan(url, operation, subject, **options)
        result = run(url, operation, subject, control, **options)

        assert statements[0] == 'DROP INDEX CONCURRENTLY IF EXISTS "public"."tb_ccnew"'
        assert result.verdict is Verdict.EFFECTIVE
        assert column(url, INDEXES) == ["t_pkey", "tb"]
        assert file_of(url, "t") != before
        assert any("dropped" in text for _, text in control.lines)

    def test_one_that_may_be_under_construction_is_waited_for_by_another_attempt(
        self, url: str, operation: str, options: dict[str, Any]
    ) -> None:
        before = file_of(url, "t")
        with holding(url, "LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE"):
            result = run(url, operation, "public.t", lock_timeout_ms=50, **options)

        assert_left_alone(result, FailureCategory.LOCKED)
        assert result.failure is not None
        assert result.failure.retryable
        assert (file_of(url, "t"), column(url, INDEXES)) == (before, ["t_pkey", "tb", "tb_ccnew"])


class TestRights:
    @pytest.fixture
    def owner(self, url: str) -> Iterator[str]:
        """Lend the URL of a role that owns the database and not the table, which it may vacuum all the same."""
        change(url, "CREATE ROLE database_owner LOGIN")
        change(url, f"ALTER DATABASE {url.rpartition('/')[2]} OWNER TO database_owner")
        yield url.replace("postgres@", "database_owner@")
        change(url, "REASSIGN OWNED BY database_owner TO postgres", "DROP OWNED BY database_owner")
        change(url, "DROP ROLE database_owner")

    def test_a_table_whose_leftover_only_its_owner_may_drop_is_left_as_it_is(self, url: str, owner: str) -> None:
        # What lies in the schema public its database's owner may drop.
        change(
            url, "CREATE SCHEMA app", "GRANT USAGE ON SCHEMA app TO database_owner", "ALTER TABLE t SET SCHEMA app"
        )
        before = file_of(url, "app.t")

        result = run(owner, "vacuum", "app.t", full=True)

        assert_left_alone(result, FailureCategory.PERMISSION)
        assert "drop it as its owner (app.tb_ccnew)" in result.reason
        assert (file_of(url, "app.t"), invalid(url)) == (before, ["app.tb_ccnew"])


def assert_left_alone(result: Result, category: FailureCategory) -> None:
    assert result.outcome is Outcome.FAILED
    assert result.failure is not None
    assert (result.failure.reason, result.failure.category) == ("LEFTOVER_INDEX", category)
    assert ".tb_ccnew" in result.reason


def test_a_vacuum_that_rewrites_nothing_leaves_it(url: str) -> None:
    statements = plan(url, "vacuum", "public.t")

    assert run(url, "vacuum", "public.t").outcome is Outcome.COMPLETED
    assert statements == ('VACUUM (VERBOSE) "public"."t"',)
    assert column(url, INDEXES) == ["t_pkey", "tb", "tb_ccnew"]
