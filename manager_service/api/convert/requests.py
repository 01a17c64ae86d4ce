"""What clients ask for, from the wire."""

from manager_service.api.convert import enums
from manager_service.api.convert.scalars import instant, span
from manager_service.domain.checks import MAX_TEXT, Violations, is_uuid
from manager_service.domain.errors import ChildJobNotFoundError, ParentJobNotFoundError
from manager_service.domain.model import RequestedOperation, Selection, Threshold
from manager_service.domain.ports import ChildJobFilter, ParentJobFilter
from manager_service.domain.request import JobRequest, RetryWish
from manager_service.domain.states import FailureMode, FailurePolicy
from overhaul.v1 import job_pb2, job_service_pb2


def parent_job_id(text: str) -> str:
    """Read the id of a parent job; what is no UUID names none."""
    if not is_uuid(text):
        raise ParentJobNotFoundError(text[:MAX_TEXT])
    return text


def child_job_id(text: str) -> str:
    """Read the id of a child job; what is no UUID names none."""
    if not is_uuid(text):
        raise ChildJobNotFoundError(text[:MAX_TEXT])
    return text


def job_request(request: job_service_pb2.CreateParentJobRequest) -> JobRequest:
    """Read the request for a parent job."""
    return JobRequest(
        request_id=request.request_id if request.HasField("request_id") else None,
        name=request.name,
        targets=tuple(request.targets),
        target_labels=dict(request.target_labels),
        operations=tuple(
            RequestedOperation(name=item.name, options=dict(item.options)) for item in request.operations
        ),
        scope=enums.SCOPE.read(request.scope, "scope"),
        retry=_retry_wish(request.retry_policy),
        failure_policy=_failure_policy(request.failure_policy),
        priority=request.priority,
        max_parallel=request.max_parallel,
        timeout=span(request, "timeout"),
        deadline=instant(request, "deadline"),
        labels=dict(request.labels),
        dry_run=request.dry_run,
        allow_unknown_targets=request.allow_unknown_targets,
        selection=Selection(include=tuple(request.selection.include), exclude=tuple(request.selection.exclude)),
        only_if=tuple(
            Threshold(condition=item.condition, operation=item.operation, target=item.target, object=item.object)
            for item in request.only_if
        ),
    )


def _retry_wish(policy: job_pb2.RetryPolicy) -> RetryWish:
    return RetryWish(
        max_failures=policy.max_failures if policy.HasField("max_failures") else None,
        max_losses=policy.max_losses if policy.HasField("max_losses") else None,
        initial_backoff=span(policy, "initial_backoff"),
        max_backoff=span(policy, "max_backoff"),
        backoff_multiplier=policy.backoff_multiplier if policy.HasField("backoff_multiplier") else None,
    )


def _failure_policy(policy: job_pb2.FailurePolicy) -> FailurePolicy:
    mode = enums.FAILURE_MODE.read(policy.mode, "failure_policy.mode")
    return FailurePolicy(mode=mode or FailureMode.CONTINUE, max_failed_children=policy.max_failed_children)


def parent_job_filter(request: job_service_pb2.ListParentJobsRequest) -> ParentJobFilter:
    """Read which parent jobs to list."""
    states = [enums.PARENT_JOB_STATE.read(value, "states") for value in request.states]
    found = Violations()
    if None in states:
        found.add("states", "UNSPECIFIED is not a state; leave it out for all")
    if request.order not in job_service_pb2.ParentJobOrder.values():
        found.add("order", f"{request.order} is not an order that this manager knows")
    found.labels("labels", request.labels)
    found.refuse()
    return ParentJobFilter(
        states=frozenset(state for state in states if state),
        labels=dict(request.labels),
        target=request.target,
        oldest_first=request.order == job_service_pb2.PARENT_JOB_ORDER_OLDEST_FIRST,
    )


def child_job_filter(request: job_service_pb2.ListChildJobsRequest) -> ChildJobFilter:
    """Read which children to list."""
    states = [enums.CHILD_JOB_STATE.read(value, "states") for value in request.states]
    found = Violations()
    if None in states:
        found.add("states", "UNSPECIFIED is not a state; leave it out for all")
    found.refuse()
    return ChildJobFilter(
        states=frozenset(state for state in states if state),
        target=request.target,
        operation=request.operation,
    )


def cancel_reason(request: job_service_pb2.CancelParentJobRequest) -> str:
    """Read why a parent job is cancelled."""
    found = Violations()
    found.text("reason", request.reason)
    found.refuse()
    return request.reason


def after_sequence(request: job_service_pb2.WatchParentJobRequest) -> int | None:
    """Read where a watch begins; unset is ``None``."""
    if not request.HasField("after_sequence"):
        return None
    found = Violations()
    if request.after_sequence < 0:
        found.add("after_sequence", "is negative; 0 asks for all events")
    found.refuse()
    return request.after_sequence


def log_place(request: job_service_pb2.ReadLogsRequest) -> tuple[int, int]:
    """Read the attempt and the offset at which a log is read."""
    found = Violations()
    if request.attempt < 0:
        found.add("attempt", "is negative; 0 asks for the newest")
    if request.offset < 0:
        found.add("offset", "is negative; 0 asks for all entries")
    found.refuse()
    return request.attempt, request.offset
