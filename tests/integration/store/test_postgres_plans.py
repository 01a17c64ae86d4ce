"""The plans of the hot path, pinned on a store with a million finished children and 100,000 that wait."""

from collections.abc import Iterator
from operator import itemgetter
from typing import Any

import psycopg
import pytest

from manager_service.store import (
    acquire,
    candidates,
    choosing,
    durations,
    endings,
    expiry,
    heartbeat,
    lanes,
    locks,
    offers,
    open_parents,
    parents,
    postgresql,
    postgresql_exclusion,
    progress,
    report,
    sessions,
    unit_of_work,
)
from manager_service.store.postgresql import PostgresConnection
from manager_service.store.postgresql_dialect import RowsText, postgresql_dialect
from manager_service.store.postgresql_door import SETTINGS, Door, parse
from manager_service.store.statements import Statement
from tests.stores import PostgresStores

_FINISHED = 1_000_000
_WAITING = 100_000

_FILL = (
    """INSERT INTO parent_jobs (id, request_hash, spec, max_parallel, create_time, paused, cancel_requested,
            cancel_reason, round, state, end_time)
        SELECT 'p' || n, '', '', 0, 0, false, false, '', 1, CASE WHEN n > 1000 THEN 'running' ELSE 'completed' END,
            CASE WHEN n > 1000 THEN NULL ELSE 1 END
        FROM generate_series(1, 1100) AS n""",
    """INSERT INTO parent_counts SELECT id, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1 FROM parent_jobs""",
    f"""INSERT INTO child_jobs (id, parent_id, position, lane, target, operation, options, size, create_time,
            attempts, failures, losses, version, state, reason, before, after)
        SELECT 'c' || n, 'p' || 1 + n / 1000, n % 1000, n % 1000, 't' || n % 10000, 'vacuum', '', 0, 0,
            1, 0, 0, 3, CASE WHEN n < {_FINISHED} THEN 'completed' ELSE 'pending' END, '', '', ''
        FROM generate_series(0, {_FINISHED + _WAITING - 1}) AS n""",
    f"""INSERT INTO attempts (child_id, attempt, lease_id, worker_name, reason, create_time, end_time)
        SELECT 'c' || n, 1, 'l' || n, 'w', '', 0, 1 FROM generate_series(0, {_FINISHED - 1}) AS n""",
    """INSERT INTO queue SELECT id, parent_id, target, operation, 0, 1, 0, 0
        FROM child_jobs WHERE state = 'pending'""",
    """INSERT INTO targets SELECT 't' || n, 'sqlite', '', '', '', 1, '[]', false
        FROM generate_series(0, 9999) AS n""",
    """INSERT INTO session_targets SELECT 's' || n % 10, 't' || n, '[]' FROM generate_series(0, 9999) AS n""",
    """INSERT INTO sessions SELECT 's' || n, 'w' || n, 'i' || n, '', '', 0, '', 10, 0, 0, 0, 0, 'ready', 'none'
        FROM generate_series(0, 999) AS n""",
    """INSERT INTO leases SELECT 'x' || n, 'l' || n, 'p1', 't' || n, 'vacuum', 's' || n % 1000, 'w', 1, 1, 0, 0, 0,
        'running', 1, 0, 0, 0, 0, false, NULL, '' FROM generate_series(0, 9999) AS n""",
    """INSERT INTO durations SELECT 't' || n / 10, 'vacuum', n % 10, 0, '[]', 1, 0
        FROM generate_series(0, 99999) AS n""",
)
# What the plan of a statement has to go along. A statement's name tells where it comes from.
PINNED: dict[str, tuple[Statement, tuple[str, ...]]] = {
    "claim": (candidates.FIRST_HEADS, ("ix_queue_ready", "pk_child_jobs", "ix_leases_target")),
    "claim of the best": (candidates.SERVED_HEADS, ("ix_queue_ready_target",)),
    "claim of an operation": (candidates.OPERATION_HEADS, ("ix_queue_ready_operation",)),
    "heads that are held": (candidates.HEADS_NOW, ("pk_queue", "pk_child_jobs")),
    "claim beside closed parent jobs": (open_parents.PARENT_HEADS, ("ix_queue_parent_id",)),
    "what follows on these": (open_parents.NEXT_HEAD, ("ix_queue_parent_id",)),
    "what is offered": (offers.OFFERS, ("session_targets_",)),
    "heads and targets": (postgresql_exclusion.HOLD_HEADS, ("pk_queue", "ix_targets_room")),
    "session": (sessions._SESSION, ("pk_sessions", "ix_leases_session_id")),
    "parent job's limit": (choosing._LIVE_OF_PARENT, ("ix_leases_parent_id",)),
    "repeated poll": (acquire._GRANTED_BEFORE, ("ix_leases_session_id",)),
    "claim's locks": (locks.LIVE_LOCKS, ("pk_live_locks",)),
    "expiry": (expiry.EXPIRED, ("ix_leases_expire_time",)),
    "expiry of the unaccepted": (expiry.UNACCEPTED, ("ix_leases_accept_time",)),
    "delays": (expiry.DUE, ("ix_queue_delayed",)),
    "heartbeat": (heartbeat.LEASES_OF_SESSION, ("ix_leases_session_id",)),
    "renewal": (heartbeat.RENEW, ("uq_leases_lease_id",)),
    "report": (unit_of_work.LEASES_OF_CHILDREN, ("pk_leases",)),
    "renewal with progress": (heartbeat.RENEW_WITH_PROGRESS, ("leases",)),
    "progress": (progress.PROGRESS, ("ix_leases_parent_id",)),
    "report that came before": (report._ATTEMPTS, ("pk_attempts",)),
    "leases that are held": (postgresql_exclusion.HOLD_LEASES, ("pk_leases",)),
    "locks' end": (endings._UNLOCK, ("ix_live_locks_child_id",)),
    "end": (endings.END_LEASE, ("uq_leases_lease_id",)),
    "child's end": (endings._UPDATE_CHILD, ("pk_child_jobs",)),
    "successors": (lanes.SUCCESSORS, ("ix_child_jobs_open", "pk_child_jobs")),
    "parent jobs of leases": (parents.PARENTS_OF_LEASES, ("pk_leases", "pk_parent_jobs", "pk_parent_counts")),
    "parent jobs": (parents.SELECT_PARENTS, ("pk_parent_jobs", "pk_parent_counts")),
    "counts": (parents.UPDATE_COUNTS, ("pk_parent_counts",)),
    "counts that are held": (postgresql_exclusion.HOLD_COUNTS, ("pk_parent_counts",)),
    "who waits for a freed target": (unit_of_work.TARGETS_READY, ("ix_queue_ready_operation",)),
    "children that completed": (durations.DONE, ("pk_child_jobs", "targets")),
    "durations that are held": (durations.KNOWN, ("pk_child_jobs", "pk_durations")),
    "durations that are added to": (durations.SET, ("pk_durations",)),
    "what one is expected to take": (durations.ONE, ("pk_durations",)),
    "what those of a target are expected to take": (durations.OF_OBJECTS, ("pk_durations",)),
    "what databases are expected to take": (durations.OF_DATABASES, ("pk_durations",)),
    "old durations": (durations.OLD, ("ix_durations_update_time",)),
}
FOR_MANY = ("renewal with progress", "end", "child's end", "counts", "durations that are added to")
DIALECT = postgresql_dialect()


