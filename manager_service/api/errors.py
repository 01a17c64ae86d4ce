"""The one place where errors become gRPC statuses with details that programs can read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from google.protobuf.any_pb2 import Any as PackedAny
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]  # ships no types
from grpc import StatusCode

from manager_service.domain import errors
from overhaul.v1 import error_reason_pb2

DOMAIN = "overhaul.v1"
_PREFIX = "ERROR_REASON_"
# A client refuses trailing metadata beyond 8 KiB in all, and the text travels twice.
_MESSAGE_BYTES = 768
_VALUE_BYTES = 256
_DETAIL_BYTES = 2_048
_SOON = 0.5


@dataclass(frozen=True, slots=True)
class Refusal:
    """How one class of errors is told: the code, the reason, and what else is known."""

    code: StatusCode
    reason: error_reason_pb2.ErrorReason.ValueType
    metadata: Callable[..., Mapping[str, str]] = field(default=lambda _: {})
    retry_after: Callable[..., float | None] = field(default=lambda _: None)


REFUSALS: Mapping[type[errors.ManagerError], Refusal] = {
    errors.InvalidRequestError: Refusal(
        StatusCode.INVALID_ARGUMENT, error_reason_pb2.ERROR_REASON_INVALID_REQUEST
    ),
    errors.RequestIdReusedError: Refusal(
        StatusCode.ALREADY_EXISTS,
        error_reason_pb2.ERROR_REASON_REQUEST_ID_REUSED,
        lambda e: {"request_id": e.request_id, "parent_job_id": e.parent_job_id},
    ),
    errors.TargetNotFoundError: Refusal(
        StatusCode.NOT_FOUND,
        error_reason_pb2.ERROR_REASON_TARGET_NOT_FOUND,
        lambda e: {"target": e.missing[0], "near": ", ".join(e.near.get(e.missing[0], ()))},
    ),
    errors.ParentJobNotFoundError: Refusal(
        StatusCode.NOT_FOUND,
        error_reason_pb2.ERROR_REASON_PARENT_JOB_NOT_FOUND,
        lambda e: {"parent_job_id": e.parent_job_id},
    ),
    errors.ChildJobNotFoundError: Refusal(
        StatusCode.NOT_FOUND,
        error_reason_pb2.ERROR_REASON_CHILD_JOB_NOT_FOUND,
        lambda e: {"child_job_id": e.child_job_id},
    ),
    errors.WorkerNotFoundError: Refusal(
        StatusCode.NOT_FOUND,
        error_reason_pb2.ERROR_REASON_WORKER_NOT_FOUND,
        lambda e: {"worker_name": e.worker_name},
    ),
    errors.TargetUnknownError: Refusal(
        StatusCode.NOT_FOUND, error_reason_pb2.ERROR_REASON_TARGET_UNKNOWN, lambda e: {"target": e.target}
    ),
    errors.TargetInUseError: Refusal(
        StatusCode.FAILED_PRECONDITION,
        error_reason_pb2.ERROR_REASON_TARGET_IN_USE,
        lambda e: {"target": e.target, "why": e.why},
    ),
    errors.WrongStateError: Refusal(
        StatusCode.FAILED_PRECONDITION,
        error_reason_pb2.ERROR_REASON_WRONG_STATE,
        lambda e: {"parent_job_id": e.parent_job_id, "state": e.state},
    ),
    errors.SessionUnknownError: Refusal(
        StatusCode.FAILED_PRECONDITION,
        error_reason_pb2.ERROR_REASON_SESSION_UNKNOWN,
        lambda e: {"session_id": e.session_id},
    ),
    errors.SessionSupersededError: Refusal(
        StatusCode.FAILED_PRECONDITION,
        error_reason_pb2.ERROR_REASON_SESSION_SUPERSEDED,
        lambda e: {"worker_name": e.worker_name},
    ),
    errors.TargetIdentityMismatchError: Refusal(
        StatusCode.FAILED_PRECONDITION,
        error_reason_pb2.ERROR_REASON_TARGET_IDENTITY_MISMATCH,
        lambda e: {"target": e.target, "known": e.known, "given": e.given},
    ),
    errors.ProtocolVersionUnsupportedError: Refusal(
        StatusCode.FAILED_PRECONDITION,
        error_reason_pb2.ERROR_REASON_PROTOCOL_VERSION_UNSUPPORTED,
        lambda e: {
            "given": str(e.given),
            "supported": str(e.taken.newest),
            "oldest_supported": str(e.taken.oldest),
        },
    ),
    errors.LogGapError: Refusal(
        StatusCode.FAILED_PRECONDITION,
        error_reason_pb2.ERROR_REASON_LOG_GAP,
        lambda e: {"next_offset": str(e.next_offset)},
    ),
    errors.OverloadedError: Refusal(
        StatusCode.RESOURCE_EXHAUSTED,
        error_reason_pb2.ERROR_REASON_OVERLOADED,
        retry_after=lambda e: float(e.retry_after),
    ),
    errors.StoreUnavailableError: Refusal(
        StatusCode.UNAVAILABLE, error_reason_pb2.ERROR_REASON_STORE_UNAVAILABLE, retry_after=lambda _: _SOON
    ),
    # The next two end the start of a manager; a call never meets them.
    errors.StoreInUseError: Refusal(
        StatusCode.UNAVAILABLE, error_reason_pb2.ERROR_REASON_STORE_UNAVAILABLE, retry_after=lambda _: _SOON
    ),
    errors.InvalidStoreError: Refusal(StatusCode.UNAVAILABLE, error_reason_pb2.ERROR_REASON_STORE_UNAVAILABLE),
    errors.ShuttingDownError: Refusal(
        StatusCode.UNAVAILABLE, error_reason_pb2.ERROR_REASON_SHUTTING_DOWN, retry_after=lambda _: _SOON
    ),
}


@dataclass(frozen=True, slots=True)
class Status:
    """A gRPC status with its details, as ``abort_with_status`` takes it."""

    code: StatusCode
    details: str
    trailing_metadata: tuple[tuple[str, str | bytes], ...]


def refused(error: errors.ManagerError) -> Status:
    """Make the status of an error that was raised on purpose."""
    # An edge below tells more by a class of its own than callers are told.
    refusal = next(REFUSALS[kind] for kind in type(error).__mro__ if kind in REFUSALS)
    details = [_error_info(refusal.reason, refusal.metadata(error))]
    if isinstance(error, errors.InvalidRequestError):
        details.append(_bad_request(error))
    wait = refusal.retry_after(error)
    if wait is not None:
        details.append(error_details_pb2.RetryInfo(retry_delay=_delay(wait)))
    return _status(refusal.code, str(error), details)


def defect(incident: str) -> Status:
    """Make the status of an error that nobody expected: the caller learns where to look, and no more."""
    text = f"the manager has a defect; its log tells more under incident {incident}"
    info = _error_info(error_reason_pb2.ERROR_REASON_INTERNAL, {"incident": incident})
    return _status(StatusCode.INTERNAL, text, [info])


def _status(code: StatusCode, text: str, details: list[Message]) -> Status:
    text = _cut(text, _MESSAGE_BYTES)
    packed = [PackedAny() for _ in details]
    for place, detail in zip(packed, details, strict=True):
        place.Pack(detail)
    number, _ = code.value
    body = status_pb2.Status(code=number, message=text, details=packed)
    return Status(code, text, (("grpc-status-details-bin", body.SerializeToString()),))


def _error_info(reason: error_reason_pb2.ErrorReason.ValueType, metadata: Mapping[str, str]) -> Message:
    info: Message = error_details_pb2.ErrorInfo(
        domain=DOMAIN,
        reason=error_reason_pb2.ErrorReason.Name(reason).removeprefix(_PREFIX),
        metadata={key: _cut(value, _VALUE_BYTES) for key, value in metadata.items() if value},
    )
    return info


def _bad_request(error: errors.InvalidRequestError) -> Message:
    """List the violations, as many as fit."""
    request = error_details_pb2.BadRequest()
    room = _DETAIL_BYTES
    for index, violation in enumerate(error.violations):
        field_text, description = _cut(violation.field, _VALUE_BYTES), _cut(violation.description, _VALUE_BYTES)
        room -= len(field_text.encode()) + len(description.encode()) + 8
        if room < 0:
            request.field_violations.add(field="request", description=f"{len(error.violations) - index} more")
            break
        request.field_violations.add(field=field_text, description=description)
    result: Message = request
    return result


def _cut(text: str, most: int) -> str:
    data = text.encode()
    return text if len(data) <= most else f"{data[: most - 3].decode(errors='ignore')}…"


def _delay(seconds: float) -> Duration:
    delay = Duration()
    delay.FromMilliseconds(round(seconds * 1_000))
    return delay
