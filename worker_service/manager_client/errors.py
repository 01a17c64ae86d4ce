from typing import cast

import grpc
from google.rpc import error_details_pb2  # type: ignore[import-untyped]  # it ships stubs, no py.typed
from grpc_status import rpc_status

from worker_service.domain.errors import (
    LogGapError,
    ManagerError,
    ManagerUnavailableError,
    ProtocolVersionRefusedError,
    RegistrationRefusedError,
    RequestRefusedError,
    SessionSupersededError,
    SessionUnknownError,
)

DOMAIN = "overhaul.v1"
_TRANSIENT = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.ABORTED,
        # Nobody here cancelled it: a manager that is flooded drops calls this way.
        grpc.StatusCode.CANCELLED,
    }
)
_BY_REASON: dict[str, type[ManagerError]] = {
    "SESSION_UNKNOWN": SessionUnknownError,
    "SESSION_SUPERSEDED": SessionSupersededError,
    "TARGET_IDENTITY_MISMATCH": RegistrationRefusedError,
}


def translate(error: grpc.aio.AioRpcError) -> ManagerError:
    """Return what the end of a call means to this worker."""
    info = _info(error)
    message = error.details() or error.code().name
    if info is not None and info.reason == "LOG_GAP":
        return LogGapError(message, _number(info, "next_offset"))
    if info is not None and info.reason == "PROTOCOL_VERSION_UNSUPPORTED":
        newest = _number(info, "supported")
        # Managers that took one version only named that one.
        return ProtocolVersionRefusedError(
            message, oldest=_number(info, "oldest_supported") or newest, newest=newest
        )
    if info is not None and info.reason in _BY_REASON:
        return _BY_REASON[info.reason](message)
    if error.code() in _TRANSIENT and not _is_too_large(error):
        return ManagerUnavailableError(f"{error.code().name}: {message}")
    return RequestRefusedError(f"{error.code().name}: {message}")


def _is_too_large(error: grpc.aio.AioRpcError) -> bool:
    """Tell whether gRPC refused to send or to take a message for its size, which another try does not change."""
    return error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in (error.details() or "")


def _number(info: error_details_pb2.ErrorInfo, key: str) -> int:
    """Return a number that a refusal names, 0 where it does not."""
    return int(info.metadata.get(key, "0") or 0)


def _info(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo | None:
    """Return the machine-readable reason, ``None`` where the server gave none."""
    # grpc_status asks the error for its code, details and trailing metadata only, which aio's has as well.
    try:
        status = rpc_status.from_call(cast("grpc.Call", error))
    except ValueError:
        return None
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Is(info.DESCRIPTOR) and detail.Unpack(info) and info.domain == DOMAIN:
            return info
    return None
