"""What surrounds every call of ours: errors become statuses, and calls are counted until they have ended."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc
import structlog
from google.protobuf.message import DecodeError

from manager_service.api.errors import defect, refused
from manager_service.domain.errors import (
    ChildJobNotFoundError,
    FieldViolation,
    InvalidRequestError,
    ManagerError,
    ParentJobNotFoundError,
)
from manager_service.domain.ports import IdSource

log = structlog.get_logger("manager.calls")

_OURS = "/overhaul.v1."
_QUIET = frozenset({"AcquireLeases", "Heartbeat", "ReportResults", "AppendLogs", "WatchParentJob", "ReadLogs"})
_STEERING = frozenset(
    {
        "CancelParentJob",
        "PauseParentJob",
        "ResumeParentJob",
        "RetryParentJob",
        "DeleteParentJob",
        "DrainWorker",
        "PauseTarget",
        "ResumeTarget",
        "ForgetTarget",
    }
)
# Whoever has only an id asks with these what it is the id of: "no such job" is an answer, not a refusal.
_LOOK_UPS = frozenset({"GetParentJob", "GetChildJob"})
_NOT_FOUND = (ParentJobNotFoundError, ChildJobNotFoundError)
_LONGEST = 500

Context = grpc.aio.ServicerContext[Any, Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"
Unary = Callable[[Any, Context], Awaitable[Any]]
Stream = Callable[[Any, Context], AsyncGenerator[Any, None]]
Decoder = Callable[[bytes], Any]


class _Running:
    """Counts the calls that run; a class, because around every call a generator would cost five times as much."""

    def __init__(self) -> None:
        self._number = 0
        self.ended = asyncio.Event()
        self.ended.set()

    def __enter__(self) -> None:
        """Count a call that begins."""
        self._number += 1
        self.ended.clear()

    def __exit__(self, *_: object) -> None:
        """Count a call that has ended."""
        self._number -= 1
        if not self._number:
            self.ended.set()


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Maps errors of handlers to statuses, logs calls, and knows which calls have not ended.

    Args:
        ids: makes the ids of incidents.
    """

    def __init__(self, ids: IdSource) -> None:
        self._ids = ids
        self._wrapped: dict[str, Handler] = {}
        self._running = _Running()

    async def idle(self) -> None:
        """Wait until every call has ended, its clean-up included."""
        await self._running.ended.wait()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Wrap the handlers of our services, each once; health and reflection are left alone."""
        path = handler_call_details.method
        if known := self._wrapped.get(path):
            return known
        handler = await continuation(handler_call_details)
        if handler is None or not path.startswith(_OURS):
            return handler
        self._wrapped[path] = self._wrap(path.rpartition("/")[2], handler)
        return self._wrapped[path]

    def _wrap(self, method: str, handler: "grpc.RpcMethodHandler[Any, Any]") -> Handler:
        # The types of a handler are those of the threaded server; ours are coroutines and async generators.
        inner: Any = handler.unary_stream if handler.response_streaming else handler.unary_unary
        # Requests are decoded here: gRPC would answer one that cannot be with UNKNOWN and the exception's text.
        decode: Any = handler.request_deserializer
        if handler.response_streaming:
            outer: Any = self._stream(method, inner, decode)
            return grpc.unary_stream_rpc_method_handler(outer, None, handler.response_serializer)
        return grpc.unary_unary_rpc_method_handler(
            self._unary(method, inner, decode), None, handler.response_serializer
        )

    def _unary(self, method: str, inner: Unary, decode: Decoder) -> Unary:
        loud = method not in _QUIET

        async def call(data: bytes, context: Context) -> Any:
            with self._running:
                begin = time.perf_counter()
                request = None
                try:
                    request = _decoded(data, decode)
                    answer = await inner(request, context)
                except Exception as error:  # noqa: BLE001 - the last place before the client
                    return await context.abort_with_status(self._status(method, request, error))
                if loud:
                    _log_call(method, request, begin)
                return answer

        return call

    def _stream(self, method: str, inner: Stream, decode: Decoder) -> Unary:
        async def call(data: bytes, context: Context) -> None:
            # Written here instead of handed on as a generator: so its clean-up has run when the call has ended.
            with self._running:
                request = None
                try:
                    request = _decoded(data, decode)
                    async with aclosing(inner(request, context)) as messages:
                        async for message in messages:
                            await context.write(message)
                except Exception as error:  # noqa: BLE001 - the last place before the client
                    await context.abort_with_status(self._status(method, request, error))

        return call

    def _status(self, method: str, request: Any, error: Exception) -> Any:
        if isinstance(error, ManagerError):
            write = log.debug if method in _LOOK_UPS and isinstance(error, _NOT_FOUND) else log.info
            write(
                "call refused",
                method=method,
                error=type(error).__name__,
                why=str(error)[:_LONGEST],
                **_about(request),
            )
            return refused(error)
        incident = self._ids.new_id()
        log.error("call failed", method=method, incident=incident, exc_info=error, **_about(request))
        return defect(incident)


def _decoded(data: bytes, decode: Decoder) -> Any:
    try:
        return decode(data)
    except DecodeError:
        raise InvalidRequestError([FieldViolation("request", "is not a message of this call")]) from None


def _log_call(method: str, request: Any, begin: float) -> None:
    milliseconds = round((time.perf_counter() - begin) * 1_000, 1)
    write = log.info if method in _STEERING else log.debug
    write("call answered", method=method, milliseconds=milliseconds, **_about(request))


def _about(request: Any) -> dict[str, str]:
    """Name what a call is about, so that its lines can be found, and the reason that it gives."""
    names = ("parent_job_id", "child_job_id", "session_id", "worker_name", "target", "reason")
    values = {name: getattr(request, name, "") for name in names}
    return {name: _printable(value) for name, value in values.items() if value}


def _printable(text: str) -> str:
    """Return a text that nobody checked so that it neither floods the log nor steers a terminal."""
    begin = text[:_LONGEST]
    return begin if begin.isprintable() else repr(begin)
