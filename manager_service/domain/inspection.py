"""From what an ``inspect`` child found to further children: which objects are worth which operations."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from manager_service.domain.durations import Doing, largest_first, weights
from manager_service.domain.fleet import Lock
from manager_service.domain.lanes import lanes
from manager_service.domain.model import JobSpec, PlannedChild, RequestedOperation, Selection, Span, Threshold
from manager_service.domain.states import Scope
from manager_service.domain.thresholds import PlanError, Thresholds

INSPECT = "inspect"
MAX_CHILDREN = 1_000_000
_URGENT = 1 << 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What an ``inspect`` child looks for."""

    scope: Scope
    operations: tuple[RequestedOperation, ...]
    selection: Selection
    preview: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """That the operation ``by`` does all that ``operation`` would do to an object; ``reason`` says why."""

    operation: str
    by: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectedObject:
    """An object that an ``inspect`` child found.

    Attributes:
        object: its name; ``None`` for the whole database.
        operations: what is to be done to it, by name.
        size_bytes: how large it is; 0 is unknown.
        measures: numbers by name, those that are known.
        locks: what is held beside the locks of all objects while something is done to it.
        previews: the statements of each of the operations; empty where they were not asked for.
        left_out: why nothing is to be done to it all the same; empty where something is.
        urgent: whether it goes first, whatever its size; of several the first that was found.
        covered: which of the operations are not needed where another of them is done.
    """

    object: str | None = None
    operations: tuple[str, ...] = ()
    size_bytes: int = 0
    measures: Mapping[str, float] = field(default_factory=dict)
    locks: tuple[Lock, ...] = ()
    previews: tuple[str, ...] = ()
    left_out: str = ""
    urgent: bool = False
    covered: tuple[Coverage, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectionResult:
    """What an ``inspect`` child found.

    ``locks`` are held whatever is done to one of the objects; ``measures`` are the names that objects may be
    measured by, though it may be that none is. ``only_if`` are the target's own thresholds, as its worker is set.
    """

    objects: tuple[InspectedObject, ...] = ()
    locks: tuple[Lock, ...] = ()
    measures: frozenset[str] = frozenset()
    only_if: tuple[Threshold, ...] = ()


def is_inspected(scope: Scope | None, only_if: Sequence[Threshold]) -> bool:
    """Tell whether the targets of a request have to be inspected before its children are known."""
    return scope not in (None, Scope.DATABASE) or bool(only_if)


def wanted_of(spec: JobSpec) -> Inspection:
    """Return what the ``inspect`` children of a parent job look for."""
    return Inspection(scope=spec.scope, operations=spec.operations, selection=spec.selection, preview=spec.dry_run)


def children_of(
    spec: JobSpec, target: str, found: InspectionResult, expected: Mapping[Doing, Span]
) -> tuple[PlannedChild, ...]:
    """Plan what was found on a target: the objects with most to do first, each with the operations as requested.

    Args:
        spec: what the parent job asks for.
        target: where it was found.
        found: what was found.
        expected: what operations on objects of the target are expected to take, where that was learned.

    Raises:
        PlanError: these are too many children, or a threshold asks for what none of the objects has.
    """
    number = sum(len(item.operations) for item in found.objects)
    if number > MAX_CHILDREN:
        raise PlanError(
            f"{number} children would be made of target {target!r}; a parent job has at most {MAX_CHILDREN}: "
            "select fewer objects"
        )
    if not found.objects:
        return ()
    known = found.measures.union(*(item.measures for item in found.objects))
    thresholds = Thresholds(spec.only_if, found.only_if, target=target, known=known)
    pairs = [
        (item, wanted) for item in found.objects for wanted in spec.operations if wanted.name in item.operations
    ]
    sizes = weights({(wanted.name, item.object): item.size_bytes for item, wanted in pairs}, expected)
    locks = {id(item): _merged((*found.locks, *item.locks)) for item in found.objects}
    # Without keys of its own a child holds those of the whole database, as all such do.
    keys = ([key for key, alone in locks[id(item)].items() if alone] or [f"target:{target}"] for item, _ in pairs)
    children = [
        replace(
            _judged(spec, item, wanted.name, thresholds, sizes[wanted.name, item.object]),
            target=target,
            options=wanted.options,
            lane=lane,
            locks=locks[id(item)],
        )
        for (item, wanted), lane in zip(pairs, lanes(keys), strict=True)
    ]
    return largest_first(_urgent_first([item for item, _ in pairs], children))


def _urgent_first(items: Iterable[InspectedObject], children: Iterable[PlannedChild]) -> list[PlannedChild]:
    """Let urgent objects weigh more than all others, and the same, however much is to be done to each.

    So it is for the engine to say by their order which goes before which.
    """
    weighed: set[int] = set()
    found = []
    for item, child in zip(items, children, strict=True):
        found.append(replace(child, size=0) if id(item) in weighed else child)
        weighed.update([id(item)] if item.urgent and child.size else [])
    return found


def _merged(locks: Iterable[Lock]) -> Mapping[str, bool]:
    merged: dict[str, bool] = {}
    for lock in locks:
        merged[lock.key] = lock.exclusive or merged.get(lock.key, False)
    return merged


def _judged(
    spec: JobSpec, item: InspectedObject, operation: str, thresholds: Thresholds, size: int
) -> PlannedChild:
    """Return a child with why it is done or skipped."""
    worth, reason = _worth(spec, item, operation, thresholds)
    size = (_URGENT if item.urgent else min(size, _URGENT - 1)) if worth else 0
    if worth and spec.dry_run:
        preview = dict(zip(item.operations, item.previews, strict=False)).get(operation, "")
        worth, reason = False, ": ".join(part for part in ("planned", preview, reason) if part)
    return PlannedChild(
        target="",
        operation=operation,
        object=item.object,
        lane="",
        size=size,
        skipped=not worth,
        reason=reason,
        before=item.measures if reason else {},
    )


def _worth(spec: JobSpec, item: InspectedObject, operation: str, thresholds: Thresholds) -> tuple[bool, str]:
    """Tell whether an operation is done to an object, and why or why not."""
    if item.left_out:
        return False, f"left out: {item.left_out}"
    for each in item.covered:
        if each.operation == operation and _is_done(spec, item, each.by, thresholds):
            return False, f"left out: {each.reason}"
    return thresholds.judge(item.object, item.measures, operation)


def _is_done(spec: JobSpec, item: InspectedObject, operation: str, thresholds: Thresholds) -> bool:
    asked = operation in item.operations and any(wanted.name == operation for wanted in spec.operations)
    return asked and thresholds.judge(item.object, item.measures, operation)[0]
