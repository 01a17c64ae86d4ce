"""What an ``inspect`` child looks for and what it found, between the wire and the domain."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, takewhile

from overhaul.v1 import job_pb2, lease_service_pb2
from worker_service.domain.inspection import (
    Coverage,
    InspectedObject,
    Inspection,
    InspectionResult,
    Scope,
    Selection,
    WantedOperation,
)
from worker_service.domain.lock import Lock

SCOPES = {
    job_pb2.SCOPE_UNSPECIFIED: Scope.DATABASE,
    job_pb2.SCOPE_DATABASE: Scope.DATABASE,
    job_pb2.SCOPE_TABLE: Scope.TABLE,
    job_pb2.SCOPE_INDEX: Scope.INDEX,
    job_pb2.SCOPE_CUSTOMARY: Scope.CUSTOMARY,
}


PREVIEW_BYTES = 8 << 20
"""So much of a report the statements of a dry run may take; the measures of all objects have to fit beside."""
TEXT_CHARACTERS = 4_000
"""So long one text of an object may be; a manager refuses a report with one of more than 4,096 characters."""
_NOT_SHOWN = "not shown: too many objects"
_END_CHARACTERS = 300
_LONGEST_NOTE = 100


def inspection(message: lease_service_pb2.Inspection) -> Inspection:
    """Return what an ``inspect`` child looks for."""
    return Inspection(
        scope=SCOPES.get(message.scope, Scope.DATABASE),
        operations=tuple(
            WantedOperation(name=wanted.name, options=dict(wanted.options)) for wanted in message.operations
        ),
        selection=Selection(include=tuple(message.selection.include), exclude=tuple(message.selection.exclude)),
        preview=message.preview,
    )


def inspection_result(found: InspectionResult) -> lease_service_pb2.InspectionResult:
    """Return what was found, with the names of operations and measures told once for all objects."""
    operations = list(dict.fromkeys(name for item in found.objects for name in item.operations))
    measured = (name for item in found.objects for name in item.measures)
    measures = list(dict.fromkeys([*measured, *found.measures]))
    places = {name: place for place, name in enumerate(operations)}
    coverages = {each: place for place, each in enumerate(_coverages(found.objects))}
    objects = _with_room(map(_shortened, found.objects))
    return lease_service_pb2.InspectionResult(
        measures=measures,
        operations=operations,
        locks=locks(found.locks),
        objects=[_inspected(item, places, measures, coverages) for item in objects],
        only_if=[
            job_pb2.Threshold(condition=item.condition, operation=item.operation, object=item.object)
            for item in found.only_if
        ],
        coverages=[
            lease_service_pb2.Coverage(
                operation=places[each.operation], by=places[each.by], reason=_short(each.reason)
            )
            for each in coverages
        ],
    )


def _shortened(item: InspectedObject) -> InspectedObject:
    return replace(item, previews=tuple(map(_short, item.previews)), left_out=_short(item.left_out))


def _short(text: str) -> str:
    """Leave lines out, but not the last, which may say what holds of all; where there is one, its end."""
    if len(text) <= TEXT_CHARACTERS:
        return text
    *lines, last = text.splitlines()
    room = TEXT_CHARACTERS - _LONGEST_NOTE - len(last)
    if not lines or room < 0:
        # What holds of all the statements stands behind the last of them.
        end = text[-_END_CHARACTERS:].partition("; ")[2]
        head = text[: TEXT_CHARACTERS - _LONGEST_NOTE - len(end) - 1]
        head = head.rpartition("; ")[0] or head
        note = f"{head}\n-- not shown: {len(text) - len(head) - len(end):,} characters"
        return f"{note}\n{end}" if end else note
    kept = _fitting(lines, room)
    left_out = lines[len(kept) :]
    note = f"-- lines not shown: {len(left_out)}, of {sum(map(len, left_out)):,} characters"
    return "\n".join([*kept, note, last])


def _fitting(lines: Sequence[str], room: int) -> Sequence[str]:
    """Return the first lines that take no more than so many characters, with their ends."""
    taken = accumulate(len(line) + 1 for line in lines)
    return lines[: sum(1 for _ in takewhile(lambda size: size <= room, taken))]


def _coverages(objects: Iterable[InspectedObject]) -> Iterable[Coverage]:
    return dict.fromkeys(each for item in objects for each in _covered(item))


def _covered(item: InspectedObject) -> Iterator[Coverage]:
    """Return what covers an operation that is wanted of the object by another that is."""
    return (each for each in item.covered if {each.operation, each.by} <= set(item.operations))


def _with_room(objects: Iterable[InspectedObject]) -> Iterator[InspectedObject]:
    """Leave the statements out from where on they have no room in one message."""
    room = PREVIEW_BYTES
    for item in objects:
        room -= sum(len(text.encode()) for text in item.previews)
        yield item if room >= 0 else replace(item, previews=(_NOT_SHOWN,) * len(item.previews))


def _inspected(
    item: InspectedObject,
    places: Mapping[str, int],
    measures: Sequence[str],
    coverages: Mapping[Coverage, int],
) -> lease_service_pb2.InspectedObject:
    return lease_service_pb2.InspectedObject(
        object=item.object,
        operations=[places[name] for name in item.operations],
        size_bytes=item.size_bytes,
        measures=[item.measures.get(name, math.nan) for name in measures],
        locks=locks(item.locks),
        previews=item.previews,
        left_out=item.left_out,
        urgent=item.urgent,
        covered=[coverages[each] for each in _covered(item)],
    )


def locks(keys: Iterable[Lock]) -> list[lease_service_pb2.Lock]:
    """Return lock keys as they are told."""
    return [lease_service_pb2.Lock(key=lock.key, exclusive=lock.exclusive) for lock in keys]
