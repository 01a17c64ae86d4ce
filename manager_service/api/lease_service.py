import asyncio
import math
from typing import Any

import grpc
from typing_extensions import override

from manager_service.api.convert import fleet, leases
from manager_service.api.convert.scalars import duration, span
from manager_service.domain.model import SECOND, Span
from manager_service.leasing import LeaseDesk
from overhaul.v1 import lease_service_pb2, lease_service_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]

_NO_DEADLINE: Span = 86_400 * SECOND


class LeaseService(lease_service_pb2_grpc.LeaseServiceServicer):
    """What workers call.

    Args:
        desk: where workers come.
    """

    def __init__(self, desk: LeaseDesk) -> None:
        self._desk = desk

    @override
    async def RegisterWorker(
        self, request: lease_service_pb2.RegisterWorkerRequest, context: Context
    ) -> lease_service_pb2.RegisterWorkerResponse:
        """Open a session."""
        session_id = await self._desk.register(
            fleet.registration(request), protocol_version=request.protocol_version
        )
        timing = self._desk.timing
        return lease_service_pb2.RegisterWorkerResponse(
            session_id=session_id,
            heartbeat_interval=duration(timing.heartbeat_interval),
            lease_duration=duration(timing.lease_duration),
            poll_window=duration(timing.poll_window),
        )

    @override
    async def AcquireLeases(
        self, request: lease_service_pb2.AcquireLeasesRequest, context: Context
    ) -> lease_service_pb2.AcquireLeasesResponse:
        """Grant leases, or hang until there is one to grant."""
        granted = await self._desk.polls.acquire(
            request.session_id,
            leases.poll(request),
            wait=span(request, "wait") or 0,
            remaining=_remaining(context),
        )
        return lease_service_pb2.AcquireLeasesResponse(
            leases=[leases.lease(item, self._desk.timing) for item in granted]
        )

    @override
    async def Heartbeat(
        self, request: lease_service_pb2.HeartbeatRequest, context: Context
    ) -> lease_service_pb2.HeartbeatResponse:
        """Renew leases, and hang until there is something to tell."""
        answer = await self._desk.heartbeats.beat(
            leases.heartbeat(request), wait=span(request, "wait") or 0, remaining=_remaining(context)
        )
        return leases.heartbeat_response(request, answer, self._desk.timing)

    @override
    async def ReportResults(
        self, request: lease_service_pb2.ReportResultsRequest, context: Context
    ) -> lease_service_pb2.ReportResultsResponse:
        """Record how attempts ended, and grant the next leases."""
        if any(item.HasField("inspection") for item in request.results):
            # It may be of tens of thousands of objects, during which others have to be answered.
            reports = await asyncio.to_thread(leases.reports, request)
        else:
            reports = leases.reports(request)
        answer = await self._desk.report(request.session_id, reports, leases.next_poll(request))
        return leases.report_response(request, answer, self._desk.timing)

    @override
    async def AppendLogs(
        self, request: lease_service_pb2.AppendLogsRequest, context: Context
    ) -> lease_service_pb2.AppendLogsResponse:
        """Add lines to the log of a live attempt."""
        next_offset = await self._desk.append_logs(leases.log_batch(request))
        return lease_service_pb2.AppendLogsResponse(next_offset=next_offset or 0, lost=next_offset is None)

    @override
    async def DeregisterWorker(
        self, request: lease_service_pb2.DeregisterWorkerRequest, context: Context
    ) -> lease_service_pb2.DeregisterWorkerResponse:
        """Close a session."""
        await self._desk.deregister(request.session_id)
        return lease_service_pb2.DeregisterWorkerResponse()


def _remaining(context: Context) -> Span:
    """Return how long the caller waits; without a deadline a day."""
    seconds: float | None = context.time_remaining()
    if seconds is None or not math.isfinite(seconds):
        return _NO_DEADLINE
    return max(0, min(_NO_DEADLINE, int(seconds * SECOND)))
