"""What managers of one PostgreSQL store hear of each other."""

import asyncio
import json
import time
from collections.abc import Callable

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager_service.domain.leases import LogBatch
from manager_service.domain.model import LogEntry
from manager_service.domain.ports import Hints
from manager_service.store import notices
from manager_service.store.notices import Notices
from tests.factories import World
from tests.integration.store.managers import Managers
from tests.postgres import PostgresServer

MOST_BYTES = 8_000


@pytest.fixture
async def pair(managers: Managers) -> tuple[World, World]:
    """Lend two managers that hear each other."""
    one, other, _ = managers
    for teller, hearer in ((one, other), (other, one)):
        await teller.worker("warm", worker_name=f"warm{id(teller)}")
        deadline = time.monotonic() + 5
        # Until the other one's connection listens, it hears nothing.
        while not any("warm" in hints.ready for hints in hearer.hints):
            assert time.monotonic() < deadline
            await teller.parent_job("warm")
            await asyncio.sleep(0.1)
    await asyncio.sleep(0.3)
    one.hints.clear()
    other.hints.clear()
    return one, other


async def until(world: World, heard: Callable[[Hints], bool], within: float = 5.0) -> None:
    """Wait until a manager has heard something."""
    deadline = time.monotonic() + within
    while not any(heard(hints) for hints in world.hints):
        assert time.monotonic() < deadline, world.hints
        await asyncio.sleep(0.005)


class TestWhatIsHeard:
    async def test_a_new_parent_job_and_where_there_is_work(self, pair: tuple[World, World]) -> None:
        one, other = pair
        parent = await one.parent_job("a", "b")

        await until(other, lambda hints: parent.id in hints.parents and hints.ready == {"a": 1, "b": 1}, within=1)

    async def test_a_session_with_a_lease_to_stop(self, pair: tuple[World, World]) -> None:
        one, other = pair
        worker, lease = await one.running_child_job(await one.worker("orders"))
        await other.store.cancel_parent_job(lease.parent_job_id, "enough")

        await until(one, lambda hints: worker.session_id in hints.sessions, within=1)

    async def test_a_session_that_registered_anew_but_not_where_it_did(self, pair: tuple[World, World]) -> None:
        one, other = pair
        worker = await one.worker("a")
        one.hints.clear()

        await one.store.register(worker.registration)

        await until(other, lambda hints: worker.session_id in hints.renewed)
        assert not any(hints.renewed for hints in one.hints)

    async def test_log_entries_and_their_end(self, pair: tuple[World, World]) -> None:
        one, other = pair
        worker, lease = await one.running_child_job(await one.worker("orders"))
        batch = LogBatch(
            session_id=worker.session_id,
            child_job_id=lease.child_job_id,
            lease_id=lease.lease_id,
            attempt=lease.attempt,
            offset=0,
            entries=(LogEntry(time=1, level="info", message="here"),),
        )
        await one.store.append_logs(batch)
        await until(other, lambda hints: lease.child_job_id in hints.logs, within=1)
        other.hints.clear()

        await worker.end(lease)
        await until(other, lambda hints: lease.child_job_id in hints.logs, within=1)

    async def test_a_parent_job_to_sweep(self, pair: tuple[World, World]) -> None:
        one, other = pair
        parent = await one.parent_job("a", "b")
        await one.store.cancel_parent_job(parent.id, "enough")

        await until(other, lambda hints: parent.id in hints.ending, within=1)

    async def test_one_of_an_older_manager_that_tells_less(
        self, pair: tuple[World, World], managers: Managers
    ) -> None:
        with psycopg.connect(managers.url, autocommit=True) as older:
            older.execute(
                """SELECT pg_notify('overhaul_hints', '{"from": "old", "ready": {}, "parents": ["p"]}')"""
            )

        await until(pair[1], lambda hints: hints.parents == {"p"}, within=1)

    async def test_ones_own_is_heard_once(self, pair: tuple[World, World]) -> None:
        one, other = pair
        parent = await one.parent_job("a")
        await until(other, lambda hints: parent.id in hints.parents)
        await asyncio.sleep(0.1)

        assert [parent.id in hints.parents for hints in one.hints].count(True) == 1

    async def test_much_comes_in_several_messages(self, pair: tuple[World, World]) -> None:
        one, other = pair
        names = [f"target number {n}" for n in range(1_500)]
        await one.parent_job(*names)

        await until(other, lambda hints: names[-1] in hints.ready)
        heard: dict[str, int] = {}
        for hints in other.hints:
            heard.update(hints.ready)
        assert heard == dict.fromkeys(names, 1)
        assert len(other.hints) > 1


class TestConnections:
    async def test_a_broken_one_comes_back(self, pair: tuple[World, World], managers: Managers) -> None:
        one, other = pair
        with psycopg.connect(managers.url, autocommit=True) as connection:
            ended = connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE query LIKE 'LISTEN%' OR query LIKE 'SELECT 1' OR query LIKE '%pg_notify%'"
                "AND pid <> pg_backend_pid()"
            )
            assert ended.rowcount >= 2
        await asyncio.sleep(0.5)

        parent = await one.parent_job("a")
        await until(other, lambda hints: parent.id in hints.parents, within=3)
        answer = await other.parent_job("a")
        await until(one, lambda hints: answer.id in hints.parents, within=3)

    async def test_while_nobody_can_be_told_little_is_kept_and_the_end_is_prompt(self) -> None:
        def refused() -> psycopg.Connection[object]:
            raise psycopg.OperationalError("nobody there")

        told = Notices(refused, lambda _: None)
        for number in range(5_000):
            told.tell(Hints(parents=frozenset([str(number)])))

        assert len(told._pending) <= 1_000
        began = time.monotonic()
        told.close()
        assert time.monotonic() - began < 0.5

    def test_one_that_never_began_is_closed(self, postgres: PostgresServer) -> None:
        Notices(lambda: psycopg.connect(postgres.url(), autocommit=True), lambda _: None).close()


names = st.text(min_size=1, max_size=200)


@given(st.dictionaries(names, st.integers(1, 10**6), max_size=300), st.frozensets(names, max_size=100))
def test_every_message_fits_and_none_is_lost(ready: dict[str, int], parents: frozenset[str]) -> None:
    messages = list(notices._messages("0" * 32, Hints(ready=ready, parents=parents)))

    assert all(len(message.encode()) < MOST_BYTES for message in messages)
    parts = [json.loads(message) for message in messages]
    assert {name: number for part in parts for name, number in part["ready"].items()} == ready
    assert {one for part in parts for one in part["parents"]} == parents
