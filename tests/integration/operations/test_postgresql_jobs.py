"""Several jobs of one operation: tables that are worked on beside each other, over connections of their own."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.operations.doubles import RecordingControl
from tests.integration.operations.postgres_ground import (
    change,
    column,
    file_of,
    holding,
    operation,
    plan,
    run,
    target,
    until,
    value,
)
from worker_service.domain.errors import InvalidOperationError
from worker_service.domain.outcome import Outcome, Result, Verdict
from worker_service.operations.postgresql import PostgresqlEngine

VACUUMED = "SELECT relname FROM pg_stat_user_tables WHERE vacuum_count > 0 ORDER BY 1"
ANALYZED = "SELECT relname FROM pg_stat_user_tables WHERE analyze_count > 0 ORDER BY 1"
BY_NUMBER = (
    "SELECT relname FROM pg_class WHERE relkind = 'i' AND relnamespace = 'public'::regnamespace ORDER BY oid"
)
AT_WORK = """
SELECT count(*) FROM pg_stat_activity
WHERE application_name LIKE 'overhaul:%' AND state = 'active' AND datname = current_database()
"""


@pytest.fixture
def url(postgres_url: str) -> str:
    """Lend a database with a large table, which comes first, and three small ones."""
    for name, rows in (("large", 20_000), ("a", 10), ("b", 10), ("c", 10)):
        change(
            postgres_url,
            f"CREATE TABLE {name} (id int PRIMARY KEY, v int)",
            f"CREATE INDEX {name}_v ON {name} (v)",
            f"INSERT INTO {name} SELECT g, g FROM generate_series(1, {rows}) AS g",
        )
    change(postgres_url, "ANALYZE", "SELECT pg_stat_reset()")
    return postgres_url


class Running:
    """An operation in a thread of its own."""

    def __init__(self, url: str, name: str, **options: Any) -> None:
        self.control = RecordingControl()
        self.worker = PostgresqlEngine().worker(target(url), self.control)
        self.results: list[Result] = []
        wanted = operation(name, None, **options)
        self._thread = threading.Thread(target=lambda: self.results.append(self.worker.execute(wanted)))
        self._thread.start()

    def end(self) -> Result:
        self._thread.join(30)
        [result] = self.results
        return result


def met_beside(url: str, name: str, done: Callable[[], list[Any]]) -> Result:
    """Run an operation while its first table is locked until the others are done, and return its result."""
    with holding(url, "LOCK TABLE large IN SHARE UPDATE EXCLUSIVE MODE"):
        running = Running(url, name, jobs=2, lock_timeout_ms=60_000)
        until(lambda: done() == ["a", "b", "c"])
    return running.end()


class TestJobs:
    @pytest.mark.parametrize(("name", "query"), [("vacuum", VACUUMED), ("analyze", ANALYZED)])
    def test_others_are_done_while_one_has_to_wait(self, url: str, name: str, query: str) -> None:
        result = met_beside(url, name, lambda: column(url, query))

        assert (result.outcome, result.verdict) == (Outcome.COMPLETED, Verdict.EFFECTIVE)
        assert column(url, query) == ["a", "b", "c", "large"]

    def test_every_index_is_rebuilt_once(self, url: str) -> None:
        names = [f"{table}_{of}" for table in ("large", "a", "b", "c") for of in ("pkey", "v")]
        before = {name: file_of(url, name) for name in names}

        result = run(url, "reindex", jobs=3)

        assert (result.outcome, result.verdict, result.reason) == (
            Outcome.COMPLETED,
            Verdict.EFFECTIVE,
            "rebuilt 8 indexes.",
        )
        assert all(file_of(url, name) != before[name] for name in names)
        assert column(url, "SELECT relname FROM pg_class WHERE relname ~ '_cc(new|old)'") == []

    def test_a_stop_ends_all_of_them(self, url: str) -> None:
        with holding(url, "LOCK TABLE large, a, b, c IN SHARE UPDATE EXCLUSIVE MODE"):
            running = Running(url, "vacuum", jobs=3, lock_timeout_ms=60_000)
            until(lambda: value(url, AT_WORK) == 3)
            running.worker.interrupt()
            result = running.end()

            assert value(url, AT_WORK) == 0
        assert result.outcome is Outcome.CANCELLED
        assert result.reason.startswith("stopped after it vacuumed")
        assert column(url, VACUUMED) == []

    def test_what_fails_is_told_as_with_one(self, url: str) -> None:
        with holding(url, "LOCK TABLE a IN SHARE UPDATE EXCLUSIVE MODE"):
            result = run(url, "reindex", jobs=2, lock_timeout_ms=200)

        assert result.verdict is Verdict.PARTIALLY_EFFECTIVE
        assert "rebuilt 6 of 8 indexes" in result.reason
        assert "public.a_pkey" in result.reason

    def test_a_server_that_ends_one_connection_ends_the_operation(self, url: str) -> None:
        with holding(url, "LOCK TABLE large, a IN SHARE UPDATE EXCLUSIVE MODE"):
            running = Running(url, "vacuum", jobs=2, lock_timeout_ms=60_000)
            until(lambda: value(url, AT_WORK) == 2)
            value(url, AT_WORK.replace("count(*)", "count(pg_terminate_backend(pid))"))
            result = running.end()

        assert result.failure is not None
        assert result.failure.retryable

    def test_one_connection_that_ends_takes_the_statements_of_the_others_with_it(self, url: str) -> None:
        """The lock in the target may have been its."""
        with holding(url, "LOCK TABLE large, a IN SHARE UPDATE EXCLUSIVE MODE"):
            running = Running(url, "vacuum", jobs=2, lock_timeout_ms=60_000)
            until(lambda: value(url, AT_WORK) == 2)
            value(url, AT_WORK.replace("count(*)", "pg_terminate_backend(min(pid))"))
            result = running.end()

            assert value(url, AT_WORK) == 0
        assert result.failure is not None

    def test_the_others_are_none_that_it_keeps_waiting(self, url: str) -> None:
        change(url, "CREATE INDEX partly ON large (v) WHERE v % 2 = 0", "CREATE INDEX odd ON a ((v + 1))")

        result = run(url, "reindex", jobs=4)

        assert (result.verdict, result.reason) == (Verdict.EFFECTIVE, "rebuilt 10 indexes.")
        assert result.after["blocking_seconds"] == 0
        assert result.waiters == ()

    def test_indexes_that_others_would_wait_for_come_last_and_alone(self, url: str) -> None:
        change(url, "CREATE INDEX partly ON large (v) WHERE v % 2 = 0", "CREATE INDEX odd ON a ((v + 1))")

        result = run(url, "reindex", jobs=4)

        assert (result.verdict, result.reason) == (Verdict.EFFECTIVE, "rebuilt 10 indexes.")
        # A rebuild beside others gives an index a number of its own, one after the other.
        assert column(url, BY_NUMBER)[-2:] == ["partly", "odd"]

    def test_what_others_are_kept_waiting_is_seen_on_each_connection(self, url: str) -> None:
        with holding(url, "LOCK TABLE large, a IN SHARE UPDATE EXCLUSIVE MODE"):
            running = Running(url, "vacuum", jobs=2, lock_timeout_ms=1_700)
            result = running.end()

        assert result.after["lock_wait_seconds"] >= 2, "each of the two has waited"

    def test_fewer_connections_do(self, url: str) -> None:
        change(
            url,
            "DROP ROLE IF EXISTS scarce",
            "CREATE ROLE scarce LOGIN CONNECTION LIMIT 1",
            *(f"ALTER TABLE {table} OWNER TO scarce" for table in ("large", "a", "b", "c")),
        )
        control = RecordingControl()
        try:
            result = run(url.replace("postgres@", "scarce@"), "analyze", None, control, jobs=3)
        finally:
            change(url, "REASSIGN OWNED BY scarce TO postgres", "DROP OWNED BY scarce", "DROP ROLE scarce")

        assert result.verdict is Verdict.EFFECTIVE
        assert any("Goes on with 1 of 3 jobs" in text for _, text in control.lines)
        assert {"a", "b", "c", "large"} <= set(column(url, ANALYZED))

    def test_a_plan_is_the_same(self, url: str) -> None:
        assert plan(url, "reindex", jobs=4) == plan(url, "reindex")

    @pytest.mark.parametrize("jobs", ["0", "65", "two"])
    def test_a_number_that_makes_no_sense_is_refused(self, url: str, jobs: str) -> None:
        with pytest.raises(InvalidOperationError, match="'jobs'"):
            run(url, "vacuum", jobs=jobs)

    def test_what_a_dead_worker_left_is_not_waited_for(self, url: str) -> None:
        with pytest.raises(InvalidOperationError, match="'jobs' does not go with former_attempt=wait"):
            run(url, "vacuum", jobs=2, former_attempt="wait")

    def test_rewrites_are_done_one_by_one(self, url: str) -> None:
        with pytest.raises(InvalidOperationError, match="'jobs' does not go with full"):
            run(url, "vacuum", full=True, jobs=2)
