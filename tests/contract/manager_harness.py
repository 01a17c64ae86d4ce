"""A manager in this process, on a real store, and the calls that tests make of it."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]  # ships no types

from manager_service.app.manager import Manager
from manager_service.app.system import SystemClock, SystemIds
from manager_service.config import Settings, StoreSync
from manager_service.domain.fleet import Timing
from manager_service.domain.model import MILLISECOND, SECOND
from manager_service.domain.ports import Clock, JobStore
from manager_service.store import open_store
from overhaul.v1 import (
    fleet_service_pb2_grpc,
    job_pb2,
    job_service_pb2,
    job_service_pb2_grpc,
    lease_service_pb2,
    lease_service_pb2_grpc,
)

TIMING = Timing(
    heartbeat_interval=2 * SECOND,
    lease_duration=6 * SECOND,
    accept_within=4 * SECOND,
    poll_window=3 * SECOND,
)
BRISK = Timing(
    heartbeat_interval=200 * MILLISECOND,
    lease_duration=1 * SECOND,
    accept_within=400 * MILLISECOND,
    poll_window=500 * MILLISECOND,
)
NOBODY = str(uuid.UUID(int=0))


def span(seconds: float) -> Duration:
    duration = Duration()
    duration.FromMicroseconds(round(seconds * SECOND))
    return duration


@dataclass
class Refusal:
    """What a refused call says."""

    code: grpc.StatusCode
    message: str
    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)
    retry: bool = False


def refusal_of(error: grpc.aio.AioRpcError) -> Refusal:
    found = Refusal(code=error.code(), message=error.details() or "")
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            for detail in status_pb2.Status.FromString(value).details:
                _add(found, detail)
    return found


def _add(found: Refusal, detail: Any) -> None:
    info, request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    if detail.Unpack(info):
        assert info.domain == "overhaul.v1"
        found.reason, found.metadata = info.reason, dict(info.metadata)
    elif detail.Unpack(request):
        found.fields = {item.field: item.description for item in request.field_violations}
    elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
        found.retry = True


async def refusal(call: Any) -> Refusal:
    """Await a call, or read a stream, that is to be refused."""
    try:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return refusal_of(error)
    raise AssertionError("the call was not refused")


@dataclass
class RunningManager:
    """A manager that serves, and stubs that call it."""

    manager: Manager
    store: JobStore
    port: int
    channel: grpc.aio.Channel
    stopped: bool = False

    def __post_init__(self) -> None:
        self.jobs = job_service_pb2_grpc.JobServiceStub(self.channel)
        self.leases = lease_service_pb2_grpc.LeaseServiceStub(self.channel)
        self.fleet = fleet_service_pb2_grpc.FleetServiceStub(self.channel)

    async def stop(self) -> None:
        if not self.stopped:
            self.stopped = True
            await self.manager.stop()
            await self.store.close()

    async def create(self, *targets: str, operations: tuple[str, ...] = (), **fields: Any) -> job_pb2.ParentJob:
        answer = await self.jobs.CreateParentJob(
            job_service_pb2.CreateParentJobRequest(
                targets=targets or ("app",),
                operations=[job_pb2.OperationSpec(name=name) for name in operations],
                **fields,
            )
        )
        return answer.parent_job

    async def get(self, parent_job_id: str) -> job_pb2.ParentJob:
        answer = await self.jobs.GetParentJob(job_service_pb2.GetParentJobRequest(parent_job_id=parent_job_id))
        return answer.parent_job

    async def children(self, parent_job_id: str, **fields: Any) -> list[job_pb2.ChildJob]:
        answer = await self.jobs.ListChildJobs(
            job_service_pb2.ListChildJobsRequest(parent_job_id=parent_job_id, **fields)
        )
        return list(answer.child_jobs)

    async def child(self, child_job_id: str) -> job_service_pb2.GetChildJobResponse:
        return await self.jobs.GetChildJob(job_service_pb2.GetChildJobRequest(child_job_id=child_job_id))

    async def cancel(self, parent_job_id: str, reason: str = "") -> job_pb2.ParentJob:
        request = job_service_pb2.CancelParentJobRequest(parent_job_id=parent_job_id, reason=reason)
        return (await self.jobs.CancelParentJob(request)).parent_job

    def watch(self, parent_job_id: str, after: int | None = None, timeout: float = 20) -> Any:
        request = job_service_pb2.WatchParentJobRequest(parent_job_id=parent_job_id, after_sequence=after)
        return self.jobs.WatchParentJob(request, timeout=timeout)

    async def worker(self, *targets: str, name: str = "w1", slots: int = 4, **fields: Any) -> "Worker":
        worker = Worker(self, name=name, targets=targets or ("app",), slots=slots, fields=fields)
        await worker.register()
        return worker


def served(name: str, **fields: Any) -> lease_service_pb2.ServedTarget:
    defaults: dict[str, Any] = {
        "engine": "sqlite",
        "engine_version": "3.51",
        "identity": f"id:{name}",
        "max_parallel": 1,
        "operations": [
            lease_service_pb2.OfferedOperation(
                name=operation,
                description="does it",
                options=[
                    lease_service_pb2.OptionSpec(
                        name="full", type=lease_service_pb2.OPTION_TYPE_BOOLEAN, description="all of it"
                    )
                ],
                locks=[lease_service_pb2.Lock(key=f"file:{name}", exclusive=True)],
            )
            for operation in ("vacuum", "analyze", "reindex")
        ],
    }
    return lease_service_pb2.ServedTarget(name=name, **(defaults | fields))


@dataclass
class Worker:
    """What a worker process would say."""

    manager: RunningManager
    name: str
    targets: tuple[str, ...]
    slots: int
    fields: dict[str, Any] = field(default_factory=dict)
    instance_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    session_id: str = ""
    polls: int = 0
    beats: int = 0

    def registration(self, **changes: Any) -> lease_service_pb2.RegisterWorkerRequest:
        defaults: dict[str, Any] = {
            "worker_name": self.name,
            "instance_id": self.instance_id,
            "protocol_version": 1,
            "build": "0.1",
            "host": "here",
            "pid": 7,
            "labels": {"zone": "a"},
            "targets": [served(name) for name in self.targets],
            "slots": self.slots,
        }
        return lease_service_pb2.RegisterWorkerRequest(**(defaults | self.fields | changes))

    async def register(self) -> lease_service_pb2.RegisterWorkerResponse:
        answer = await self.manager.leases.RegisterWorker(self.registration())
        self.session_id = answer.session_id
        return answer

    def poll(self, *, wait: float = 0, most: int = 4, sequence: int | None = None, timeout: float = 10) -> Any:
        if sequence is None:
            self.polls += 1
            sequence = self.polls
        request = lease_service_pb2.AcquireLeasesRequest(
            session_id=self.session_id, poll_sequence=sequence, max_leases=most, wait=span(wait)
        )
        return self.manager.leases.AcquireLeases(request, timeout=timeout)

    async def acquire(self, **options: Any) -> list[lease_service_pb2.Lease]:
        return list((await self.poll(**options)).leases)

    def beat(
        self,
        *held: lease_service_pb2.Lease,
        wait: float = 0,
        progress: job_pb2.Progress | None = None,
        state: Any = lease_service_pb2.WORKER_STATE_READY,
        sequence: int | None = None,
        held_back: Mapping[str, str] | None = None,
    ) -> Any:
        if sequence is None:
            self.beats += 1
            sequence = self.beats
        leases = [
            lease_service_pb2.HeldLease(lease_id=item.lease_id, attempt=item.attempt, progress=progress)
            for item in held
        ]
        request = lease_service_pb2.HeartbeatRequest(
            session_id=self.session_id,
            sequence=sequence,
            state=state,
            leases=leases,
            wait=span(wait),
            held_back=[
                lease_service_pb2.HeldBackTarget(target=target, reason=reason)
                for target, reason in (held_back or {}).items()
            ],
        )
        return self.manager.leases.Heartbeat(request, timeout=10)

    def report(self, *results: lease_service_pb2.OperationResult, want: int = 0) -> Any:
        next_poll = None
        if want:
            self.polls += 1
            next_poll = lease_service_pb2.NextPoll(poll_sequence=self.polls, max_leases=want)
        return self.manager.leases.ReportResults(
            lease_service_pb2.ReportResultsRequest(
                session_id=self.session_id, results=results, want_next=next_poll
            )
        )

    async def complete(self, *leases: lease_service_pb2.Lease) -> None:
        await self.report(*(result(item) for item in leases))


def result(lease: lease_service_pb2.Lease, **changes: Any) -> lease_service_pb2.OperationResult:
    defaults: dict[str, Any] = {
        "child_job_id": lease.child_job_id,
        "lease_id": lease.lease_id,
        "attempt": lease.attempt,
        "report_id": str(uuid.uuid4()),
        "outcome": job_pb2.OUTCOME_COMPLETED,
        "verdict": job_pb2.VERDICT_EFFECTIVE,
        "reason": "smaller",
        "before": {"bytes": 10.0},
        "after": {"bytes": 5.0},
    }
    return lease_service_pb2.OperationResult(**(defaults | changes))


def failed(lease: lease_service_pb2.Lease, *, retryable: bool = False, **changes: Any) -> Any:
    failure = job_pb2.Failure(
        reason="SQLITE_FULL",
        message="the disk is full",
        category=job_pb2.FAILURE_CATEGORY_DISK_FULL,
        retryable=retryable,
    )
    ended = {"outcome": job_pb2.OUTCOME_FAILED, "verdict": None, "failure": failure}
    return result(lease, **(ended | changes))


def settings_on(folder: Path, **changes: Any) -> Settings:
    defaults: dict[str, Any] = {
        "listen": "127.0.0.1:0",
        "store": f"sqlite:///{folder}/jobs.db",
        "synchronous": StoreSync.NORMAL,
        "timing": TIMING,
        "shutdown_grace": 500 * MILLISECOND,
    }
    return Settings(**(defaults | changes))


@asynccontextmanager
async def running(settings: Settings, *, by: Clock | None = None) -> AsyncIterator[RunningManager]:
    """Run a manager, whose own clock may be another than that of its store."""
    clock, ids = SystemClock(), SystemIds()
    store = open_store(
        settings.store, clock=clock, ids=ids, timing=settings.timing, synchronous=settings.synchronous
    )
    manager = Manager(settings, store, clock=by or clock, ids=ids)
    port = await manager.start()
    options = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        running_manager = RunningManager(manager, store, port, channel)
        try:
            yield running_manager
        finally:
            await running_manager.stop()


async def eventually(check: Any, *, seconds: float = 5) -> Any:
    """Ask until the answer is true; return it."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        if answer := await check():
            return answer
        assert asyncio.get_running_loop().time() < deadline, "it did not come true"
        await asyncio.sleep(0.01)
