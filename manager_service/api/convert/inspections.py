"""What an ``inspect`` child looks for and what it found, between the wire and the domain."""

import math
from collections.abc import Iterable, Sequence

from manager_service.api.convert import enums, jobs
from manager_service.domain.errors import FieldViolation, InvalidRequestError
from manager_service.domain.fleet import Lock
from manager_service.domain.inspection import Coverage, InspectedObject, Inspection, InspectionResult
from manager_service.domain.model import Threshold
from overhaul.v1 import job_pb2, lease_service_pb2

MAX_COVERAGES = 64


def inspection(value: Inspection) -> lease_service_pb2.Inspection:
    """Convert what is to be looked for."""
    return lease_service_pb2.Inspection(
        scope=enums.SCOPE.out(value.scope),
        operations=[job_pb2.OperationSpec(name=item.name, options=item.options) for item in value.operations],
        selection=jobs.selection(value.selection),
        preview=value.preview,
    )


def found(message: lease_service_pb2.InspectionResult, path: str) -> InspectionResult:
    """Read what was found; raise ``InvalidRequestError`` where places and numbers do not fit to their names."""
    if len(set(message.measures)) != len(message.measures):
        raise InvalidRequestError([FieldViolation(f"{path}.measures", "has a name twice")])
    coverages = _coverages(message, path)
    for index, item in enumerate(message.objects):
        here = f"{path}.objects[{index}]"
        if len(item.measures) != len(message.measures):
            text = f"has {len(item.measures)} numbers for {len(message.measures)} names"
            raise InvalidRequestError([FieldViolation(f"{here}.measures", text)])
        _check_places(f"{here}.operations", item.operations, len(message.operations), "operations")
        _check_places(f"{here}.covered", item.covered, len(coverages), "coverages")
    return InspectionResult(
        objects=tuple(_object(item, message, coverages) for item in message.objects),
        locks=_locks(message.locks),
        measures=frozenset(message.measures),
        only_if=tuple(
            Threshold(condition=item.condition, operation=item.operation, object=item.object)
            for item in message.only_if
        ),
    )


def _coverages(message: lease_service_pb2.InspectionResult, path: str) -> Sequence[Coverage]:
    names = message.operations
    if len(message.coverages) > MAX_COVERAGES:
        text = f"must be at most {MAX_COVERAGES}, and are {len(message.coverages)}"
        raise InvalidRequestError([FieldViolation(f"{path}.coverages", text)])
    for index, each in enumerate(message.coverages):
        _check_places(f"{path}.coverages[{index}]", (each.operation, each.by), len(names), "operations")
    return [
        Coverage(operation=names[each.operation], by=names[each.by], reason=each.reason)
        for each in message.coverages
    ]


def _check_places(field: str, places: Iterable[int], number: int, what: str) -> None:
    if any(not 0 <= place < number for place in places):
        text = f"has a place that is none of the {number} {what}"
        raise InvalidRequestError([FieldViolation(field, text)])


def _object(
    item: lease_service_pb2.InspectedObject,
    message: lease_service_pb2.InspectionResult,
    coverages: Sequence[Coverage],
) -> InspectedObject:
    measured = zip(message.measures, item.measures, strict=True)
    return InspectedObject(
        object=item.object if item.HasField("object") else None,
        operations=tuple(message.operations[place] for place in item.operations),
        size_bytes=item.size_bytes,
        measures={name: value for name, value in measured if not math.isnan(value)},
        locks=_locks(item.locks),
        previews=tuple(item.previews),
        left_out=item.left_out,
        urgent=item.urgent,
        covered=tuple(coverages[place] for place in item.covered),
    )


def _locks(items: Iterable[lease_service_pb2.Lock]) -> tuple[Lock, ...]:
    return tuple(Lock(key=item.key, exclusive=item.exclusive) for item in items)
