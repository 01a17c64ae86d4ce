"""A worker or a client of procrastinate."""

import asyncio
import logging
import sys

from procrastinate import App, PsycopgConnector

from benchmarks.peers.driver import Marks, end_with_the_owner, say, serve

_TASK = "noop"
_PAD = "." * 80
_UNDER_WAY = "SELECT EXISTS (SELECT FROM procrastinate_jobs WHERE status IN ('todo', 'doing')) AS found"


class _Client:
    def __init__(self, app: App) -> None:
        self._app = app

    async def enqueue(self, numbers: range) -> None:
        task = self._app.configure_task(_TASK)
        if len(numbers) == 1:
            await task.defer_async(i=numbers.start, pad=_PAD)
        else:
            await task.batch_defer_async(*({"i": number, "pad": _PAD} for number in numbers))

    async def is_idle(self) -> bool:
        row = await self._app.connector.execute_query_one_async(_UNDER_WAY)
        return not row["found"]


async def client(url: str, marks: str) -> None:
    app = App(connector=PsycopgConnector(conninfo=url))
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        await serve(_Client(app), Marks(marks))


async def work(url: str, marks: str, concurrency: int) -> None:
    shared = Marks(marks)

    async def noop(i: int, pad: str) -> None:  # noqa: ARG001 - what a job carries beside its number
        shared.set(i)

    app = App(connector=PsycopgConnector(conninfo=url))
    app.task(noop, name=_TASK)
    async with app.open_async():
        end_with_the_owner()
        say({"ready": True})
        await app.run_worker_async(concurrency=concurrency)


if __name__ == "__main__":
    # It warns of an app that is made in the main module, where others could not import it; nobody does.
    logging.getLogger("procrastinate").setLevel(logging.ERROR)
    match sys.argv[1:]:
        case ["client", url, marks]:
            asyncio.run(client(url, marks))
        case ["work", url, marks, concurrency]:
            asyncio.run(work(url, marks, int(concurrency)))
