"""Overhaul maintains the very database that its jobs are in, while its managers go on serving from it."""

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from manager_service.client import JobRequest, ManagerClient, Operation
from manager_service.store import migrate_store
from overhaul.v1 import job_pb2
from tests.integration.operations.postgres_ground import change, column, invalid
from tests.postgres import PostgresServer
from tests.services import Service, address_of, start_manager, start_worker
from tests.stores import PostgresStores

PATIENCE = 60.0
FILES = """
SELECT c.relname || pg_relation_filenode(c.oid) FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
WHERE c.relnamespace = 'public'::regnamespace ORDER BY 1
"""
UNTOUCHED = "SELECT relname FROM pg_stat_user_tables WHERE vacuum_count = 0 OR analyze_count = 0"


PAGE = Path(__file__).parents[2] / "docs" / "postgresql-store.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """A job store, as a superuser, the manager and the worker that maintains it come to it."""

    url: str
    manager: str
    worker: str


@pytest.fixture(params=["by a superuser", "as the page says"])
def store(request: pytest.FixtureRequest, postgres_stores: PostgresStores) -> Iterator[Store]:
    if request.param == "by a superuser":
        url = postgres_stores.new_url()
        yield Store(url=url, manager=url, worker=url)
        postgres_stores.drop(url)
        return
    with PostgresServer(packaged=True) as server:
        roles, rows, maintenance = statements()
        url = server.url("overhaul")
        change(server.url(), *roles)
        change(url, *rows)
        assert migrate_store(as_role(url, "overhaul_owner")) == ""
        change(url, *maintenance)
        yield Store(url=url, manager=as_role(url, "overhaul_manager"), worker=as_role(url, "overhaul_maintenance"))


def statements() -> list[list[str]]:
    """Return the page's statements, block by block."""
    blocks = re.findall(r"```sql\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [[statement for part in block.split(";") if (statement := part.strip())] for block in blocks]


def as_role(url: str, role: str) -> str:
    return url.replace("postgres@", f"{role}@")


@pytest.fixture
def manager(store: Store) -> Iterator[Service]:
    with start_manager(store.manager) as started:
        yield started


@pytest.fixture
def worker(manager: Service, store: Store, tmp_path: Path) -> Iterator[Service]:
    """Run a worker that serves the store itself, and a bed for jobs meanwhile."""
    targets = f"overhaul-store={store.worker}", f"bed=nap://{tmp_path}/audit"
    with start_worker(address_of(manager), *targets, slots=2) as started:
        yield started


async def test_the_job_store_is_vacuumed_analysed_and_rebuilt_while_it_serves(
    store: Store, manager: Service, worker: Service
) -> None:
    before = column(store.url, FILES)
    async with ManagerClient(address_of(manager)) as client, asyncio.timeout(PATIENCE):
        await history(client)
        parent = await client.create_parent_job(JobRequest(targets=["overhaul-store"]))
        served = 0
        while (await client.get_parent_job(parent.id)).state == job_pb2.PARENT_JOB_STATE_RUNNING:
            await ended(client, (await client.create_parent_job(nap())).id)
            served += 1
        children = [child async for child in client.list_child_jobs(parent.id)]

    assert [child.operation for child in children] == ["vacuum", "analyze", "reindex"]
    assert {child.state for child in children} == {job_pb2.CHILD_JOB_STATE_COMPLETED}
    assert {child.verdict for child in children} == {job_pb2.VERDICT_EFFECTIVE}
    assert {child.attempts for child in children} == {1}
    assert served > 0
    assert column(store.url, UNTOUCHED) == []
    assert not set(column(store.url, FILES)) & set(before)
    assert invalid(store.url) == []


def nap() -> JobRequest:
    return JobRequest(targets=["bed"], operations=[Operation(name="noop")])


async def history(client: ManagerClient) -> None:
    """Leave rows behind that were changed often."""
    for _ in range(20):
        await ended(client, (await client.create_parent_job(nap())).id)


async def ended(client: ManagerClient, parent_job_id: str) -> None:
    async for _ in client.watch_parent_job(parent_job_id):
        pass
    parent = await client.get_parent_job(parent_job_id)
    assert parent.state == job_pb2.PARENT_JOB_STATE_COMPLETED
