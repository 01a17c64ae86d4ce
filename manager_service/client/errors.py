"""What the client raises. Every message is a sentence for the person who has to act on it."""

from collections.abc import Mapping
from dataclasses import dataclass

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]  # ships no types


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldViolation:
    """A field of the request that the manager refused, and why."""

    field: str
    description: str


class ClientError(Exception):
    """The root of every error of the client: a call that did not end with OK.

    ``code`` is the gRPC status, ``reason`` the name of an ``overhaul.v1.ErrorReason`` without its prefix
    (empty when the answer did not come from a manager), ``metadata`` what was refused, ``field_violations``
    the fields that were wrong.
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        field_violations: tuple[FieldViolation, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.field_violations = field_violations


class ManagerUnreachableError(ClientError):
    """No manager answered at the address, also not after the retries: it is down, or the address is wrong."""


class InvalidAddressError(ValueError):
    """The manager's address cannot be read."""


DETAILS_KEY = "grpc-status-details-bin"
UNREACHABLE = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})


def client_error(error: grpc.aio.AioRpcError, address: str) -> ClientError:
    """Translate a gRPC error; details that cannot be read count as absent."""
    info, violations = _details(error)
    code, said = error.code(), error.details() or error.code().name
    if code in UNREACHABLE and info.reason in {"", "SHUTTING_DOWN"}:
        return ManagerUnreachableError(
            # gRPC says it all at length; the system's own words come last.
            f"no manager answers at {address} ({said.rsplit(': ', 1)[-1].rstrip(']')})",
            code=code,
            reason=info.reason,
            metadata=info.metadata,
        )
    return ClientError(said, code=code, reason=info.reason, metadata=info.metadata, field_violations=violations)


def _details(
    error: grpc.aio.AioRpcError,
) -> tuple[error_details_pb2.ErrorInfo, tuple[FieldViolation, ...]]:
    info, violations = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in _packed(error):
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            detail.Unpack(violations)
    return info, tuple(
        FieldViolation(field=violation.field, description=violation.description)
        for violation in violations.field_violations
    )


def _packed(error: grpc.aio.AioRpcError) -> list[any_pb2.Any]:
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                return list(status_pb2.Status.FromString(value).details)
            except DecodeError:
                return []
    return []
