"""Bytes on the wire: every method of the contract, called with whatever a test likes, and what counts as clean."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from overhaul.v1 import fleet_service_pb2, job_service_pb2, lease_service_pb2
from tests.contract.manager_harness import Refusal, refusal_of

SECONDS = 60.0
# What a stream of a job that has not ended is read for.
STREAM_SECONDS = 0.3
PAGES_BYTES = 64 * 1024 * 1024

CODES = {
    "INVALID_REQUEST": grpc.StatusCode.INVALID_ARGUMENT,
    "REQUEST_ID_REUSED": grpc.StatusCode.ALREADY_EXISTS,
    "TARGET_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "PARENT_JOB_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "CHILD_JOB_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "WORKER_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "TARGET_UNKNOWN": grpc.StatusCode.NOT_FOUND,
    "WRONG_STATE": grpc.StatusCode.FAILED_PRECONDITION,
    "SESSION_UNKNOWN": grpc.StatusCode.FAILED_PRECONDITION,
    "SESSION_SUPERSEDED": grpc.StatusCode.FAILED_PRECONDITION,
    "TARGET_IDENTITY_MISMATCH": grpc.StatusCode.FAILED_PRECONDITION,
    "PROTOCOL_VERSION_UNSUPPORTED": grpc.StatusCode.FAILED_PRECONDITION,
    "TARGET_IN_USE": grpc.StatusCode.FAILED_PRECONDITION,
    "LOG_GAP": grpc.StatusCode.FAILED_PRECONDITION,
}
"""The refusals that a caller can earn, by the reason of ``error_reason.proto``."""

_INTERNAL_TEXTS = ("Traceback", 'File "', "<class", "object at 0x", "sqlite", "SQL", "manager_service", "google.")


@dataclass(frozen=True, slots=True)
class Method:
    path: str
    request: type[Message]
    streams: bool

    def __str__(self) -> str:
        return self.path.rpartition("/")[2]


def _methods() -> Iterator[Method]:
    for module in (job_service_pb2, lease_service_pb2, fleet_service_pb2):
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                path = f"/{service.full_name}/{method.name}"
                yield Method(
                    path, GetMessageClass(method.input_type), method.name in {"WatchParentJob", "ReadLogs"}
                )


METHODS = tuple(_methods())
BY_NAME = {str(method): method for method in METHODS}


def as_it_is(data: bytes) -> bytes:
    """Serialize nothing."""
    return data


class Wire:
    """A caller that respects nothing: it sends bytes and keeps what comes back."""

    def __init__(self, address: str) -> None:
        options = (("grpc.max_receive_message_length", PAGES_BYTES), ("grpc.enable_http_proxy", 0))
        self._channel = grpc.insecure_channel(address, options=options)

    def close(self) -> None:
        self._channel.close()

    def send(self, method: Method, data: bytes) -> Refusal | None:
        """Call with these bytes; return the refusal, ``None`` when the call was answered."""
        try:
            if method.streams:
                self._read(
                    self._channel.unary_stream(method.path, as_it_is, as_it_is)(data, timeout=STREAM_SECONDS)
                )
            else:
                self._channel.unary_unary(method.path, as_it_is, as_it_is)(data, timeout=SECONDS)
        except grpc.RpcError as error:
            if method.streams and _code(error) is grpc.StatusCode.DEADLINE_EXCEEDED:
                return None
            return refusal_of(error)  # type: ignore[arg-type]  # the threaded client's errors tell the same
        return None

    def say(self, message: Message) -> Refusal | None:
        """Call the method that takes this message."""
        return self.send(_method_of(message), message.SerializeToString())

    def answer(self, message: Message) -> bytes:
        """Call the method that takes this message, and return what it answers."""
        call = self._channel.unary_unary(_method_of(message).path, as_it_is, as_it_is)
        return call(message.SerializeToString(), timeout=SECONDS)

    def unknown(self, path: str) -> grpc.StatusCode:
        """Call a method that there is not."""
        try:
            self._channel.unary_unary(path, as_it_is, as_it_is)(b"", timeout=SECONDS)
        except grpc.RpcError as error:
            return _code(error)
        raise AssertionError(path)

    def _read(self, messages: Iterable[bytes]) -> None:
        for _ in messages:
            pass


def _method_of(message: Message) -> Method:
    [method] = [item for item in METHODS if item.request is type(message)]
    return method


def _code(error: grpc.RpcError) -> grpc.StatusCode:
    call: Any = error
    code: grpc.StatusCode = call.code()
    return code


def assert_clean(refusal: Refusal | None, said: bytes = b"") -> None:
    """Assert that a call was answered, or refused by a documented reason that gives nothing away.

    What the caller said himself may come back: a job with the id `sqlite` is not found by that name.
    """
    if refusal is None:
        return
    assert refusal.reason in CODES, refusal
    assert refusal.code is CODES[refusal.reason], refusal
    told = [text for text in _INTERNAL_TEXTS if text in refusal.message]
    assert all(text.encode() in said for text in told), refusal
    assert 0 < len(refusal.message.encode()) <= 1_024, refusal
    assert bool(refusal.fields) == (refusal.reason == "INVALID_REQUEST"), refusal


def assert_refused(refusal: Refusal | None, reason: str, *fields: str) -> None:
    """Assert that a call was refused for this reason, naming these fields."""
    assert refusal is not None
    assert_clean(refusal)
    assert refusal.reason == reason, refusal
    assert set(fields) <= set(refusal.fields), refusal
