"""Between the wire's messages and the domain's values; total over every enum."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from overhaul.v1 import job_pb2, lease_service_pb2
from worker_service.domain.lock_waits import TOLD
from worker_service.domain.manager import (
    HeartbeatAnswer,
    HeldLease,
    Lease,
    LeaseDirective,
    LogLine,
    Registration,
    Report,
    ReportAnswer,
    ReportStatus,
    Session,
    WorkerDirective,
    WorkerState,
)
from worker_service.domain.operation import Operation, OperationSpec, OptionType, Progress
from worker_service.domain.outcome import Failure, FailureCategory, Outcome, ReleaseReason, Result, Verdict
from worker_service.domain.target import Target, TargetDescription
from worker_service.manager_client.inspections import inspection, inspection_result, locks

OPTION_TYPES = {
    OptionType.BOOLEAN: lease_service_pb2.OPTION_TYPE_BOOLEAN,
    OptionType.INTEGER: lease_service_pb2.OPTION_TYPE_INTEGER,
    OptionType.STRING: lease_service_pb2.OPTION_TYPE_STRING,
}
STATES = {
    WorkerState.READY: lease_service_pb2.WORKER_STATE_READY,
    WorkerState.DRAINING: lease_service_pb2.WORKER_STATE_DRAINING,
}
OUTCOMES = {
    Outcome.COMPLETED: job_pb2.OUTCOME_COMPLETED,
    Outcome.FAILED: job_pb2.OUTCOME_FAILED,
    Outcome.CANCELLED: job_pb2.OUTCOME_CANCELLED,
    Outcome.RELEASED: job_pb2.OUTCOME_RELEASED,
    Outcome.SKIPPED: job_pb2.OUTCOME_SKIPPED,
}
VERDICTS = {
    Verdict.EFFECTIVE: job_pb2.VERDICT_EFFECTIVE,
    Verdict.PARTIALLY_EFFECTIVE: job_pb2.VERDICT_PARTIALLY_EFFECTIVE,
    Verdict.NO_EFFECT: job_pb2.VERDICT_NO_EFFECT,
    Verdict.UNKNOWN: job_pb2.VERDICT_UNKNOWN,
}
CATEGORIES = {
    FailureCategory.LOCKED: job_pb2.FAILURE_CATEGORY_LOCKED,
    FailureCategory.DISK_FULL: job_pb2.FAILURE_CATEGORY_DISK_FULL,
    FailureCategory.PERMISSION: job_pb2.FAILURE_CATEGORY_PERMISSION,
    FailureCategory.CORRUPT: job_pb2.FAILURE_CATEGORY_CORRUPT,
    FailureCategory.NOT_A_DATABASE: job_pb2.FAILURE_CATEGORY_NOT_A_DATABASE,
    FailureCategory.SCHEMA: job_pb2.FAILURE_CATEGORY_SCHEMA,
    FailureCategory.IO: job_pb2.FAILURE_CATEGORY_IO,
    FailureCategory.TIMEOUT: job_pb2.FAILURE_CATEGORY_TIMEOUT,
    FailureCategory.UNAVAILABLE: job_pb2.FAILURE_CATEGORY_UNAVAILABLE,
    FailureCategory.INVALID: job_pb2.FAILURE_CATEGORY_INVALID,
    FailureCategory.INTERNAL: job_pb2.FAILURE_CATEGORY_INTERNAL,
}
RELEASES = {
    ReleaseReason.DRAIN: lease_service_pb2.RELEASE_REASON_DRAIN,
    ReleaseReason.TARGET_BUSY: lease_service_pb2.RELEASE_REASON_TARGET_BUSY,
    ReleaseReason.UNSUITABLE: lease_service_pb2.RELEASE_REASON_UNSUITABLE,
}
LEASE_DIRECTIVES = {
    # What this worker does not know yet must not stop an operation; the next beat may say it otherwise.
    lease_service_pb2.LEASE_DIRECTIVE_UNSPECIFIED: LeaseDirective.CONTINUE,
    lease_service_pb2.LEASE_DIRECTIVE_CONTINUE: LeaseDirective.CONTINUE,
    lease_service_pb2.LEASE_DIRECTIVE_CANCEL: LeaseDirective.CANCEL,
    lease_service_pb2.LEASE_DIRECTIVE_LOST: LeaseDirective.LOST,
}
WORKER_DIRECTIVES = {
    lease_service_pb2.WORKER_DIRECTIVE_UNSPECIFIED: WorkerDirective.NONE,
    lease_service_pb2.WORKER_DIRECTIVE_NONE: WorkerDirective.NONE,
    lease_service_pb2.WORKER_DIRECTIVE_DRAIN: WorkerDirective.DRAIN,
    lease_service_pb2.WORKER_DIRECTIVE_TERMINATE: WorkerDirective.TERMINATE,
}
REPORT_STATUSES = {
    lease_service_pb2.REPORT_STATUS_UNSPECIFIED: ReportStatus.RECORDED,
    lease_service_pb2.REPORT_STATUS_RECORDED: ReportStatus.RECORDED,
    lease_service_pb2.REPORT_STATUS_ALREADY_RECORDED: ReportStatus.ALREADY_RECORDED,
    lease_service_pb2.REPORT_STATUS_STALE: ReportStatus.STALE,
}


def duration(span: timedelta) -> Duration:
    """Return the wire's form of a span."""
    message = Duration()
    message.FromTimedelta(span)
    return message


