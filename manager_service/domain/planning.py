"""How a request becomes a plan. Pure: what is known of the targets and the time come in as arguments."""

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from manager_service.domain.checks import Violations
from manager_service.domain.errors import InvalidRequestError
from manager_service.domain.fleet import OfferedOperation, Offers, OptionSpec, OptionType
from manager_service.domain.inspection import INSPECT, MAX_CHILDREN, is_inspected
from manager_service.domain.lanes import lanes
from manager_service.domain.model import (
    SECOND,
    Instant,
    JobSpec,
    ParentJob,
    Plan,
    PlannedChild,
    RequestedOperation,
    RetryPolicy,
    Span,
)
from manager_service.domain.request import JobRequest, RetryWish, request_hash, request_violations
from manager_service.domain.states import Counts, Scope, parent_job_state

DEFAULT_OPERATIONS = tuple(RequestedOperation(name=name) for name in ("vacuum", "analyze", "reindex"))
MAX_DRY_RUN_CHILDREN = 100_000

_INSPECTION = RequestedOperation(name=INSPECT)
_LONGEST_NAME = 256
_NAMED_TARGETS = 3
_INTEGER = re.compile(r"-?[0-9]{1,18}")

# What operations are expected to take on whole databases, by target and operation.
Expected = Mapping[tuple[str, str], Span]


def plan(request: JobRequest, offers: Offers, now: Instant, expected: Expected | None = None) -> Plan:
    """Make the plan of a request: its children, or those that find out which there will be.

    Args:
        request: the request as it was sent.
        offers: what the known ones of the targets offer. With target_labels these are the targets.
        now: the time, for the deadline.
        expected: what its children are expected to take, as far as that was learned.

    Raises:
        InvalidRequestError: one or more fields are wrong.
    """
    if wrong := request_violations(request, now):
        raise InvalidRequestError(wrong)
    targets = request.targets or tuple(offers)
    operations = request.operations or DEFAULT_OPERATIONS
    inspected = is_inspected(request.scope, request.only_if)
    _refuse_impossible(request, targets, operations, offers, inspected=inspected)
    spec = _spec(request, targets, operations)
    if inspected:
        spec = replace(spec, inspections=len(targets))
    return Plan(
        request_id=request.request_id,
        request_hash=request_hash(request),
        spec=spec,
        children=_children(targets, (_INSPECTION,) if inspected else operations, offers, expected or {}),
    )


def _refuse_impossible(
    request: JobRequest,
    targets: tuple[str, ...],
    operations: tuple[RequestedOperation, ...],
    offers: Offers,
    *,
    inspected: bool,
) -> None:
    found = Violations()
    known_targets = set(targets)
    if not targets:
        found.add("target_labels", "no known target has all these labels; see the list of targets")
    children = len(targets) if inspected else len(targets) * len(operations)
    previewed = request.dry_run and not inspected
    most = MAX_DRY_RUN_CHILDREN if previewed else MAX_CHILDREN
    if children > most:
        what = "a dry run answers" if previewed else "a parent job has"
        found.add("operations", f"would make {children} children; {what} at most {most}: split the request")
    if inspected and (lacking := [name for name, by_name in offers.items() if INSPECT not in by_name]):
        text = f"{_named(lacking)} cannot be inspected by its worker; use scope database, or upgrade it"
        found.add("only_if" if request.only_if else "scope", text)
    names = {operation.name for operation in operations}
    for index, threshold in enumerate(request.only_if):
        if threshold.operation and threshold.operation not in names:
            near = _near(threshold.operation, names)
            found.add(f"only_if[{index}].operation", f"{threshold.operation!r} is not among the operations{near}")
        if threshold.target and threshold.target not in known_targets:
            near = _near(threshold.target, known_targets)
            found.add(f"only_if[{index}].target", f"{threshold.target!r} is not among the targets{near}")
    for index, operation in enumerate(operations):
        _check_operation(found, f"operations[{index}]", operation, offers)
    found.refuse()


def _check_operation(found: Violations, field: str, operation: RequestedOperation, offers: Offers) -> None:
    offered = {name: by_name[operation.name] for name, by_name in offers.items() if operation.name in by_name}
    if offers and not offered:
        names = {name for by_name in offers.values() for name in by_name}
        found.add(f"{field}.name", f"no target offers {operation.name!r}{_near(operation.name, names)}")
        return
    if lacking := [name for name in offers if name not in offered]:
        found.add(f"{field}.name", f"{_named(lacking)} does not offer {operation.name!r}; leave it out")
    for option, text in operation.options.items():
        _check_option(found, f"{field}.options[{option}]", option, text, offered)


def _check_option(
    found: Violations, field: str, option: str, text: str, offered: Mapping[str, OfferedOperation]
) -> None:
    lacking, expected = [], ""
    for target, offer in offered.items():
        spec = next((spec for spec in offer.options if spec.name == option), None)
        if spec is None:
            lacking.append(target)
        elif not _takes(spec, text):
            expected = _expected(spec)
    if lacking:
        names = {spec.name for offer in offered.values() for spec in offer.options}
        found.add(field, f"is not an option of this operation on {_named(lacking)}{_near(option, names)}")
    if expected:
        found.add(field, f"is {text[:64]!r}, which is not {expected}")