@pytest.fixture(scope="module")
def full(postgres_stores: PostgresStores) -> Iterator[psycopg.Connection[Any]]:
    """Lend a connection, set up as the store's are, to a full store without any statistics."""
    url = postgres_stores.new_url()
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
        for name, value in SETTINGS.items():
            connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        connection.execute("SET statement_timeout = 0")
        for statement in _FILL:
            connection.execute(statement.encode())
        yield connection
    postgres_stores.drop(url)


def plan(connection: psycopg.Connection[Any], sql: str, parameters: int) -> str:
    """Return the plan of a statement for any values at all."""
    connection.execute(f"PREPARE pinned AS {sql}".encode())
    given = f"({', '.join(['NULL'] * parameters)})" if parameters else ""
    try:
        return "\n".join(row[0] for row in connection.execute(f"EXPLAIN EXECUTE pinned{given}".encode()))
    finally:
        connection.execute("DEALLOCATE pinned")


@pytest.mark.parametrize("length", [1, 2], ids=["one", "many"])
@pytest.mark.parametrize("name", PINNED)
def test_a_statement_goes_along_its_indexes(full: psycopg.Connection[Any], name: str, length: int) -> None:
    statement, indexes = PINNED[name]
    text = statement.text(DIALECT, {key: ["x"] * length for key in statement.lists})

    told = plan(full, text.sql, len(text.names))

    assert "Seq Scan" not in told, told
    assert "Hash" not in told, told
    assert "Merge" not in told, told
    for index in indexes:
        assert index in told, told


@pytest.mark.parametrize("name", FOR_MANY)
def test_a_statement_for_many_rows_goes_along_its_indexes(full: psycopg.Connection[Any], name: str) -> None:
    statement, indexes = PINNED[name]

    told = plan(full, RowsText(statement.core, DIALECT).sql, 1)

    assert "Seq Scan" not in told, told
    for index in indexes:
        assert index in told, told


def test_a_claim_is_not_sorted(full: psycopg.Connection[Any]) -> None:
    text = candidates.FIRST_HEADS.text(DIALECT, {})

    assert "Sort" not in plan(full, text.sql, len(text.names))


@pytest.mark.parametrize(("kept", "index"), [(0.0, "ix_queue_ready_target"), (1e9, "ix_queue_ready")])
def test_a_plan_that_was_made_for_an_empty_store_is_not_kept(
    postgres_stores: PostgresStores, monkeypatch: pytest.MonkeyPatch, kept: float, index: str
) -> None:
    """The second case shows what would be kept: a walk along all ready heads for each target."""
    url = postgres_stores.new_url()
    connection = PostgresConnection(Door(parse(url)), DIALECT)
    given = {"session_id": "s", "closed": ["p"], "now": 0}
    text = candidates.SERVED_HEADS.text(DIALECT, given)
    connection.begin()
    assert connection.rows(candidates.SERVED_HEADS, **given) == []
    connection.commit()
    with psycopg.connect(url, autocommit=True) as filling:
        filling.execute(
            "INSERT INTO queue SELECT 'c' || n, 'p', 't' || n % 1000, 'vacuum', 0, n, 0, 0"
            " FROM generate_series(1, 20000) AS n"
        )

    monkeypatch.setattr(postgresql, "_PLANS_KEPT", kept)
    connection.begin()
    assert connection._pipeline is not None
    name = connection._pipeline._prepared[text.sql].decode()
    nulls = ", ".join(["NULL"] * len(text.names))
    told = "\n".join(connection._pipeline.ask(f"EXPLAIN EXECUTE {name}({nulls})").rows(itemgetter(0)))
    connection.close()
    postgres_stores.drop(url)

    assert f"using {index} on queue best" in told, told
