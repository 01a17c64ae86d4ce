"""A job store behind a connection pooler, which hands each transaction to another connection."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import psycopg
import pytest

from manager_service.app.system import SystemClock, SystemIds
from manager_service.domain.fleet import Timing
from manager_service.domain.leases import Lease
from manager_service.domain.model import SECOND
from manager_service.domain.states import Outcome, ParentJobState
from manager_service.leasing import LeaseDesk
from manager_service.progress import ProgressHub
from manager_service.store.postgresql import PostgresConnection
from manager_service.store.replicated import open_replicated
from tests.doubles import FakeClock
from tests.factories import World
from tests.integration.store.integrity import check_integrity
from tests.stores import PostgresStores

SETTINGS = "SELECT current_setting(name) FROM json_array_elements_text(CAST($1 AS JSON)) AS name"


@pytest.fixture
def url(postgres_stores: PostgresStores) -> Iterator[str]:
    url = postgres_stores.new_url()
    yield url
    postgres_stores.drop(url)


@pytest.fixture
async def worlds(url: str) -> AsyncIterator[list[World]]:
    stores: list[Any] = [open_replicated(url, ids=SystemIds(), timing=Timing(), pooled=True) for _ in range(2)]
    made = [World(store, FakeClock(), Timing()) for store in stores]
    for world in made:
        world.store.subscribe(world.hints.append)
    yield made
    for store in stores:
        await store.close()


@contextmanager
def another_connection_each_time() -> Iterator[None]:
    """Let nothing that belongs to a connection outlive its transaction."""
    commit = PostgresConnection.commit

    def commit_and_leave(connection: PostgresConnection) -> None:
        commit(connection)
        connection.close()

    with patch.object(PostgresConnection, "commit", commit_and_leave):
        yield


async def test_a_job_comes_to_its_end_over_ever_new_connections(worlds: list[World], url: str) -> None:
    one, other = worlds
    with another_connection_each_time():
        workers = [await w.worker("a", "b", worker_name=name) for w, name in ((one, "anna"), (other, "bert"))]
        parent = await one.parent_job("a", "b", operations=("vacuum", "analyze"))
        cancelled = await other.parent_job("c")
        for _ in range(20):
            claims = await asyncio.gather(*(worker.acquire(1) for worker in workers))
            for worker, leases in zip(workers, claims, strict=True):
                await worker.beat(*leases)
                for lease in leases:
                    await worker.end(lease)
        await other.store.cancel_parent_job(cancelled.id, "enough")
        await one.check(parent.id)

        assert await other.state(parent.id) is ParentJobState.COMPLETED
        assert await one.state(cancelled.id) is ParentJobState.CANCELLED
    check_integrity(url)


async def test_nothing_is_left_on_a_connection(worlds: list[World]) -> None:
    one, _ = worlds
    worker, lease = await one.running_child_job()
    await worker.end(lease, Outcome.RELEASED)
    await one.check(lease.parent_job_id)
    store: Any = one.store
    backend = store._backend
    used = [*backend.leasing, *backend.steering]
    opened = [*(one.connection for one in used), *backend._readers._opened]
    connections = [connection for connection in opened if connection._pipeline is not None]
    assert len(connections) > 2

    for connection in connections:
        connection.rollback()
        ask = connection._pipeline.ask
        assert ask("SELECT name FROM pg_prepared_statements").rows(tuple) == []
        locks = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
        assert ask(locks).rows(tuple) == []
        connection.begin()
        assert connection.ask_names(SETTINGS, ["lock_timeout", "enable_seqscan"])() == ["5s", "off"]
        connection.rollback()
        assert ask("SELECT current_setting('lock_timeout')").rows(tuple) == [("0",)]
        assert ask("SELECT current_setting('enable_seqscan')").rows(tuple) == [("on",)]


async def test_no_connection_stays_to_listen(worlds: list[World], url: str) -> None:
    await worlds[0].finished_parent_job()

    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT 1 FROM pg_stat_activity WHERE query ILIKE 'listen%'").fetchall()
    assert found == []


async def test_a_poll_that_waits_at_another_manager_finds_a_child_by_looking(worlds: list[World]) -> None:
    one, other = worlds
    clock = SystemClock()
    desk = LeaseDesk(other.store, ProgressHub(clock), clock=clock, ids=SystemIds(), timing=Timing())
    other.store.subscribe(desk.hear)
    worker = await other.worker()

    async def poll() -> tuple[Lease, ...]:
        return await desk.polls.acquire(worker.session_id, worker.poll(), wait=20 * SECOND, remaining=30 * SECOND)

    waiting = asyncio.create_task(poll())
    await asyncio.sleep(0.2)
    began = time.monotonic()
    child = await one.child_job()
    [lease] = await waiting

    assert lease.child_job_id == child.id
    assert time.monotonic() - began < 5
