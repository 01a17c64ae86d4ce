"""Several managers over one store, as workers see them: one scripted LeaseService behind several ports."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Self, TypeAlias

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from typing_extensions import override

from overhaul.v1.lease_service_pb2_grpc import add_LeaseServiceServicer_to_server
from tests.worker_doubles.lease_server import LeaseServer

LEASES = "overhaul.v1.LeaseService"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"


class Replica(grpc.aio.ServerInterceptor):
    """One of the managers: counts its calls, drains, dies and comes back at its address.

    A relay stands before it, whose connections can be cut as a kill -9 cuts them.
    """

    def __init__(self, leases: LeaseServer) -> None:
        self.calls: Counter[str] = Counter()
        self._leases = leases
        self._writers: set[asyncio.StreamWriter] = set()
        self._port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    async def start(self) -> Self:
        self._health = health.aio.HealthServicer()
        await self._health.set(LEASES, health_pb2.HealthCheckResponse.SERVING)
        self._server = grpc.aio.server(interceptors=[self], options=[("grpc.so_reuseport", 0)])
        add_LeaseServiceServicer_to_server(self._leases, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._behind = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        self._relay = await asyncio.start_server(self._connected, "127.0.0.1", self._port)
        self._port = self._relay.sockets[0].getsockname()[1]
        return self

    async def drain(self) -> None:
        """Take no new calls, and let those under way go on."""
        await self._health.enter_graceful_shutdown()

    async def die(self) -> None:
        """Be gone in the middle of whatever is under way."""
        self._relay.close()
        for writer in self._writers:
            writer.transport.abort()
        await self._server.stop(0)

    @override
    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        self.calls[handler_call_details.method.rpartition("/")[2]] += 1
        return await continuation(handler_call_details)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._behind)
        ends = {writer, back}
        self._writers |= ends
        await asyncio.gather(_pump(reader, back), _pump(there, writer))
        self._writers -= ends


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def replicas(leases: LeaseServer, number: int = 3) -> AsyncIterator[list[Replica]]:
    """Run several managers over one store."""
    started = [await Replica(leases).start() for _ in range(number)]
    try:
        yield started
    finally:
        for replica in started:
            await replica.die()


def list_of(started: list[Replica]) -> str:
    """Return the managers as ``--manager`` names several."""
    return ",".join(replica.address for replica in started)
