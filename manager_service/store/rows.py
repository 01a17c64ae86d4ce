"""What rows say as domain values, and domain values as what rows hold."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any

from manager_service.domain.events import BulkChange, BulkChangeKind, ChildJobChange, Event, ParentJobChange
from manager_service.domain.fleet import OfferedOperation
from manager_service.domain.model import Failure, JobSpec, RequestedOperation, RetryPolicy, Selection, Threshold
from manager_service.domain.states import (
    ChildJobState,
    Counts,
    FailureCategory,
    FailureMode,
    FailurePolicy,
    ParentJobState,
    Scope,
    Verdict,
)


def text_of(value: Mapping[str, Any]) -> str:
    """Return a mapping as JSON; the empty one, which is the most frequent by far, as nothing."""
    return json.dumps(dict(value)) if value else ""


def mapping_of(text: str) -> dict[str, Any]:
    """Return the mapping that ``text_of`` wrote."""
    if not text:
        return {}
    value: dict[str, Any] = json.loads(text)
    return value


def failure_text(failure: Failure | None) -> str | None:
    """Return a failure as JSON."""
    return None if failure is None else json.dumps(asdict(failure))


def failure_of(text: str | None) -> Failure | None:
    """Return the failure that ``failure_text`` wrote."""
    if text is None:
        return None
    value = json.loads(text)
    return Failure(**{**value, "category": FailureCategory(value["category"])})


def spec_text(spec: JobSpec) -> str:
    """Return a parent job's spec as JSON."""
    return json.dumps(asdict(spec))


@lru_cache(maxsize=4096)
def spec_of(text: str) -> JobSpec:
    """Return the spec that ``spec_text`` wrote; reports ask for the same few again and again."""
    value = json.loads(text)
    policy = value["failure_policy"]
    return JobSpec(
        **{
            **value,
            "operations": tuple(RequestedOperation(**operation) for operation in value["operations"]),
            "scope": Scope(value["scope"]),
            "retry_policy": RetryPolicy(**value["retry_policy"]),
            "failure_policy": FailurePolicy(**{**policy, "mode": FailureMode(policy["mode"])}),
            # What an older release stored has neither.
            "selection": _selection(value.get("selection", {})),
            "only_if": tuple(Threshold(**threshold) for threshold in value.get("only_if", ())),
        }
    )


def _selection(value: Mapping[str, list[str]]) -> Selection:
    return Selection(**{name: tuple(patterns) for name, patterns in value.items()})


@lru_cache(maxsize=4_096)
def locks_of_child(text: str) -> Mapping[str, bool]:
    """Return the keys that a child holds by itself, each exclusive or not."""
    value: dict[str, bool] = json.loads(text)
    return value


def operations_text(operations: tuple[OfferedOperation, ...]) -> str:
    """Return offered operations as JSON."""
    return json.dumps([asdict(operation) for operation in operations])


# A text is kilobytes, so only those of the targets that claims come to again and again are kept.
@lru_cache(maxsize=4_096)
def locks_by_operation(text: str) -> Mapping[str, Mapping[str, bool]]:
    """Return the keys that each operation takes, each exclusive or not: all that a claim asks of an offer."""
    shared: dict[str, Mapping[str, bool]] = {}
    return {
        value["name"]: shared.get(keys := str(value["locks"])) or shared.setdefault(keys, _merged(value["locks"]))
        for value in json.loads(text)
    }


def _merged(locks: Sequence[Mapping[str, Any]]) -> Mapping[str, bool]:
    merged: dict[str, bool] = {}
    for lock in locks:
        merged[lock["key"]] = lock["exclusive"] or merged.get(lock["key"], False)
    return merged


def counts_text(counts: Counts) -> str:
    """Return counts as JSON."""
    return json.dumps([getattr(counts, state.value) for state in ChildJobState])


def counts_of(text: str) -> Counts:
    """Return the counts that ``counts_text`` wrote."""
    return Counts(**dict(zip((state.value for state in ChildJobState), json.loads(text), strict=True)))


def counts_in(row: Any) -> Counts:
    """Return the counts in the columns of a row."""
    return Counts(
        pending=row.pending,
        leased=row.leased,
        running=row.running,
        completed=row.completed,
        failed=row.failed,
        cancelled=row.cancelled,
        skipped=row.skipped,
    )


def event_of(row: Any) -> Event:
    """Return the event in a row of ``events`` joined with its child."""
    change: ChildJobChange | ParentJobChange | BulkChange
    match row.kind:
        case "child":
            change = _child_change(row)
        case "parent":
            change = ParentJobChange(
                state=ParentJobState(row.state),
                paused=bool(row.paused),
                cancel_requested=bool(row.cancel_requested),
                counts=counts_of(row.counts),
            )
        case kind:
            change = BulkChange(kind=BulkChangeKind(kind), affected=row.affected, counts=counts_of(row.counts))
    return Event(sequence=row.sequence, time=row.time, change=change)


def _child_change(row: Any) -> ChildJobChange:
    return ChildJobChange(
        child_job_id=row.child_id,
        operation=row.operation,
        target=row.target,
        object=row.object,
        previous_state=ChildJobState(row.previous_state),
        state=ChildJobState(row.state),
        attempts=row.attempts,
        version=row.version,
        verdict=Verdict(row.verdict) if row.verdict else None,
        reason=row.reason,
    )
