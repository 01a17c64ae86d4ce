"""Workers and targets, between the wire and the domain."""

from manager_service.api.convert import enums
from manager_service.api.convert.scalars import timestamp
from manager_service.domain.checks import Violations
from manager_service.domain.errors import FieldViolation, InvalidRequestError
from manager_service.domain.fleet import (
    Lock,
    OfferedOperation,
    OptionSpec,
    Registration,
    ServedTarget,
    Target,
    Worker,
)
from manager_service.domain.model import Instant
from overhaul.v1 import fleet_service_pb2, lease_service_pb2


def registration(request: lease_service_pb2.RegisterWorkerRequest) -> Registration:
    """Read who a worker is and what it serves."""
    return Registration(
        worker_name=request.worker_name,
        instance_id=request.instance_id,
        build=request.build,
        host=request.host,
        pid=request.pid,
        labels=dict(request.labels),
        targets=tuple(_served_target(item, f"targets[{index}]") for index, item in enumerate(request.targets)),
        slots=request.slots,
    )


def _served_target(item: lease_service_pb2.ServedTarget, path: str) -> ServedTarget:
    return ServedTarget(
        name=item.name,
        engine=item.engine,
        engine_version=item.engine_version,
        identity=item.identity,
        labels=dict(item.labels),
        max_parallel=item.max_parallel or 1,
        operations=tuple(
            _offered_operation(operation, f"{path}.operations[{index}]")
            for index, operation in enumerate(item.operations)
        ),
    )


def _offered_operation(item: lease_service_pb2.OfferedOperation, path: str) -> OfferedOperation:
    return OfferedOperation(
        name=item.name,
        description=item.description,
        options=tuple(_option(option, f"{path}.options[{index}]") for index, option in enumerate(item.options)),
        locks=tuple(Lock(key=lock.key, exclusive=lock.exclusive) for lock in item.locks),
    )


def _option(item: lease_service_pb2.OptionSpec, path: str) -> OptionSpec:
    kind = enums.OPTION_TYPE.read(item.type, f"{path}.type")
    if kind is None:
        raise InvalidRequestError([FieldViolation(f"{path}.type", "is required")])
    return OptionSpec(
        name=item.name,
        type=kind,
        description=item.description,
        minimum=item.minimum if item.HasField("minimum") else None,
        maximum=item.maximum if item.HasField("maximum") else None,
        values=tuple(item.values),
    )


def worker(value: Worker, poll_time: Instant | None) -> fleet_service_pb2.Worker:
    """Convert a worker; ``poll_time`` is when this manager last saw it poll."""
    return fleet_service_pb2.Worker(
        worker_name=value.worker_name,
        instance_id=value.instance_id,
        state=enums.SESSION_STATE.out(value.state),
        build=value.build,
        host=value.host,
        pid=value.pid,
        labels=value.labels,
        slots=value.slots,
        slots_used=value.slots_used,
        targets=value.targets,
        create_time=timestamp(value.create_time),
        heartbeat_time=timestamp(value.heartbeat_time),
        poll_time=timestamp(poll_time),
    )


def target(value: Target) -> fleet_service_pb2.Target:
    """Convert a target."""
    return fleet_service_pb2.Target(
        name=value.name,
        engine=value.engine,
        engine_version=value.engine_version,
        identity=value.identity,
        labels=value.labels,
        max_parallel=value.max_parallel,
        operations=[_offer(item) for item in value.operations],
        paused=value.paused,
        workers=value.workers,
        pending=value.pending,
        live=value.live,
    )


def _offer(value: OfferedOperation) -> lease_service_pb2.OfferedOperation:
    return lease_service_pb2.OfferedOperation(
        name=value.name,
        description=value.description,
        options=[
            lease_service_pb2.OptionSpec(
                name=option.name,
                type=enums.OPTION_TYPE.out(option.type),
                description=option.description,
                minimum=option.minimum,
                maximum=option.maximum,
                values=option.values,
            )
            for option in value.options
        ],
        locks=[lease_service_pb2.Lock(key=lock.key, exclusive=lock.exclusive) for lock in value.locks],
    )


def label_filter(request: fleet_service_pb2.ListTargetsRequest) -> dict[str, str]:
    """Read the labels that targets are listed by."""
    found = Violations()
    found.labels("labels", request.labels)
    found.refuse()
    return dict(request.labels)
