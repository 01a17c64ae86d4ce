"""The gRPC server: its options, its services, its health, and how it ends."""

import asyncio
from dataclasses import dataclass
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from manager_service.api.fleet_service import FleetService
from manager_service.api.interceptors import CallInterceptor
from manager_service.api.job_service import JobService
from manager_service.api.lease_service import LeaseService
from manager_service.domain.model import SECOND, Span
from manager_service.domain.ports import IdSource
from overhaul.v1 import (
    fleet_service_pb2,
    fleet_service_pb2_grpc,
    job_service_pb2,
    job_service_pb2_grpc,
    lease_service_pb2,
    lease_service_pb2_grpc,
)

log = structlog.get_logger("manager.server")

# A create with 50,000 targets of 128 characters takes 7 MB, a page of 1,000 children with all measures 6 MB.
MESSAGE_BYTES = 32 * 1024 * 1024
SERVICES = tuple(
    file.DESCRIPTOR.services_by_name[name].full_name
    for file, name in (
        (job_service_pb2, "JobService"),
        (lease_service_pb2, "LeaseService"),
        (fleet_service_pb2, "FleetService"),
    )
)

_OPTIONS = (
    # Otherwise a second manager would silently share the port.
    ("grpc.so_reuseport", 0),
    # Otherwise about a thousand calls that arrive at once are dropped as CANCELLED.
    ("grpc.server.max_pending_requests", 100_000),
    ("grpc.server.max_pending_requests_hard_limit", 200_000),
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    # Clients and workers ping while they hang; the usual five minutes would end their connections.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # A peer that vanished without a word is noticed.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)
CONNECTION_AGE_MS = 300_000
"""After so long a connection of one of several managers takes no new calls; those under way stay on it."""
_JUST_CAME_IN = 0.02
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
LEASES = lease_service_pb2.DESCRIPTOR.services_by_name["LeaseService"].full_name


class AddressInUseError(Exception):
    """The address to listen on cannot be bound; its text is a sentence for the operator."""

    def __init__(self, address: str) -> None:
        super().__init__(
            f"cannot listen on {address}: the port is taken, or the address is none of this machine's"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What is served."""

    jobs: JobService
    leases: LeaseService
    fleet: FleetService


class _Lookup:
    """A server that looks methods up by name when they are called.

    A method that is registered gets an accept of its own in grpc.aio, and every call looks at the accepts of all:
    with thirty methods that was a sixth of what a call costs.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self.add_generic_rpc_handlers = server.add_generic_rpc_handlers

    def add_registered_method_handlers(self, service: str, handlers: object) -> None:
        """Pass over it: the same handlers come as generic ones."""


class Server:
    """Serves the three services, health and reflection on one port.

    Args:
        services: what is served.
        ids: makes the ids of incidents.
        one_of_several: whether other managers may serve the same store. Then connections are renewed, because
            only who connects anew looks for managers that were added, or is sent to one by a load balancer.
    """

    def __init__(self, services: Services, ids: IdSource, *, one_of_several: bool = False) -> None:
        self._calls = CallInterceptor(ids)
        self._health = health.aio.HealthServicer()
        renewing = (("grpc.max_connection_age_ms", CONNECTION_AGE_MS),) if one_of_several else ()
        self._server = grpc.aio.server(interceptors=[self._calls], options=(*_OPTIONS, *renewing))
        server: Any = _Lookup(self._server)
        job_service_pb2_grpc.add_JobServiceServicer_to_server(services.jobs, server)
        lease_service_pb2_grpc.add_LeaseServiceServicer_to_server(services.leases, server)
        fleet_service_pb2_grpc.add_FleetServiceServicer_to_server(services.fleet, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)

    async def start(self, address: str) -> int:
        """Listen and serve; return the port.

        Raises:
            AddressInUseError: the address cannot be bound.
        """
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise AddressInUseError(address) from error
        await self._server.start()
        for name in SERVICES:
            await self._health.set(name, _SERVING)
        return port

    async def lease_health(self, serving: bool) -> None:  # noqa: FBT001 -- the one thing that is said
        """Tell whoever asks whether leases can be granted and reports be taken here."""
        await self._health.set(LEASES, _SERVING if serving else _NOT_SERVING)

    async def retire(self) -> None:
        """Tell whoever asks that no more calls are to be sent here."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace: Span, hurry: asyncio.Event) -> None:
        """Take no more calls, let those under way end, and wait until their clean-up has run.

        Args:
            grace: how long calls may take to end.
            hurry: set to wait no longer.
        """
        ending = asyncio.create_task(self._server.stop(grace / SECOND))
        ended = (ending, asyncio.create_task(self._ours_ended()), asyncio.create_task(hurry.wait()))
        await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.cancel()
        await asyncio.wait(ended)
        # Ends what is left: calls of ours when the time is over, and watches of health, which never end.
        await self._server.stop(None)
        # The server does not wait for the clean-up of its handlers.
        await self._calls.idle()

    async def _ours_ended(self) -> None:
        """Wait until no call of ours is under way, also none that had just come in."""
        await self._calls.idle()
        await asyncio.sleep(_JUST_CAME_IN)
        await self._calls.idle()
