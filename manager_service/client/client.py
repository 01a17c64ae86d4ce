"""`ManagerClient`: the managers of Overhaul from Python."""

from types import TracebackType
from typing import Self

from manager_service.client.calls import Caller
from manager_service.client.channel import DEFAULT_ADDRESS, open_channel
from manager_service.client.fleet import FleetCalls
from manager_service.client.jobs import JobCalls
from manager_service.client.streams import Streams
from overhaul.v1 import fleet_service_pb2_grpc, job_service_pb2_grpc


class ManagerClient(JobCalls, Streams, FleetCalls):
    """Creates, follows and steers maintenance jobs.

    ::

        async with ManagerClient("127.0.0.1:7420") as client:
            job = await client.create_parent_job(JobRequest(targets=["app"], operations=["vacuum"]))
            async for update in client.watch_parent_job(job.id):
                print(update)

    `address` is `host:port`, a comma list of such with IP addresses, or a URI such as `dns:///managers:7420`.
    What it answers are the messages of `overhaul.v1`. Failed calls are retried as the contract's service
    config says; what fails for good raises `ClientError`. Make it inside a running event loop.
    """

    def __init__(self, address: str = DEFAULT_ADDRESS) -> None:
        self._channel = open_channel(address)
        caller = Caller(address)
        jobs = job_service_pb2_grpc.JobServiceStub(self._channel)
        JobCalls.__init__(self, caller, jobs)
        Streams.__init__(self, caller, jobs)
        FleetCalls.__init__(self, caller, fleet_service_pb2_grpc.FleetServiceStub(self._channel))

    async def close(self) -> None:
        """Close the connection; calls under way are cancelled."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
