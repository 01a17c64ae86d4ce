"""Clients that order, steer and watch jobs, each call at any manager, and again elsewhere until answered."""

import asyncio
import itertools
import random
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import grpc

from overhaul.v1 import job_pb2 as job
from overhaul.v1 import job_service_pb2 as jobs
from overhaul.v1 import job_service_pb2_grpc as jobs_grpc
from tests.battery.deployment import client_of

_CALL_SECONDS = 4.0
_AGAIN_SECONDS = 0.1
_ROUND_SECONDS = 1.0
_RECENT = 20
_AWAY = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)
_ENDED = frozenset(
    {
        job.PARENT_JOB_STATE_COMPLETED,
        job.PARENT_JOB_STATE_PARTIALLY_COMPLETED,
        job.PARENT_JOB_STATE_FAILED,
        job.PARENT_JOB_STATE_CANCELLED,
    }
)


def is_away(error: grpc.aio.AioRpcError) -> bool:
    """Tell whether a call may have been carried out or not, so that it is to be made again."""
    return error.code() in _AWAY


@dataclass
class Crowd:
    """The clients of a run; ``orders`` are the requests they made, by parent job."""

    stubs: Sequence[jobs_grpc.JobServiceStub]
    chance: random.Random
    orders: dict[str, jobs.CreateParentJobRequest] = field(default_factory=dict)
    calls: int = 0
    repeats: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)
    watches: dict[str, list[asyncio.Task[list[jobs.JobEvent]]]] = field(default_factory=dict)

    @property
    def recent(self) -> Sequence[str]:
        """Return the parent jobs that are still steered; in a long run the older ones are left alone."""
        return tuple(self.orders)[-_RECENT:]

    async def call(self, method: str, request: Any) -> Any:
        """Make a call until it is answered, at another manager each time."""
        start = self.chance.randrange(len(self.stubs))
        for stub in itertools.islice(itertools.cycle(self.stubs), start, None):
            self.calls += 1
            try:
                return await getattr(stub, method)(request, timeout=_CALL_SECONDS)
            except grpc.aio.AioRpcError as error:
                if not is_away(error):
                    raise
            self.repeats += 1
            await asyncio.sleep(_AGAIN_SECONDS)
        raise AssertionError

    async def order(
        self, targets: Sequence[str], *operations: tuple[str, int | None], max_parallel: int = 0
    ) -> job.ParentJob:
        """Create a parent job that outlives any number of losses, and begin to watch it at every manager."""
        request = jobs.CreateParentJobRequest(
            request_id=str(uuid.UUID(int=self.chance.getrandbits(128), version=4)),
            name=f"order {len(self.orders)}",
            targets=targets,
            operations=[
                job.OperationSpec(name=name, options={} if ms is None else {"milliseconds": str(ms)})
                for name, ms in operations
            ],
            retry_policy=job.RetryPolicy(max_losses=100, max_failures=100),
            max_parallel=max_parallel,
        )
        request.retry_policy.initial_backoff.FromMilliseconds(50)
        request.retry_policy.max_backoff.FromMilliseconds(500)
        parent: job.ParentJob = (await self.call("CreateParentJob", request)).parent_job
        self.orders[parent.id] = request
        self.watches[parent.id] = [
            asyncio.create_task(self._watch(parent.id, first)) for first in range(len(self.stubs))
        ]
        return parent

    async def steer(self, method: str, parent_job_id: str) -> None:
        """Ask for a change; that the state forbids it is an answer too."""
        request = getattr(jobs, f"{method}Request")(parent_job_id=parent_job_id)
        try:
            await self.call(method, request)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                raise

    async def end_all(self) -> None:
        """Let go on what was paused, and wait until every parent job has ended."""
        for parent_job_id in self.orders:
            await self.steer("ResumeParentJob", parent_job_id)
        for parent_job_id in self.orders:
            while (await self._parent(parent_job_id)).state not in _ENDED:  # noqa: ASYNC110 -- nobody tells
                await asyncio.sleep(0.2)

    async def seen(self) -> dict[str, list[list[jobs.JobEvent]]]:
        """Return what each watcher of each parent job saw, from its first event to its last."""
        self.over.set()
        return {parent: [await watch for watch in watches] for parent, watches in self.watches.items()}

    async def _parent(self, parent_job_id: str) -> job.ParentJob:
        parent: job.ParentJob = (
            await self.call("GetParentJob", jobs.GetParentJobRequest(parent_job_id=parent_job_id))
        ).parent_job
        return parent

    async def _watch(self, parent_job_id: str, first: int) -> list[jobs.JobEvent]:
        """Watch a parent job, from one manager on to the next, through its rounds, to the end of the run."""
        seen: list[jobs.JobEvent] = []
        for stub in itertools.islice(itertools.cycle(self.stubs), first, None):
            last = self.over.is_set()
            request = jobs.WatchParentJobRequest(
                parent_job_id=parent_job_id, after_sequence=seen[-1].sequence if seen else 0
            )
            try:
                async for update in stub.WatchParentJob(request, timeout=self.chance.uniform(2, 6)):
                    assert not update.HasField("snapshot"), "events were missing"
                    if update.HasField("event"):
                        seen.append(update.event)
            except grpc.aio.AioRpcError as error:
                if not is_away(error):
                    raise
            else:
                if last:
                    return seen
                await self._rest(parent_job_id)
            await asyncio.sleep(_AGAIN_SECONDS)
        raise AssertionError

    async def _rest(self, parent_job_id: str) -> None:
        """Wait for another round of a parent job that has ended; of an old one there is none until all is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_ROUND_SECONDS if parent_job_id in self.recent else None):
                await self.over.wait()


@asynccontextmanager
async def crowd(addresses: Sequence[str], chance: random.Random) -> AsyncIterator[Crowd]:
    """Connect clients to every manager; at the end nobody watches any more."""
    async with AsyncExitStack() as stack:
        people = Crowd([await stack.enter_async_context(client_of(address)) for address in addresses], chance)
        try:
            yield people
        finally:
            watches = [watch for of_parent in people.watches.values() for watch in of_parent]
            for watch in watches:
                watch.cancel()
            await asyncio.gather(*watches, return_exceptions=True)


class Mood:
    """Decides what clients do next; drawn from the seed as the faults are, but dependent on the answers."""

    def __init__(self, people: Crowd, beds: Sequence[str], chance: random.Random) -> None:
        self._people = people
        self._beds = beds
        self._chance = chance
        self.done: dict[str, int] = {}

    async def act(self) -> None:
        """Do one thing to some parent job."""
        act = self._chance.choice(
            ("order", "order", "order", "PauseParentJob", "ResumeParentJob", "ResumeParentJob", "CancelParentJob")
            + ("RetryParentJob",) * 3
        )
        if act == "order":
            await self.order()
        else:
            await self._people.steer(act, self._chance.choice(self._people.recent))
        self.done[act] = self.done.get(act, 0) + 1

    async def order(self) -> None:
        targets = self._chance.sample(self._beds, self._chance.randint(4, len(self._beds)))
        operations = [
            (name, self._chance.randint(30, 400)) for name in self._chance.sample(("nap", "doze", "rest"), 2)
        ]
        # A nap that fails for good, so that there is something to retry.
        failing = [("fail", 0)] if self._chance.random() < 0.5 else []
        most = self._chance.choice((0, 0, 2, 3))
        await self._people.order(targets, *operations, *failing, max_parallel=most)

    async def go_on(self, stop: asyncio.Event) -> None:
        """Act every now and then."""
        while not stop.is_set():
            await self.act()
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._chance.uniform(0.2, 1.5))
