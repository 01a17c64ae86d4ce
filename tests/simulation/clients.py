"""Clients: they create parent jobs and meddle with them, over the same network as everybody."""

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from overhaul.v1 import fleet_service_pb2, job_pb2, job_service_pb2
from tests.simulation.network import Network
from tests.simulation.operations import NAMES
from tests.simulation.virtual_loop import Process

_MOST_PARENTS = 4
_TRIES = 6
_PATIENCE = 4.0
_TRANSIENT = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


class Clients:
    """One process that acts for all clients.

    Args:
        network: carries its calls.
        chance: decides what it asks for.
        targets: the names it may ask for.
    """

    def __init__(self, network: Network, chance: random.Random, targets: Sequence[str]) -> None:
        self._network = network
        self._chance = chance
        self._targets = targets
        self._requests = 0
        self.process = Process("clients")
        self.parents: list[str] = []

    def act(self) -> None:
        """Begin one more act."""
        kind = self._chance.random()
        if (kind < 0.25 and self._requests < _MOST_PARENTS) or not self.parents:
            self.process.spawn(self.create())
        elif kind < 0.8:
            verb = self._chance.choice(["Cancel", "Pause", "Resume", "Resume", "Retry", "Retry"])
            self.process.spawn(self.steer(verb, self._chance.choice(self.parents)))
        elif kind < 0.9:
            verb = self._chance.choice(["Pause", "Resume", "Resume"])
            self.process.spawn(self.hold(verb, self._chance.choice(self._targets)))
        else:
            name = f"worker-{self._chance.randrange(3)}"
            self.process.spawn(self.drain(name, terminate=self._chance.random() < 0.5))

    async def create(self) -> None:
        """Create a parent job, repeating the same request until it is answered."""
        self._requests += 1
        request = self._request(str(self._requests))
        response = await self._ask("JobService/CreateParentJob", request)
        if response is not None and response.parent_job.id not in self.parents:
            self.parents.append(response.parent_job.id)

    def _request(self, request_id: str) -> job_service_pb2.CreateParentJobRequest:
        chance = self._chance
        operations = chance.sample(NAMES, chance.choice([1, 1, 2, 3]))
        return job_service_pb2.CreateParentJobRequest(
            request_id=request_id,
            targets=chance.sample(self._targets, chance.randint(1, len(self._targets))),
            operations=[job_pb2.OperationSpec(name=name) for name in operations],
            failure_policy=job_pb2.FailurePolicy(
                mode=chance.choice([job_pb2.FAILURE_MODE_CONTINUE] * 2 + [job_pb2.FAILURE_MODE_FAIL_FAST])
            ),
            retry_policy=job_pb2.RetryPolicy(
                max_failures=chance.randint(1, 3),
                max_losses=chance.randint(1, 3),
                initial_backoff=Duration(seconds=chance.choice([0, 0, 1])),
            ),
            max_parallel=chance.choice([0, 0, 0, 1, 2]),
            priority=chance.choice([0, 0, 5]),
            timeout=chance.choice([None, Duration(seconds=8)]),
            allow_unknown_targets=True,
        )

    async def steer(self, verb: str, parent_job_id: str) -> None:
        """Cancel, pause, resume or retry a parent job."""
        request = getattr(job_service_pb2, f"{verb}ParentJobRequest")(parent_job_id=parent_job_id)
        await self._ask(f"JobService/{verb}ParentJob", request)

    async def hold(self, verb: str, target: str) -> None:
        """Pause or resume a target."""
        request = getattr(fleet_service_pb2, f"{verb}TargetRequest")(target=target)
        await self._ask(f"FleetService/{verb}Target", request)

    async def drain(self, worker_name: str, *, terminate: bool) -> None:
        """Drain or terminate a worker."""
        request = fleet_service_pb2.DrainWorkerRequest(worker_name=worker_name, terminate=terminate)
        await self._ask("FleetService/DrainWorker", request)

    async def idle(self) -> None:
        """Wait until every act has ended."""
        while under_way := [task for task in self.process.tasks if not task.done()]:
            await asyncio.wait(under_way)

    async def let_go(self) -> None:
        """Resume whatever was paused."""
        for target in self._targets:
            await self.hold("Resume", target)
        for parent_job_id in tuple(self.parents):
            await self.steer("Resume", parent_job_id)

    async def _ask(self, method: str, request: Any) -> Any:
        """Repeat a call until it is answered, a few times; a refusal is an answer."""
        for _ in range(_TRIES):
            with suppress(grpc.aio.AioRpcError):
                try:
                    return await self._network.call(self.process, method, request, _PATIENCE)
                except grpc.aio.AioRpcError as error:
                    if error.code() not in _TRANSIENT:
                        return None
                    raise
        return None
