"""What workers say and are told, between the wire and the domain."""

from manager_service.api.convert import enums, inspections
from manager_service.api.convert.scalars import duration, instant, span
from manager_service.domain.errors import FieldViolation, InvalidRequestError
from manager_service.domain.fleet import Timing
from manager_service.domain.leases import (
    Heartbeat,
    HeartbeatAnswer,
    HeldLease,
    Lease,
    LogBatch,
    Poll,
    Report,
    ReportAnswer,
)
from manager_service.domain.model import Failure, LogEntry, Progress
from manager_service.domain.states import FailureCategory
from manager_service.domain.totals import LockWaiter
from overhaul.v1 import job_pb2, lease_service_pb2

_LONGEST_PHASE = 64
_LONGEST_REASON = 200


def poll(request: lease_service_pb2.AcquireLeasesRequest) -> Poll:
    """Read a poll."""
    return Poll(sequence=request.poll_sequence, max_leases=request.max_leases)


def next_poll(request: lease_service_pb2.ReportResultsRequest) -> Poll | None:
    """Read the poll that comes with a report; one for no leases is none."""
    if not request.HasField("want_next") or request.want_next.max_leases == 0:
        return None
    return Poll(sequence=request.want_next.poll_sequence, max_leases=request.want_next.max_leases)


def lease(value: Lease, timing: Timing) -> lease_service_pb2.Lease:
    """Convert a granted lease."""
    return lease_service_pb2.Lease(
        lease_id=value.lease_id,
        attempt=value.attempt,
        child_job_id=value.child_job_id,
        parent_job_id=value.parent_job_id,
        operation=value.operation,
        options=value.options,
        target=value.target,
        object=value.object,
        lease_duration=duration(timing.lease_duration),
        accept_within=duration(timing.accept_within),
        timeout=duration(value.timeout),
        inspection=inspections.inspection(value.inspection) if value.inspection is not None else None,
    )


def heartbeat(request: lease_service_pb2.HeartbeatRequest) -> Heartbeat:
    """Read a heartbeat."""
    return Heartbeat(
        session_id=request.session_id,
        sequence=request.sequence,
        draining=request.state == lease_service_pb2.WORKER_STATE_DRAINING,
        leases=tuple(_held_lease(item) for item in request.leases),
        held_back={item.target: _reason(item.reason) for item in request.held_back},
    )


def _held_lease(item: lease_service_pb2.HeldLease) -> HeldLease:
    return HeldLease(
        lease_id=item.lease_id,
        attempt=item.attempt,
        progress=_progress(item.progress) if item.HasField("progress") else None,
    )


def _reason(text: str) -> str:
    """Read why a target is held back; a heartbeat is not refused for it, so it is mended."""
    return "".join(filter(str.isprintable, text[:_LONGEST_REASON])).strip() or "no reason was given"


def _progress(value: job_pb2.Progress) -> Progress:
    """Read a progress; it is for people, so what is too long is cut instead of refused."""
    return Progress(
        phase=value.phase[:_LONGEST_PHASE],
        done=value.done if value.HasField("done") else None,
        total=value.total if value.HasField("total") else None,
        unit=value.unit[:_LONGEST_PHASE],
    )


def heartbeat_response(
    request: lease_service_pb2.HeartbeatRequest, answer: HeartbeatAnswer, timing: Timing
) -> lease_service_pb2.HeartbeatResponse:
    """Convert the answer to a heartbeat, lease by lease in the order of the request."""
    return lease_service_pb2.HeartbeatResponse(
        leases=[
            lease_service_pb2.LeaseStatus(lease_id=held.lease_id, directive=enums.LEASE_DIRECTIVE.out(directive))
            for held, directive in zip(request.leases, answer.leases, strict=True)
        ],
        directive=enums.WORKER_DIRECTIVE.out(answer.directive),
        lease_duration=duration(timing.lease_duration),
    )


def report(item: lease_service_pb2.OperationResult, path: str) -> Report:
    """Read how one attempt ended.

    Raises:
        InvalidRequestError: the outcome is missing, or an enum has a value that is not known here.
    """
    outcome = enums.OUTCOME.read(item.outcome, f"{path}.outcome")
    if outcome is None:
        raise InvalidRequestError([FieldViolation(f"{path}.outcome", "is required")])
    return Report(
        child_job_id=item.child_job_id,
        lease_id=item.lease_id,
        attempt=item.attempt,
        report_id=item.report_id,
        outcome=outcome,
        verdict=enums.VERDICT.read(item.verdict, f"{path}.verdict"),
        reason=item.reason,
        before=dict(item.before),
        after=dict(item.after),
        failure=_failure(item.failure, f"{path}.failure") if item.HasField("failure") else None,
        released=enums.RELEASE_REASON.read(item.released, f"{path}.released"),
        retry_after=span(item, "retry_after"),
        waiters=tuple(_waiter(waiter) for waiter in item.lock_waiters),
        inspection=inspections.found(item.inspection, f"{path}.inspection")
        if item.HasField("inspection")
        else None,
    )


def _waiter(value: job_pb2.LockWaiter) -> LockWaiter:
    return LockWaiter(
        application=value.application,
        user=value.user,
        object=value.object,
        lock_mode=value.lock_mode,
        seconds=value.seconds,
        sessions=value.sessions,
    )


def _failure(value: job_pb2.Failure, path: str) -> Failure:
    """Read a failure; one that is not classified counts as a defect."""
    return Failure(
        reason=value.reason,
        message=value.message,
        category=enums.FAILURE_CATEGORY.read(value.category, f"{path}.category") or FailureCategory.INTERNAL,
        retryable=value.retryable,
    )


def reports(request: lease_service_pb2.ReportResultsRequest) -> tuple[Report, ...]:
    """Read the results of a report."""
    return tuple(report(item, f"results[{index}]") for index, item in enumerate(request.results))


def report_response(
    request: lease_service_pb2.ReportResultsRequest, answer: ReportAnswer, timing: Timing
) -> lease_service_pb2.ReportResultsResponse:
    """Convert the answer to a report, result by result in the order of the request."""
    return lease_service_pb2.ReportResultsResponse(
        verdicts=[
            lease_service_pb2.ReportVerdict(report_id=result.report_id, status=enums.REPORT_STATUS.out(status))
            for result, status in zip(request.results, answer.statuses, strict=True)
        ],
        leases=[lease(item, timing) for item in answer.leases],
    )


def log_batch(request: lease_service_pb2.AppendLogsRequest) -> LogBatch:
    """Read lines for a log; a line without a time has the time 0."""
    return LogBatch(
        session_id=request.session_id,
        child_job_id=request.child_job_id,
        lease_id=request.lease_id,
        attempt=request.attempt,
        offset=request.offset,
        entries=tuple(
            LogEntry(time=instant(item, "time") or 0, level=item.level, message=item.message)
            for item in request.entries
        ),
    )
