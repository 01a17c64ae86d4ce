from typing import Any

import grpc
from typing_extensions import override

from manager_service.api.convert import fleet
from manager_service.api.convert.pages import read_page
from manager_service.domain.ports import FleetVerbs
from manager_service.leasing import LeaseDesk
from overhaul.v1 import fleet_service_pb2, fleet_service_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class FleetService(fleet_service_pb2_grpc.FleetServiceServicer):
    """What operators call to see and steer workers and targets.

    Args:
        store: knows workers and targets.
        desk: knows when workers polled.
    """

    def __init__(self, store: FleetVerbs, desk: LeaseDesk) -> None:
        self._store = store
        self._desk = desk

    @override
    async def ListWorkers(
        self, request: fleet_service_pb2.ListWorkersRequest, context: Context
    ) -> fleet_service_pb2.ListWorkersResponse:
        """List workers."""
        page = read_page(request)
        found = await self._store.workers(include_gone=request.include_gone, after=page.after, limit=page.probe)
        shown, token = page.cut(found, lambda worker: worker.worker_name)
        workers = [fleet.worker(worker, self._desk.poll_time(worker.session_id)) for worker in shown]
        return fleet_service_pb2.ListWorkersResponse(workers=workers, next_page_token=token)

    @override
    async def ListTargets(
        self, request: fleet_service_pb2.ListTargetsRequest, context: Context
    ) -> fleet_service_pb2.ListTargetsResponse:
        """List targets."""
        labels, page = fleet.label_filter(request), read_page(request)
        found = await self._store.targets(labels=labels, after=page.after, limit=page.probe)
        shown, token = page.cut(found, lambda target: target.name)
        return fleet_service_pb2.ListTargetsResponse(
            targets=[fleet.target(target) for target in shown], next_page_token=token
        )

    @override
    async def DrainWorker(
        self, request: fleet_service_pb2.DrainWorkerRequest, context: Context
    ) -> fleet_service_pb2.DrainWorkerResponse:
        """Tell a worker to take no more."""
        worker = await self._store.drain_worker(request.worker_name, terminate=request.terminate)
        return fleet_service_pb2.DrainWorkerResponse(
            worker=fleet.worker(worker, self._desk.poll_time(worker.session_id))
        )

    @override
    async def PauseTarget(
        self, request: fleet_service_pb2.PauseTargetRequest, context: Context
    ) -> fleet_service_pb2.PauseTargetResponse:
        """Hold a target."""
        target = await self._store.pause_target(request.target, paused=True)
        return fleet_service_pb2.PauseTargetResponse(target=fleet.target(target))

    @override
    async def ResumeTarget(
        self, request: fleet_service_pb2.ResumeTargetRequest, context: Context
    ) -> fleet_service_pb2.ResumeTargetResponse:
        """Let a paused target go on."""
        target = await self._store.pause_target(request.target, paused=False)
        return fleet_service_pb2.ResumeTargetResponse(target=fleet.target(target))

    @override
    async def ForgetTarget(
        self, request: fleet_service_pb2.ForgetTargetRequest, context: Context
    ) -> fleet_service_pb2.ForgetTargetResponse:
        """Forget a target."""
        await self._store.forget_target(request.target)
        return fleet_service_pb2.ForgetTargetResponse()
