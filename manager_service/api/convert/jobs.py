"""Parent jobs, child jobs and their attempts, for the wire."""

from dataclasses import asdict

from manager_service.api.convert import enums
from manager_service.api.convert.scalars import duration, timestamp
from manager_service.api.convert.totals import lock_waiters, totals
from manager_service.domain.model import (
    CHILD_JOB_TYPE,
    PARENT_JOB_TYPE,
    Attempt,
    ChildJob,
    Failure,
    LogEntry,
    LogPage,
    ParentJob,
    PlannedChild,
    Progress,
    RetryPolicy,
    Selection,
    Span,
    StaleReport,
)
from manager_service.domain.states import ChildJobState, Counts, FailurePolicy
from manager_service.orchestrator import Preview
from overhaul.v1 import job_pb2, job_service_pb2


def counts(value: Counts) -> job_pb2.ChildJobCounts:
    """Convert the counts of children."""
    return job_pb2.ChildJobCounts(total=value.total, **asdict(value))


def parent_job(job: ParentJob) -> job_pb2.ParentJob:
    """Convert a parent job."""
    spec = job.spec
    return job_pb2.ParentJob(
        id=job.id,
        type=PARENT_JOB_TYPE,
        name=spec.name,
        state=enums.PARENT_JOB_STATE.out(job.state),
        counts=counts(job.counts),
        sequence=job.sequence,
        paused=job.paused,
        cancel_requested=job.cancel_requested,
        operations=[job_pb2.OperationSpec(name=item.name, options=item.options) for item in spec.operations],
        scope=enums.SCOPE.out(spec.scope),
        retry_policy=_retry_policy(spec.retry_policy),
        failure_policy=_failure_policy(spec.failure_policy),
        priority=spec.priority,
        max_parallel=spec.max_parallel,
        timeout=duration(spec.timeout),
        deadline=timestamp(spec.deadline),
        labels=spec.labels,
        round=job.round,
        create_time=timestamp(job.create_time),
        start_time=timestamp(job.start_time),
        end_time=timestamp(job.end_time),
        selection=selection(spec.selection) if spec.selection != Selection() else None,
        only_if=[job_pb2.Threshold(**asdict(item)) for item in spec.only_if],
        dry_run=spec.dry_run,
        totals=totals(job.totals),
    )


def selection(value: Selection) -> job_pb2.Selection:
    """Convert which objects are meant."""
    return job_pb2.Selection(include=value.include, exclude=value.exclude)


def _retry_policy(policy: RetryPolicy) -> job_pb2.RetryPolicy:
    return job_pb2.RetryPolicy(
        max_failures=policy.max_failures,
        max_losses=policy.max_losses,
        initial_backoff=duration(policy.initial_backoff),
        max_backoff=duration(policy.max_backoff),
        backoff_multiplier=policy.backoff_multiplier,
    )


def _failure_policy(policy: FailurePolicy) -> job_pb2.FailurePolicy:
    return job_pb2.FailurePolicy(
        mode=enums.FAILURE_MODE.out(policy.mode), max_failed_children=policy.max_failed_children
    )


def created(made: ParentJob | Preview) -> job_service_pb2.CreateParentJobResponse:
    """Convert the parent job that was made, or what a dry run would make."""
    if isinstance(made, ParentJob):
        return job_service_pb2.CreateParentJobResponse(parent_job=parent_job(made))
    return job_service_pb2.CreateParentJobResponse(
        parent_job=parent_job(made.parent_job),
        child_jobs=[_planned_child(position, child) for position, child in enumerate(made.children)],
    )


def child_job(job: ChildJob) -> job_pb2.ChildJob:
    """Convert a child job."""
    return job_pb2.ChildJob(
        id=job.id,
        parent_job_id=job.parent_job_id,
        type=CHILD_JOB_TYPE,
        operation=job.operation,
        options=job.options,
        target=job.target,
        object=job.object,
        state=enums.CHILD_JOB_STATE.out(job.state),
        verdict=enums.VERDICT.out(job.verdict),
        reason=job.reason,
        attempts=job.attempts,
        failures=job.failures,
        losses=job.losses,
        failure=failure(job.failure),
        before=job.before,
        after=job.after,
        version=job.version,
        position=job.position,
        wait_reason=enums.WAIT_REASON.out(job.wait_reason),
        wait_detail=job.wait_detail,
        available_time=timestamp(job.available_time),
        worker_name=job.worker_name,
        progress=progress(job.progress, job.remaining),
        create_time=timestamp(job.create_time),
        start_time=timestamp(job.start_time),
        end_time=timestamp(job.end_time),
        lock_waiters=lock_waiters(job.waiters),
        expected_duration=duration(job.expected),
    )


def _planned_child(position: int, child: PlannedChild) -> job_pb2.ChildJob:
    return job_pb2.ChildJob(
        type=CHILD_JOB_TYPE,
        operation=child.operation,
        options=child.options,
        target=child.target,
        object=child.object,
        state=enums.CHILD_JOB_STATE.out(ChildJobState.PENDING),
        position=position,
        expected_duration=duration(child.expected),
    )


def failure(value: Failure | None) -> job_pb2.Failure | None:
    """Convert a failure."""
    if value is None:
        return None
    return job_pb2.Failure(
        reason=value.reason,
        message=value.message,
        category=enums.FAILURE_CATEGORY.out(value.category),
        retryable=value.retryable,
    )


def progress(value: Progress | None, remaining: Span | None) -> job_pb2.Progress | None:
    """Convert a progress, with how long it still takes."""
    if value is None:
        return None
    return job_pb2.Progress(
        phase=value.phase, done=value.done, total=value.total, unit=value.unit, remaining=duration(remaining)
    )


def attempt(value: Attempt) -> job_pb2.Attempt:
    """Convert an attempt."""
    return job_pb2.Attempt(
        attempt=value.attempt,
        worker_name=value.worker_name,
        lease_id=value.lease_id,
        outcome=enums.OUTCOME.out(value.outcome),
        failure=failure(value.failure),
        reason=value.reason,
        create_time=timestamp(value.create_time),
        start_time=timestamp(value.start_time),
        end_time=timestamp(value.end_time),
        stale_reports=[_stale_report(item) for item in value.stale_reports],
    )


def _stale_report(value: StaleReport) -> job_pb2.StaleReport:
    return job_pb2.StaleReport(
        report_id=value.report_id,
        outcome=enums.OUTCOME.out(value.outcome),
        reason=value.reason,
        create_time=timestamp(value.create_time),
    )


def log_page(page: LogPage) -> job_service_pb2.ReadLogsResponse:
    """Convert some entries of a log."""
    return job_service_pb2.ReadLogsResponse(
        attempt=page.attempt, offset=page.offset, entries=[_log_entry(entry) for entry in page.entries]
    )


def _log_entry(value: LogEntry) -> job_pb2.LogEntry:
    return job_pb2.LogEntry(time=timestamp(value.time), level=value.level, message=value.message)
