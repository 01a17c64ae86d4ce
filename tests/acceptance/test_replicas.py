"""A worker and a client of three managers that share a PostgreSQL store: nothing is lost as those come and go."""

import asyncio
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from manager_service.client import JobRequest, ManagerClient, Operation
from overhaul.v1 import job_pb2
from tests.services import Service, address_of, start_manager, start_worker
from tests.stores import PostgresStores

# Seconds after which whoever lost a manager has tried it again: the longest backoff of both, and its jitter.
RECONNECTED = 4.0


class Deployment:
    """Three managers on one store, and a worker that knows all of them."""

    def __init__(self, store: str, folder: Path, stack: ExitStack) -> None:
        self._store = store
        self._stack = stack
        self.managers = [self._manager() for _ in range(3)]
        self.addresses = ",".join(map(address_of, self.managers))
        self.worker = stack.enter_context(start_worker(self.addresses, f"bed=nap://{folder}/audit"))

    def end(self, number: int, how: signal.Signals) -> None:
        self.managers[number].process.send_signal(how)
        self.managers[number].wait()

    def restart(self, number: int) -> None:
        self.managers[number] = self._manager(listen=address_of(self.managers[number]))

    def _manager(self, listen: str = "127.0.0.1:0") -> Service:
        return self._stack.enter_context(start_manager(self._store, listen=listen))


@pytest.fixture
def deployment(postgres_stores: PostgresStores, tmp_path: Path) -> Iterator[Deployment]:
    store = postgres_stores.new_url()
    with ExitStack() as stack:
        stack.callback(postgres_stores.drop, store)
        yield Deployment(store, tmp_path, stack)


async def nap_until(client: ManagerClient, enough: asyncio.Event) -> int:
    """Have naps taken one after the other, each a parent job that is followed to its end; return how many."""
    taken = 0
    while not enough.is_set():
        nap = Operation(name="nap", options={"milliseconds": "50"})
        parent = await client.create_parent_job(JobRequest(targets=["bed"], operations=[nap]))
        sequence = 0
        async for update in client.watch_parent_job(parent.id):
            if update.HasField("snapshot"):
                sequence = update.snapshot.parent_job.sequence
            elif update.HasField("event"):
                assert update.event.sequence == sequence + 1
                sequence += 1
        ended = await client.get_parent_job(parent.id)
        assert (ended.state, ended.sequence) == (job_pb2.PARENT_JOB_STATE_COMPLETED, sequence)
        taken += 1
    return taken


class TestManagersThatComeAndGo:
    async def test_every_job_completes_in_one_attempt_and_every_event_comes_once(
        self, deployment: Deployment, tmp_path: Path
    ) -> None:
        enough = asyncio.Event()
        async with ManagerClient(deployment.addresses) as client:
            napping = asyncio.create_task(nap_until(client, enough))
            for number, how in ((0, signal.SIGTERM), (1, signal.SIGKILL)):
                await asyncio.sleep(0.5)
                await asyncio.to_thread(deployment.end, number, how)
            await asyncio.sleep(0.5)
            await asyncio.to_thread(deployment.restart, 0)
            await asyncio.sleep(RECONNECTED)
            await asyncio.to_thread(deployment.end, 2, signal.SIGKILL)
            await asyncio.sleep(0.5)
            enough.set()
            taken = await napping

        marks = Counter(line.split()[0] for line in (tmp_path / "audit").read_text().splitlines())
        assert marks == {"start": taken, "end": taken}
        assert taken > 10
