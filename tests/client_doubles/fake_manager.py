"""A manager whose answers are scripted, behind a real gRPC server on a port of its own."""

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Self

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]  # ships no types
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from overhaul.v1 import fleet_service_pb2, job_service_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An answer that is not OK, with the details that a manager sends."""

    code: grpc.StatusCode
    message: str = "refused"
    reason: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)
    broken_details: bool = False

    def abort(self, context: grpc.ServicerContext) -> None:
        if self.broken_details:
            context.set_trailing_metadata((("grpc-status-details-bin", b"\xff\xff"),))
        elif self.reason:
            context.set_trailing_metadata((("grpc-status-details-bin", self._details()),))
        context.abort(self.code, self.message)

    def _details(self) -> bytes:
        info = error_details_pb2.ErrorInfo(reason=self.reason, domain="overhaul.v1", metadata=self.metadata)
        bad = error_details_pb2.BadRequest(
            field_violations=[
                error_details_pb2.BadRequest.FieldViolation(field=name, description=why)
                for name, why in self.fields.items()
            ]
        )
        packed = [any_pb2.Any(), any_pb2.Any()]
        packed[0].Pack(info)
        packed[1].Pack(bad)
        status = status_pb2.Status(code=self.code.value[0], message=self.message, details=packed)
        return bytes(status.SerializeToString())


class Hang:
    """In a stream: wait until the client leaves or the server stops."""


Unary = Message | Refusal | Callable[[Any], Message | Refusal]
Stream = list[Message | Refusal | Hang] | Callable[[Any], Iterator[Message | Refusal | Hang]]


class FakeManager:
    """Answers each method from its script; the last answer of a script stays."""

    def __init__(self, port: int = 0, *, host: str = "127.0.0.1") -> None:
        self.calls: list[tuple[str, Any]] = []
        self._scripts: dict[str, deque[Any]] = defaultdict(deque)
        self._stopping = threading.Event()
        self._left = threading.Event()
        self._server = grpc.server(
            ThreadPoolExecutor(max_workers=8),
            handlers=[*self._handlers(job_service_pb2), *self._handlers(fleet_service_pb2)],
            options=[("grpc.so_reuseport", 0)],
        )
        self.health = health.HealthServicer()
        self.health.set("overhaul.v1.JobService", health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        self.port = self._server.add_insecure_port(f"{host}:{port}")
        self.address = f"{host}:{self.port}"
        self._server.start()

    def answers(self, method: str, *script: Unary | Stream) -> Self:
        """Script a method, such as ``GetParentJob``."""
        self._scripts[method].extend(script)
        return self

    def requests(self, method: str) -> list[Any]:
        """Return what a method was asked so far."""
        return [request for called, request in self.calls if called == method]

    def client_left(self, seconds: float = 60) -> bool:
        """Wait until a stream has ended that the server did not end by stopping: most often, its client left."""
        return self._left.wait(seconds)

    def stop(self) -> None:
        self._stopping.set()
        self._server.stop(0).wait(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _handlers(self, module: Any) -> list[grpc.GenericRpcHandler]:
        return [
            grpc.method_handlers_generic_handler(
                service.full_name, {method.name: self._handler(method) for method in service.methods}
            )
            for service in module.DESCRIPTOR.services_by_name.values()
        ]

    def _handler(self, method: Any) -> "grpc.RpcMethodHandler[Any, Any]":
        streams = method.name in {"WatchParentJob", "ReadLogs"}
        make = grpc.unary_stream_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler
        behaviour = self._stream(method.name) if streams else self._unary(method.name)
        return make(
            behaviour,
            request_deserializer=GetMessageClass(method.input_type).FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )

    def _next(self, name: str, request: Any) -> Any:
        self.calls.append((name, request))
        script = self._scripts[name]
        if not script:
            return Refusal(code=grpc.StatusCode.UNIMPLEMENTED, message=f"{name} has no script")
        return script.popleft() if len(script) > 1 else script[0]

    def _unary(self, name: str) -> Callable[[Any, grpc.ServicerContext], Message]:
        def behave(request: Any, context: grpc.ServicerContext) -> Message:
            answer = self._next(name, request)
            message = answer(request) if callable(answer) else answer
            if isinstance(message, Refusal):
                message.abort(context)
            assert isinstance(message, Message)
            return message

        return behave

    def _stream(self, name: str) -> Callable[[Any, grpc.ServicerContext], Iterator[Message]]:
        def behave(request: Any, context: grpc.ServicerContext) -> Iterator[Message]:
            answer = self._next(name, request)
            gone = threading.Event()
            # A client may leave before the script comes to where it hangs: then nobody goes on with it.
            context.add_callback(lambda: self._leave(gone))
            for item in (
                answer(request) if callable(answer) else [answer] if isinstance(answer, Refusal) else answer
            ):
                match item:
                    case Refusal():
                        item.abort(context)
                    case Hang():
                        self._hang(gone)
                    case _:
                        yield item

        return behave

    def _leave(self, gone: threading.Event) -> None:
        gone.set()
        if not self._stopping.is_set():
            self._left.set()

    def _hang(self, gone: threading.Event) -> None:
        while not gone.wait(0.02) and not self._stopping.is_set():
            pass