def register_request(registration: Registration, version: int) -> lease_service_pb2.RegisterWorkerRequest:
    """Return the request that opens a session."""
    return lease_service_pb2.RegisterWorkerRequest(
        worker_name=registration.worker_name,
        instance_id=registration.instance_id,
        protocol_version=version,
        build=registration.build,
        host=registration.host,
        pid=registration.pid,
        labels=registration.labels,
        targets=[_target(target, description) for target, description in registration.targets],
        slots=registration.slots,
    )


def _target(target: Target, description: TargetDescription) -> lease_service_pb2.ServedTarget:
    return lease_service_pb2.ServedTarget(
        name=target.name,
        engine=target.engine,
        engine_version=description.engine_version,
        identity=description.identity,
        labels=target.labels,
        max_parallel=target.max_parallel,
        operations=[_offered(spec) for spec in description.operations],
    )


def _offered(spec: OperationSpec) -> lease_service_pb2.OfferedOperation:
    return lease_service_pb2.OfferedOperation(
        name=spec.name,
        description=spec.description,
        options=[
            lease_service_pb2.OptionSpec(
                name=option.name,
                type=OPTION_TYPES[option.type],
                description=option.description,
                minimum=option.minimum,
                maximum=option.maximum,
                values=option.values,
            )
            for option in spec.options
        ],
        locks=locks(spec.locks),
    )


def session(response: lease_service_pb2.RegisterWorkerResponse) -> Session:
    """Return the session that was opened."""
    return Session(
        session_id=response.session_id,
        heartbeat_interval=response.heartbeat_interval.ToTimedelta(),
        lease_duration=response.lease_duration.ToTimedelta(),
        poll_window=response.poll_window.ToTimedelta(),
    )


def leases(messages: Iterable[lease_service_pb2.Lease]) -> tuple[Lease, ...]:
    """Return the leases that were granted."""
    return tuple(_lease(message) for message in messages)


def _lease(message: lease_service_pb2.Lease) -> Lease:
    return Lease(
        lease_id=message.lease_id,
        operation=Operation(
            name=message.operation,
            target=message.target,
            object=message.object if message.HasField("object") else None,
            options=dict(message.options),
            timeout=message.timeout.ToTimedelta() if message.HasField("timeout") else None,
            child_job_id=message.child_job_id,
            parent_job_id=message.parent_job_id,
            attempt=message.attempt,
            inspection=inspection(message.inspection) if message.HasField("inspection") else None,
        ),
        lease_duration=message.lease_duration.ToTimedelta(),
        accept_within=message.accept_within.ToTimedelta(),
    )


def held(lease: HeldLease) -> lease_service_pb2.HeldLease:
    """Return a lease as a heartbeat lists it."""
    progress = _progress(lease.progress) if lease.progress is not None else None
    return lease_service_pb2.HeldLease(lease_id=lease.lease_id, attempt=lease.attempt, progress=progress)


def held_back(reasons: Mapping[str, str]) -> list[lease_service_pb2.HeldBackTarget]:
    """Return why targets are held back, as a heartbeat tells it."""
    return [lease_service_pb2.HeldBackTarget(target=name, reason=reason) for name, reason in reasons.items()]


def _progress(progress: Progress) -> job_pb2.Progress:
    return job_pb2.Progress(phase=progress.phase, done=progress.done, total=progress.total, unit=progress.unit)


def heartbeat_answer(response: lease_service_pb2.HeartbeatResponse) -> HeartbeatAnswer:
    """Return what the manager wants done; what an older worker does not know reads as go on."""
    return HeartbeatAnswer(
        directives={
            status.lease_id: LEASE_DIRECTIVES.get(status.directive, LeaseDirective.CONTINUE)
            for status in response.leases
        },
        directive=WORKER_DIRECTIVES.get(response.directive, WorkerDirective.NONE),
        lease_duration=response.lease_duration.ToTimedelta(),
    )


def operation_result(report: Report) -> lease_service_pb2.OperationResult:
    """Return how an attempt ended, as it is reported."""
    result = report.result
    message = lease_service_pb2.OperationResult(
        child_job_id=report.child_job_id,
        lease_id=report.lease_id,
        attempt=report.attempt,
        report_id=report.report_id,
        outcome=OUTCOMES[result.outcome],
        reason=result.reason,
        before=result.before,
        after=result.after,
        failure=_failure(result.failure) if result.failure else None,
        retry_after=duration(result.retry_after) if result.retry_after else None,
    )
    message.lock_waiters.extend(job_pb2.LockWaiter(**asdict(waiter)) for waiter in result.waiters[:TOLD])
    if result.inspection is not None:
        message.inspection.CopyFrom(inspection_result(result.inspection))
    _set_kind(message, result)
    return message


def _set_kind(message: lease_service_pb2.OperationResult, result: Result) -> None:
    if result.verdict is not None and result.outcome is Outcome.COMPLETED:
        message.verdict = VERDICTS[result.verdict]
    if result.release is not None:
        message.released = RELEASES[result.release]


def _failure(failure: Failure) -> job_pb2.Failure:
    return job_pb2.Failure(
        reason=failure.reason,
        message=failure.message,
        category=CATEGORIES[failure.category],
        retryable=failure.retryable,
    )


def report_answer(response: lease_service_pb2.ReportResultsResponse) -> ReportAnswer:
    """Return what became of the reports, and the next leases."""
    return ReportAnswer(
        statuses={
            verdict.report_id: REPORT_STATUSES.get(verdict.status, ReportStatus.RECORDED)
            for verdict in response.verdicts
        },
        leases=leases(response.leases),
    )


def log_entry(line: LogLine) -> job_pb2.LogEntry:
    """Return a log line as it is stored."""
    time = Timestamp()
    time.FromDatetime(line.time)
    return job_pb2.LogEntry(time=time, level=line.level, message=line.message)
