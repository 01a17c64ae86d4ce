"""The calls of FleetService."""

from collections.abc import AsyncIterator, Mapping

from manager_service.client.calls import Caller, pages
from overhaul.v1 import fleet_service_pb2, fleet_service_pb2_grpc

PAGE_SIZE = 500


class FleetCalls:
    """Reads and steers workers and targets. Every method may raise `ClientError`."""

    def __init__(self, caller: Caller, stub: fleet_service_pb2_grpc.FleetServiceStub) -> None:
        self._caller = caller
        self._fleet = stub

    async def list_workers(
        self, *, include_gone: bool = False, page_size: int = PAGE_SIZE
    ) -> AsyncIterator[fleet_service_pb2.Worker]:
        """Yield the workers by name; `include_gone` adds lost, superseded and closed sessions."""

        def request(token: str) -> fleet_service_pb2.ListWorkersRequest:
            return fleet_service_pb2.ListWorkersRequest(
                include_gone=include_gone, page_size=page_size, page_token=token
            )

        async for page in pages(lambda token: self._caller.call(self._fleet.ListWorkers, request(token))):
            for worker in page.workers:
                yield worker

    async def list_targets(
        self, *, labels: Mapping[str, str] | None = None, page_size: int = PAGE_SIZE
    ) -> AsyncIterator[fleet_service_pb2.Target]:
        """Yield the targets that have all the labels, by name."""

        def request(token: str) -> fleet_service_pb2.ListTargetsRequest:
            return fleet_service_pb2.ListTargetsRequest(labels=labels, page_size=page_size, page_token=token)

        async for page in pages(lambda token: self._caller.call(self._fleet.ListTargets, request(token))):
            for target in page.targets:
                yield target

    async def drain_worker(self, worker_name: str, *, terminate: bool = False) -> fleet_service_pb2.Worker:
        """Tell a worker to finish what it runs and take no more; with `terminate` also to end."""
        request = fleet_service_pb2.DrainWorkerRequest(worker_name=worker_name, terminate=terminate)
        return (await self._caller.call(self._fleet.DrainWorker, request)).worker

    async def pause_target(self, target: str) -> fleet_service_pb2.Target:
        """Hold a target: what runs on it finishes, nothing else starts."""
        request = fleet_service_pb2.PauseTargetRequest(target=target)
        return (await self._caller.call(self._fleet.PauseTarget, request)).target

    async def resume_target(self, target: str) -> fleet_service_pb2.Target:
        """Let a paused target go on."""
        request = fleet_service_pb2.ResumeTargetRequest(target=target)
        return (await self._caller.call(self._fleet.ResumeTarget, request)).target

    async def forget_target(self, target: str) -> None:
        """Forget a target that no live worker serves, so that its name may mean another database."""
        request = fleet_service_pb2.ForgetTargetRequest(target=target)
        await self._caller.call(self._fleet.ForgetTarget, request)