def _takes(spec: OptionSpec, text: str) -> bool:
    match spec.type:
        case OptionType.BOOLEAN:
            return text in ("true", "false")
        case OptionType.INTEGER:
            return _INTEGER.fullmatch(text) is not None and _in_range(spec, int(text))
        case OptionType.STRING:
            return not spec.values or text.lower() in {value.lower() for value in spec.values}


def _in_range(spec: OptionSpec, value: int) -> bool:
    above = spec.minimum is None or spec.minimum <= value
    return above and (spec.maximum is None or value <= spec.maximum)


def _expected(spec: OptionSpec) -> str:
    """Word what an option takes."""
    match spec.type:
        case OptionType.BOOLEAN:
            return "true or false"
        case OptionType.INTEGER:
            return f"a whole number {_range(spec)}"
        case OptionType.STRING:
            return f"one of {', '.join(spec.values)}"


def _range(spec: OptionSpec) -> str:
    match spec.minimum, spec.maximum:
        case None, None:
            return "in decimal digits"
        case None, most:
            return f"of at most {most}"
        case least, None:
            return f"of at least {least}"
        case least, most:
            return f"from {least} to {most}"


def _near(name: str, names: set[str]) -> str:
    near = difflib.get_close_matches(name, sorted(names), n=3)
    if near:
        return f"; did you mean {' or '.join(near)}?"
    return f"; there are {', '.join(sorted(names)[:12])}" if names else ""


def _named(targets: list[str]) -> str:
    named = ", ".join(repr(name) for name in targets[:_NAMED_TARGETS])
    more = f" and {len(targets) - _NAMED_TARGETS} more" if len(targets) > _NAMED_TARGETS else ""
    return f"target {named}{more}"


def _spec(request: JobRequest, targets: tuple[str, ...], operations: tuple[RequestedOperation, ...]) -> JobSpec:
    return JobSpec(
        name=request.name or _default_name(targets, operations),
        operations=operations,
        scope=request.scope or Scope.DATABASE,
        retry_policy=_retry_policy(request.retry),
        failure_policy=request.failure_policy,
        priority=request.priority,
        max_parallel=request.max_parallel,
        timeout=request.timeout,
        deadline=request.deadline,
        labels=request.labels,
        selection=request.selection,
        only_if=request.only_if,
        dry_run=request.dry_run,
    )


def _retry_policy(wish: RetryWish) -> RetryPolicy:
    wished: dict[str, Any] = {
        "max_failures": wish.max_failures,
        "max_losses": wish.max_losses,
        "initial_backoff": wish.initial_backoff,
        "max_backoff": wish.max_backoff,
        "backoff_multiplier": wish.backoff_multiplier,
    }
    return replace(RetryPolicy(), **{name: value for name, value in wished.items() if value is not None})


def _default_name(targets: tuple[str, ...], operations: tuple[RequestedOperation, ...]) -> str:
    what = ", ".join(operation.name for operation in operations)
    more = f" and {len(targets) - 1} more" if len(targets) > 1 else ""
    name = f"{what} on {targets[0]}{more}"
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def _children(
    targets: tuple[str, ...], operations: tuple[RequestedOperation, ...], offers: Offers, expected: Expected
) -> tuple[PlannedChild, ...]:
    # Sizes are not known here: what was not learned takes its turn as if it were an ordinary one. What takes less
    # than a second is done in the order of the request.
    ordinary = sum(expected.values()) // len(expected) if expected else 0
    pairs = [(target, operation) for target in targets for operation in operations]
    lane_of = lanes(_exclusive_keys(target, operation.name, offers) for target, operation in pairs)
    return tuple(
        PlannedChild(
            target=target,
            operation=operation.name,
            options=operation.options,
            lane=lane,
            size=expected.get((target, operation.name), ordinary) // SECOND,
            expected=expected.get((target, operation.name)),
        )
        for (target, operation), lane in zip(pairs, lane_of, strict=True)
    )


def _exclusive_keys(target: str, operation: str, offers: Offers) -> tuple[str, ...]:
    """Return the keys that a child excludes others by; of an unknown target that is the target itself."""
    return tuple(_keys(target, operation, offers))


def _keys(target: str, operation: str, offers: Offers) -> Iterator[str]:
    if target not in offers:
        yield f"target:{target}"
        return
    for lock in offers[target][operation].locks:
        if lock.exclusive:
            yield lock.key


def planned_parent(planned: Plan, now: Instant) -> ParentJob:
    """Return the parent job that a plan would make, without an id."""
    counts = Counts(pending=len(planned.children))
    return ParentJob(
        id="",
        spec=planned.spec,
        state=parent_job_state(counts, planned.spec.failure_policy, cancel_requested=False),
        counts=counts,
        sequence=0,
        paused=False,
        cancel_requested=False,
        round=1,
        create_time=now,
        start_time=None,
        end_time=None,
    )
