"""The roles of `docs/postgresql-store.md`, made by the very statements that stand there."""

import asyncio
import re
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from manager_service.app.system import SystemIds
from manager_service.domain.errors import InvalidStoreError
from manager_service.domain.fleet import Timing
from manager_service.domain.model import SECOND
from manager_service.domain.states import ParentJobState
from manager_service.store import migrate_store
from manager_service.store.replicated import open_replicated
from tests.doubles import FakeClock
from tests.factories import World
from tests.postgres import SUPERUSER, PostgresServer

PAGE = Path(__file__).parents[3] / "docs" / "postgresql-store.md"
DATABASE, OWNER, MANAGER = "overhaul", "overhaul_owner", "overhaul_manager"
CONNECTIONS = 8


def statements() -> list[list[str]]:
    """Return the page's statements, block by block."""
    blocks = re.findall(r"```sql\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [[statement for part in block.split(";") if (statement := part.strip())] for block in blocks]


def run(url: str, block: list[str]) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in block:
            connection.execute(statement.encode())


def connections(url: str) -> int:
    """Return how many connections managers have."""
    query = "SELECT pid FROM pg_stat_activity WHERE usename = %s AND application_name = 'overhaul-manager'"
    with psycopg.connect(url) as connection:
        return len(connection.execute(query, [MANAGER]).fetchall())


@pytest.fixture
def as_owner(postgres: PostgresServer) -> Iterator[str]:
    """Make the database and the roles as the page says, and return the URL of the owner."""
    as_superuser, in_database, *_ = statements()
    run(postgres.url(), as_superuser)
    run(postgres.url(DATABASE), in_database)
    yield postgres.url(DATABASE).replace(f"{SUPERUSER}@", f"{OWNER}@")
    run(postgres.url(), [f"DROP DATABASE {DATABASE} WITH (FORCE)", f"DROP ROLE {OWNER}", f"DROP ROLE {MANAGER}"])


@pytest.fixture
def as_manager(as_owner: str) -> str:
    """Migrate the database and return the URL of the role that serves."""
    assert migrate_store(as_owner) == ""
    return as_owner.replace(OWNER, MANAGER)


async def test_the_manager_serves_with_no_right_but_to_rows(as_manager: str) -> None:
    store = open_replicated(as_manager, ids=SystemIds(), timing=Timing())
    world = World(store, FakeClock(), Timing())
    store.subscribe(world.hints.append)

    parent = await world.finished_parent_job()
    worker, lease = await world.running_child_job(await world.worker(worker_name="bert"))
    await store.expire_leases(limit=9)
    await store.cancel_parent_job(lease.parent_job_id, "enough")
    await store.deregister(worker.session_id)
    await store.release_due()
    await store.trim_events(keep=1, limit=10)
    await store.delete_parent_job(parent.id)
    await store.prune(age=-SECOND, limit=100)
    await store.prune_sessions(age=-SECOND)
    await store.learn([item for hint in world.hints for item in hint.completed])
    await store.prune_durations(age=-SECOND, limit=100)

    await store.close()
    assert parent.state is ParentJobState.COMPLETED
    for statement in (
        "CREATE TABLE t (a int)",
        "DROP TABLE events",
        "TRUNCATE events",
        "CREATE TEMP TABLE t (a int)",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            run(as_manager, [statement])


async def test_a_manager_takes_as_many_connections_as_the_page_says(as_manager: str, as_owner: str) -> None:
    store = open_replicated(as_manager, ids=SystemIds(), timing=Timing())
    world = World(store, FakeClock(), Timing())
    store.subscribe(world.hints.append)
    parent = await world.finished_parent_job()
    for _ in range(5):
        await asyncio.gather(*(store.parent_job(parent.id) for _ in range(30)))
        # One that comes while another is under way takes the other connection.
        one = asyncio.create_task(store.mark_alive())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.gather(one, store.mark_alive())

    # One more looked at the schema, and ends soon.
    deadline = time.monotonic() + 5
    while (found := connections(as_owner)) > CONNECTIONS and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await store.close()

    assert found == CONNECTIONS
    assert "So eight for each manager" in PAGE.read_text()


def test_the_manager_cannot_migrate(as_owner: str) -> None:
    with pytest.raises(InvalidStoreError, match="permission denied"):
        migrate_store(as_owner.replace(OWNER, MANAGER))


def test_nobody_else_gets_in(as_manager: str, postgres: PostgresServer) -> None:
    run(postgres.url(), ["CREATE ROLE stranger LOGIN"])
    try:
        with pytest.raises(InvalidStoreError, match="permission denied for database"):
            open_replicated(as_manager.replace(MANAGER, "stranger"), ids=SystemIds(), timing=Timing())
    finally:
        run(postgres.url(), ["DROP ROLE stranger"])
