"""What managers tell each other, over real connections to a real server."""

import asyncio
import os
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from manager_service.domain.ports import Hints
from manager_service.store.notices import Notices
from manager_service.store.postgresql_door import open_connection, parse

# Of select.select, which cannot name a file beyond it.
MOST_FILES = 1_024


@pytest.fixture
def many_files() -> Iterator[None]:
    """Have as many files open as a manager with a thousand workers."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4 * MOST_FILES, before[1]), before[1]))
    with ExitStack() as stack:
        for _ in range(MOST_FILES):
            stack.callback(os.close, os.open(Path("/dev/null"), os.O_RDONLY))
        yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@asynccontextmanager
async def two(url: str) -> AsyncIterator[tuple[Notices, asyncio.Queue[Hints]]]:
    """Return the notices of a manager, and what another one hears."""
    heard: asyncio.Queue[Hints] = asyncio.Queue()
    conninfo = parse(url)
    teller = Notices(lambda: open_connection(conninfo), lambda hints: None)
    hearer = Notices(lambda: open_connection(conninfo), heard.put_nowait)
    hearer.listen()
    with psycopg.connect(url, autocommit=True) as connection:
        while not _listening(connection):  # noqa: ASYNC110 -- nobody tells of it
            await asyncio.sleep(0.01)
    try:
        yield teller, heard
    finally:
        await asyncio.to_thread(hearer.close)
        await asyncio.to_thread(teller.close)


def _listening(connection: psycopg.Connection[Any]) -> bool:
    # What it does after it began to listen.
    return bool(
        connection.execute(
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'SET synchronous%'"
        ).fetchall()
    )


class TestNotices:
    async def test_a_hint_is_heard_by_another_manager(self, postgres_url: str) -> None:
        async with two(postgres_url) as (teller, heard), asyncio.timeout(10):
            teller.tell(Hints(ready={"orders": 2}))

            assert (await heard.get()).ready == {"orders": 2}

    async def test_a_hint_is_heard_where_many_files_are_open(self, postgres_url: str, many_files: None) -> None:
        async with two(postgres_url) as (teller, heard), asyncio.timeout(10):
            teller.tell(Hints(ready={"orders": 2}))

            assert (await heard.get()).ready == {"orders": 2}

    async def test_what_cannot_be_told_is_not_kept(self) -> None:
        def refused() -> psycopg.Connection[Any]:
            raise psycopg.OperationalError("too many connections")

        notices = Notices(refused, lambda hints: None)
        notices.tell(Hints(ready={"orders": 2}))
        async with asyncio.timeout(10):
            while notices._pending:  # noqa: ASYNC110 -- nobody tells of it
                await asyncio.sleep(0.01)
        await asyncio.to_thread(notices.close)
