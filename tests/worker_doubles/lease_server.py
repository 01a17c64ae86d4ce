"""A LeaseService in memory behind a real gRPC server: strict about slots and sequences, and open to mischief."""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]  # ships no types
from grpc_status import rpc_status

from overhaul.v1 import lease_service_pb2 as wire
from overhaul.v1.lease_service_pb2_grpc import LeaseServiceServicer, add_LeaseServiceServicer_to_server

Context = grpc.aio.ServicerContext[Any, Any]
# For machines that are busy with others: nothing here waits for it.
PATIENCE = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mischief:
    """A call that ends badly, once; ``after`` lets it take effect first, so that only its answer is lost."""

    code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE
    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    after: bool = False


class LeaseServer(LeaseServiceServicer):
    """Grants what was offered, remembers what it was told, and wakes hanging calls when anything changes."""

    def __init__(self, *, slots: int = 2, heartbeat: float = 0.3, lease: float = 5.0, window: float = 2.0) -> None:
        self.slots = slots
        self.heartbeat, self.lease, self.window = heartbeat, lease, window
        self.calls: dict[str, list[Any]] = defaultdict(list)
        self.mischief: dict[str, deque[Mischief]] = defaultdict(deque)
        self.queue: deque[wire.Lease] = deque()
        self.live: dict[str, wire.Lease] = {}
        self.results: dict[str, wire.OperationResult] = {}
        self.logs: dict[str, list[str]] = defaultdict(list)
        self.cancelled: set[str] = set()
        self.gone: set[str] = set()
        self.directive = wire.WORKER_DIRECTIVE_NONE
        self.nudged = False
        self.session = ""
        self.most_live = 0
        self.superseded = False
        self.down = False
        self._granted: dict[int, list[str]] = {}
        self._sequence = 0
        self._sessions = 0
        self._offered = 0
        self._changed = asyncio.Condition()

    async def offer(self, *operations: str, target: str = "app", **fields: Any) -> list[str]:
        """Make leases available; return their ids."""
        ids = []
        for operation in operations:
            self._offered += 1
            number = self._offered
            lease = wire.Lease(
                lease_id=f"lease-{number}",
                attempt=1,
                child_job_id=f"child-{number}",
                parent_job_id="parent-1",
                operation=operation,
                target=target,
                lease_duration=_span(self.lease),
                accept_within=_span(2 * self.heartbeat),
                **fields,
            )
            self.queue.append(lease)
            ids.append(lease.lease_id)
        await self.wake()
        return ids

    async def cancel(self, lease_id: str) -> None:
        self.cancelled.add(lease_id)
        await self.wake()

    async def lose(self, lease_id: str) -> None:
        self.live.pop(lease_id, None)
        self.gone.add(lease_id)
        await self.wake()

    async def direct(self, directive: wire.WorkerDirective.ValueType) -> None:
        self.directive = directive
        await self.wake()

    async def nudge(self) -> None:
        """Answer the hanging heartbeat now, as a manager does that has news of a lease it does not list."""
        self.nudged = True
        await self.wake()

    async def wake(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def until(self, true: Any) -> None:
        """Wait until a condition holds; every call to this server looks again."""
        async with asyncio.timeout(PATIENCE):
            while not true():  # noqa: ASYNC110 - the condition is about more than this server's calls
                await asyncio.sleep(0.002)

    async def RegisterWorker(  # noqa: N802 - the name in the contract
        self, request: wire.RegisterWorkerRequest, context: Context
    ) -> wire.RegisterWorkerResponse:
        await self._begin("RegisterWorker", request, context, session=None)
        self._sessions += 1
        self.session = f"session-{self._sessions}"
        self._sequence, self._granted = 0, {}
        return wire.RegisterWorkerResponse(
            session_id=self.session,
            heartbeat_interval=_span(self.heartbeat),
            lease_duration=_span(self.lease),
            poll_window=_span(self.window),
        )

    async def AcquireLeases(  # noqa: N802 - the name in the contract
        self, request: wire.AcquireLeasesRequest, context: Context
    ) -> wire.AcquireLeasesResponse:
        lost = await self._begin("AcquireLeases", request, context, session=request.session_id)
        if self.superseded:
            await _abort(context, Mischief(code=grpc.StatusCode.FAILED_PRECONDITION, reason="SESSION_SUPERSEDED"))
        loop = asyncio.get_running_loop()
        end = loop.time() + _seconds(request.wait)
        leases = self._grant(request.poll_sequence, request.max_leases)
        while not leases and (left := end - loop.time()) > 0:
            await self._wait(left)
            leases = self._grant(request.poll_sequence, request.max_leases)
        if lost:
            await _abort(context, lost)
        return wire.AcquireLeasesResponse(leases=leases)

    async def Heartbeat(  # noqa: N802 - the name in the contract
        self, request: wire.HeartbeatRequest, context: Context
    ) -> wire.HeartbeatResponse:
        await self._begin("Heartbeat", request, context, session=request.session_id)
        loop = asyncio.get_running_loop()
        end = loop.time() + _seconds(request.wait)
        told = self._directives(request)
        while told == self._quiet(request) and not self.nudged and (left := end - loop.time()) > 0:
            await self._wait(left)
            told = self._directives(request)
        self.nudged = False
        return wire.HeartbeatResponse(
            leases=[wire.LeaseStatus(lease_id=one, directive=what) for one, what in told[0].items()],
            directive=told[1],
            lease_duration=_span(self.lease),
        )

    async def ReportResults(  # noqa: N802 - the name in the contract
        self, request: wire.ReportResultsRequest, context: Context
    ) -> wire.ReportResultsResponse:
        lost = await self._begin("ReportResults", request, context, session=request.session_id)
        verdicts = [self._record(result) for result in request.results]
        leases: list[wire.Lease] = []
        if request.HasField("want_next"):
            leases = self._grant(request.want_next.poll_sequence, request.want_next.max_leases)
        await self.wake()
        if lost:
            await _abort(context, lost)
        return wire.ReportResultsResponse(verdicts=verdicts, leases=leases)

    async def AppendLogs(  # noqa: N802 - the name in the contract
        self, request: wire.AppendLogsRequest, context: Context
    ) -> wire.AppendLogsResponse:
        lost = await self._begin("AppendLogs", request, context, session=request.session_id)
        if request.lease_id in self.gone:
            return wire.AppendLogsResponse(lost=True)
        lines = self.logs[request.lease_id]
        fresh = request.entries[len(lines) - request.offset :]
        lines.extend(entry.message for entry in fresh)
        if lost:
            await _abort(context, lost)
        return wire.AppendLogsResponse(next_offset=len(lines))

    async def DeregisterWorker(  # noqa: N802 - the name in the contract
        self, request: wire.DeregisterWorkerRequest, context: Context
    ) -> wire.DeregisterWorkerResponse:
        await self._begin("DeregisterWorker", request, context, session=None)
        self.session = ""
        return wire.DeregisterWorkerResponse()

    async def _begin(self, method: str, request: Any, context: Context, *, session: str | None) -> Mischief | None:
        """Note the call; end it when mischief is due, and return mischief that is due at its end."""
        if self.down:
            await _abort(context, Mischief())
        self.calls[method].append(request)
        mischief = self.mischief[method].popleft() if self.mischief[method] else None
        if mischief and not mischief.after:
            await _abort(context, mischief)
        if session is not None and session != self.session:
            await _abort(context, Mischief(code=grpc.StatusCode.FAILED_PRECONDITION, reason="SESSION_UNKNOWN"))
        return mischief

    def _grant(self, sequence: int, most: int) -> list[wire.Lease]:
        if sequence < self._sequence:
            return []
        if sequence in self._granted:
            return [self.live[one] for one in self._granted[sequence] if one in self.live]
        leases: list[wire.Lease] = []
        while self.queue and len(leases) < most and len(self.live) < self.slots:
            lease = self.queue.popleft()
            self.live[lease.lease_id] = lease
            leases.append(lease)
        self.most_live = max(self.most_live, len(self.live))
        if leases:
            self._sequence = sequence
            self._granted[sequence] = [lease.lease_id for lease in leases]
        return leases

    def _record(self, result: wire.OperationResult) -> wire.ReportVerdict:
        known = self.results.get(result.lease_id)
        if known is not None:
            status = wire.REPORT_STATUS_ALREADY_RECORDED
        elif self.live.pop(result.lease_id, None) is None:
            status = wire.REPORT_STATUS_STALE
        else:
            status = wire.REPORT_STATUS_RECORDED
            self.results[result.lease_id] = result
        return wire.ReportVerdict(report_id=result.report_id, status=status)

    def _directives(self, request: wire.HeartbeatRequest) -> tuple[dict[str, Any], Any]:
        return {held.lease_id: self._lease_directive(held.lease_id) for held in request.leases}, self.directive

    def _lease_directive(self, lease_id: str) -> wire.LeaseDirective.ValueType:
        if lease_id not in self.live and lease_id not in self.results:
            return wire.LEASE_DIRECTIVE_LOST
        return wire.LEASE_DIRECTIVE_CANCEL if lease_id in self.cancelled else wire.LEASE_DIRECTIVE_CONTINUE

    def _quiet(self, request: wire.HeartbeatRequest) -> tuple[dict[str, Any], Any]:
        quiet = {held.lease_id: wire.LEASE_DIRECTIVE_CONTINUE for held in request.leases}
        draining = request.state == wire.WORKER_STATE_DRAINING
        return quiet, self.directive if draining else wire.WORKER_DIRECTIVE_NONE

    async def _wait(self, seconds: float) -> None:
        async with self._changed:
            try:
                async with asyncio.timeout(seconds):
                    await self._changed.wait()
            except TimeoutError:
                return


async def _abort(context: Context, mischief: Mischief) -> None:
    details = []
    if mischief.reason:
        packed = any_pb2.Any()
        info = error_details_pb2.ErrorInfo(
            domain="overhaul.v1", reason=mischief.reason, metadata=mischief.metadata
        )
        packed.Pack(info)
        details.append(packed)
    status = status_pb2.Status(code=mischief.code.value[0], message="as scripted", details=details)
    await context.abort_with_status(rpc_status.to_status(status))


@asynccontextmanager
async def serving(server: LeaseServer, port: int = 0) -> AsyncIterator[str]:
    """Serve on loopback; yield the address."""
    grpc_server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    add_LeaseServiceServicer_to_server(server, grpc_server)
    bound = grpc_server.add_insecure_port(f"127.0.0.1:{port}")
    await grpc_server.start()
    try:
        yield f"127.0.0.1:{bound}"
    finally:
        await grpc_server.stop(0)


def _span(seconds: float) -> Duration:
    span = Duration()
    span.FromNanoseconds(int(seconds * 1e9))
    return span


def _seconds(span: Duration) -> float:
    return span.ToNanoseconds() / 1e9
