"""CLUSTER: rows in the order of an index, in a new file."""

import pytest

from tests.integration.operations.postgres_ground import change, column, file_of, holding, plan, run
from worker_service.domain.outcome import FailureCategory, Outcome, Verdict

ORDER = "SELECT a FROM t ORDER BY ctid"


@pytest.fixture
def url(postgres_url: str) -> str:
    change(
        postgres_url,
        "CREATE TABLE t (a int PRIMARY KEY)",
        "INSERT INTO t SELECT generate_series(100, 1, -1)",
        "ALTER TABLE t CLUSTER ON t_pkey",
        "CREATE TABLE u (a int PRIMARY KEY)",
    )
    return postgres_url


def test_marked_tables_are_rewritten_in_order(url: str) -> None:
    before = file_of(url, "t"), file_of(url, "u")

    result = run(url, "cluster")

    assert (result.outcome, result.verdict) == (Outcome.COMPLETED, Verdict.EFFECTIVE)
    assert result.after["tables_clustered"] == 1
    assert (file_of(url, "t") != before[0], file_of(url, "u") == before[1]) == (True, True)
    assert column(url, ORDER) == list(range(1, 101))


def test_the_plan_changes_nothing(url: str) -> None:
    assert plan(url, "cluster") == ('CLUSTER "public"."t"',)
    assert column(url, ORDER)[0] == 100


@pytest.mark.parametrize(("subject", "told"), [("public.u", "no table is marked"), ("public.v", "has no table")])
def test_without_a_mark_there_is_nothing_to_do(url: str, subject: str, told: str) -> None:
    result = run(url, "cluster", subject)

    assert result.outcome is Outcome.SKIPPED
    assert told in result.reason


def test_a_reader_that_does_not_end_is_told(url: str) -> None:
    before = file_of(url, "t")
    with holding(url, "SELECT 1 FROM t"):
        result = run(url, "cluster", lock_timeout_ms=50)

    assert file_of(url, "t") == before
    assert result.failure is not None
    assert (result.failure.category, result.failure.retryable) == (FailureCategory.LOCKED, True)
