from collections.abc import Awaitable, Mapping, Sequence
from datetime import timedelta
from typing import TypeVar

import grpc

from overhaul.v1 import lease_service_pb2
from overhaul.v1.lease_service_pb2_grpc import LeaseServiceStub
from worker_service.domain.errors import (
    ProtocolVersionRefusedError,
    RegistrationRefusedError,
    RequestRefusedError,
)
from worker_service.domain.manager import (
    HeartbeatAnswer,
    HeldLease,
    Lease,
    LogAnswer,
    LogBatch,
    NextPoll,
    Registration,
    Report,
    ReportAnswer,
    Session,
    WorkerState,
)
from worker_service.manager_client import convert, protocol
from worker_service.manager_client.errors import translate

T = TypeVar("T")

CALL_TIMEOUT = 15.0
HANG_MARGIN = 5.0
FAREWELL_TIMEOUT = 2.0


class GrpcManager:
    """The manager over gRPC.

    Args:
        calls: the channel of all calls but the heartbeat.
        heartbeats: the heartbeat's own channel, so that nothing can delay it.
    """

    def __init__(self, *, calls: grpc.aio.Channel, heartbeats: grpc.aio.Channel) -> None:
        self._channels = (calls, heartbeats)
        self._stub = LeaseServiceStub(calls)
        self._heart = LeaseServiceStub(heartbeats)

    async def register(self, registration: Registration) -> Session:
        """Open the session, or the one that this instance has, in the newest version that both sides speak."""
        try:
            return await self._register(registration, protocol.SPOKEN.newest)
        except ProtocolVersionRefusedError as refusal:
            return await self._register(registration, protocol.SPOKEN.agree(refusal))

    async def _register(self, registration: Registration, version: int) -> Session:
        try:
            request = convert.register_request(registration, version)
            return convert.session(await _answer(self._stub.RegisterWorker(request, timeout=CALL_TIMEOUT)))
        except (RequestRefusedError, TypeError, ValueError) as error:
            raise RegistrationRefusedError(str(error)) from error

    async def acquire(
        self, session_id: str, *, sequence: int, max_leases: int, wait: timedelta
    ) -> tuple[Lease, ...]:
        """Poll for leases."""
        request = lease_service_pb2.AcquireLeasesRequest(
            session_id=session_id, poll_sequence=sequence, max_leases=max_leases, wait=convert.duration(wait)
        )
        response = await _answer(self._stub.AcquireLeases(request, timeout=_hang(wait)))
        return convert.leases(response.leases)

    async def heartbeat(
        self,
        session_id: str,
        *,
        sequence: int,
        state: WorkerState,
        leases: Sequence[HeldLease],
        held_back: Mapping[str, str],
        wait: timedelta,
    ) -> HeartbeatAnswer:
        """Renew the inventory and hang for news."""
        request = lease_service_pb2.HeartbeatRequest(
            session_id=session_id,
            sequence=sequence,
            state=convert.STATES[state],
            leases=[convert.held(lease) for lease in leases],
            held_back=convert.held_back(held_back),
            wait=convert.duration(wait) if wait else None,
        )
        return convert.heartbeat_answer(await _answer(self._heart.Heartbeat(request, timeout=_hang(wait))))

    async def report(self, session_id: str, reports: Sequence[Report], next_poll: NextPoll | None) -> ReportAnswer:
        """Report ends and ask for the next leases."""
        try:
            results = [convert.operation_result(report) for report in reports]
        except (TypeError, ValueError, LookupError) as error:
            raise RequestRefusedError(f"A result cannot be sent: {error}") from error
        request = lease_service_pb2.ReportResultsRequest(session_id=session_id, results=results)
        if next_poll is not None:
            request.want_next.poll_sequence = next_poll.sequence
            request.want_next.max_leases = next_poll.max_leases
        return convert.report_answer(await _answer(self._stub.ReportResults(request, timeout=CALL_TIMEOUT)))

    async def append_logs(self, session_id: str, batch: LogBatch) -> LogAnswer:
        """Add lines to an attempt's log."""
        request = lease_service_pb2.AppendLogsRequest(
            session_id=session_id,
            child_job_id=batch.child_job_id,
            lease_id=batch.lease_id,
            attempt=batch.attempt,
            offset=batch.offset,
            entries=[convert.log_entry(line) for line in batch.lines],
        )
        response = await _answer(self._stub.AppendLogs(request, timeout=CALL_TIMEOUT))
        return LogAnswer(next_offset=response.next_offset, lost=response.lost)

    async def deregister(self, session_id: str) -> None:
        """Close the session."""
        request = lease_service_pb2.DeregisterWorkerRequest(session_id=session_id)
        await _answer(self._stub.DeregisterWorker(request, timeout=FAREWELL_TIMEOUT))

    async def close(self) -> None:
        """Close both channels."""
        for channel in self._channels:
            await channel.close()


async def _answer(call: Awaitable[T]) -> T:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise translate(error) from error


def _hang(wait: timedelta) -> float:
    return wait.total_seconds() + HANG_MARGIN
