"""A store of each kind, with a clock that tests move."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from manager_service.app.system import SystemIds
from manager_service.domain.fleet import Timing
from manager_service.domain.ports import JobStore
from tests.doubles import CountingIds, FakeClock
from tests.factories import World
from tests.integration.store.managers import Managers
from tests.stores import PostgresStores, open_any_store

Reopen = Callable[[], JobStore]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def ids() -> CountingIds:
    return CountingIds()


@pytest.fixture
def timing() -> Timing:
    return Timing()


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/store.db"
        return
    stores: PostgresStores = request.getfixturevalue("postgres_stores")
    url = stores.new_url()
    yield url
    stores.drop(url)


@pytest.fixture
def open_again(store_url: str, clock: FakeClock, ids: CountingIds, timing: Timing) -> Reopen:
    return lambda: open_any_store(store_url, clock=clock, ids=ids, timing=timing)


@pytest.fixture
async def store(open_again: Reopen) -> AsyncIterator[JobStore]:
    opened = open_again()
    yield opened
    await opened.close()


@pytest.fixture
def world(store: JobStore, clock: FakeClock, timing: Timing) -> World:
    made = World(store, clock, timing)
    store.subscribe(made.hints.append)
    return made


@pytest.fixture
async def managers(postgres_stores: PostgresStores, clock: FakeClock, timing: Timing) -> AsyncIterator[Managers]:
    url = postgres_stores.new_url()
    stores = [open_any_store(url, clock=clock, ids=SystemIds(), timing=timing) for _ in range(3)]
    opened = Managers(url, [World(store, clock, timing) for store in stores])
    for world in opened:
        world.store.subscribe(world.hints.append)
    yield opened
    await opened.close()
    postgres_stores.drop(url)
