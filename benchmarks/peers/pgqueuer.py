"""A worker or a client of pgqueuer, on the event loop that its own program runs on."""

import json
import sys

import asyncpg
import uvloop
from pgqueuer import AsyncpgDriver, QueueManager
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from benchmarks.peers.driver import Marks, end_with_the_owner, say, serve

_ENTRYPOINT = "noop"
_PAD = "." * 80


class _Client:
    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self.queries = Queries(AsyncpgDriver(connection))

    async def enqueue(self, numbers: range) -> None:
        payloads = [json.dumps({"i": number, "pad": _PAD}).encode() for number in numbers]
        await self.queries.enqueue([_ENTRYPOINT] * len(payloads), payloads, [0] * len(payloads))

    async def is_idle(self) -> bool:
        # A job leaves the queue for the log when its end is recorded.
        return not await self._connection.fetchval("SELECT EXISTS (SELECT FROM pgqueuer)")


async def client(url: str, marks: str) -> None:
    made = _Client(await asyncpg.connect(url))
    await made.queries.install()
    await serve(made, Marks(marks))


async def work(url: str, marks: str, batch: int) -> None:
    shared = Marks(marks)

    async def noop(job: Job) -> None:
        shared.set(json.loads(job.payload)["i"])

    manager = QueueManager(Queries(AsyncpgDriver(await asyncpg.connect(url))))
    manager.entrypoint(_ENTRYPOINT)(noop)
    end_with_the_owner()
    say({"ready": True})
    await manager.run(batch_size=batch)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["client", url, marks]:
            uvloop.run(client(url, marks))
        case ["work", url, marks, batch]:
            uvloop.run(work(url, marks, int(batch)))
