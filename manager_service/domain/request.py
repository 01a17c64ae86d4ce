"""What a client asks for, before anything is filled in, and what is wrong with it by itself."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from manager_service.domain.checks import MAX_NAME, MAX_TEXT, Violations
from manager_service.domain.conditions import ConditionError, condition
from manager_service.domain.errors import FieldViolation
from manager_service.domain.inspection import INSPECT
from manager_service.domain.model import MILLISECOND, Instant, RequestedOperation, Selection, Span, Threshold
from manager_service.domain.states import FailurePolicy, Scope

MAX_TARGETS = 50_000
MAX_OPERATIONS = 1_000
MAX_PRIORITY = 100
MAX_TRIES = 100
MAX_MULTIPLIER = 10
MAX_COUNT = 1_000_000
MAX_OPTION_TEXT = 4_096
MAX_OPTIONS = 64
MAX_PATTERNS = 100
MAX_THRESHOLDS = 100
LAST_INSTANT: Instant = 253_402_300_799_999_999


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryWish:
    """The parts of a retry policy that the client set."""

    max_failures: int | None = None
    max_losses: int | None = None
    initial_backoff: Span | None = None
    max_backoff: Span | None = None
    backoff_multiplier: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """A request for a parent job as it was sent; ``None`` is unset."""

    request_id: str | None = None
    name: str = ""
    targets: tuple[str, ...] = ()
    target_labels: Mapping[str, str] = field(default_factory=dict)
    operations: tuple[RequestedOperation, ...] = ()
    scope: Scope | None = None
    retry: RetryWish = field(default_factory=RetryWish)
    failure_policy: FailurePolicy = field(default_factory=FailurePolicy)
    priority: int = 0
    max_parallel: int = 0
    timeout: Span | None = None
    deadline: Instant | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    dry_run: bool = False
    allow_unknown_targets: bool = False
    selection: Selection = field(default_factory=Selection)
    only_if: tuple[Threshold, ...] = ()


_UNSET = JobRequest()
_ADDED = ("selection", "only_if")


def request_hash(request: JobRequest) -> str:
    """Return the digest of a request without its request_id; equal requests have equal digests.

    What was added later counts only where it is set, so that a request of an older release is told again.
    """
    values = {item.name: getattr(request, item.name) for item in fields(request) if item.name != "request_id"}
    for name in _ADDED:
        if values[name] == getattr(_UNSET, name):
            del values[name]
    text = json.dumps(values, sort_keys=True, ensure_ascii=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return {item.name: getattr(value, item.name) for item in fields(value)}


def request_violations(request: JobRequest, now: Instant) -> tuple[FieldViolation, ...]:
    """Find what is wrong with a request by itself, whatever targets there are."""
    found = Violations()
    if request.request_id is not None:
        found.name("request_id", request.request_id)
    found.text("name", request.name)
    found.labels("labels", request.labels)
    _check_targets(found, request)
    _check_operations(found, request.operations)
    _check_selection(found, request)
    _check_thresholds(found, request)
    _check_retry(found, request.retry)
    _check_limits(found, request)
    _check_deadline(found, request.deadline, now)
    return found.found()


def _check_targets(found: Violations, request: JobRequest) -> None:
    if request.targets and request.target_labels:
        found.add("target_labels", "is exclusive with targets; give one of the two")
    if not request.targets and not request.target_labels:
        found.add("targets", "name at least one target, or select some with target_labels")
    found.labels("target_labels", request.target_labels)
    if found.count("targets", request.targets, MAX_TARGETS):
        for index, name in enumerate(request.targets):
            found.name(f"targets[{index}]", name)
        found.once("targets", request.targets)


def _check_operations(found: Violations, operations: tuple[RequestedOperation, ...]) -> None:
    if not found.count("operations", operations, MAX_OPERATIONS):
        return
    for index, operation in enumerate(operations):
        found.name(f"operations[{index}].name", operation.name)
        if found.count(f"operations[{index}].options", operation.options, MAX_OPTIONS):
            for name, text in operation.options.items():
                path = f"operations[{index}].options[{name[:MAX_TEXT]}]"
                if found.name(path, name, longest=MAX_NAME):
                    found.text(path, text, longest=MAX_OPTION_TEXT)
        if operation.name == INSPECT:
            found.add(
                f"operations[{index}].name",
                "inspect comes by itself with scopes other than database, or only_if",
            )
    found.once("operations", [operation.name for operation in operations], part=".name")


def _check_selection(found: Violations, request: JobRequest) -> None:
    selection = request.selection
    if request.scope in (None, Scope.DATABASE) and selection != Selection():
        found.add("selection", "does not go with the scope database, which has no parts to choose")
    for part, patterns in (("include", selection.include), ("exclude", selection.exclude)):
        if found.count(f"selection.{part}", patterns, MAX_PATTERNS):
            for index, pattern in enumerate(patterns):
                found.name(f"selection.{part}[{index}]", pattern, longest=MAX_TEXT)


def _check_thresholds(found: Violations, request: JobRequest) -> None:
    if not found.count("only_if", request.only_if, MAX_THRESHOLDS):
        return
    for index, threshold in enumerate(request.only_if):
        path = f"only_if[{index}]"
        try:
            condition(threshold.condition)
        except ConditionError as error:
            found.add(f"{path}.condition", str(error))
        for part in ("operation", "target", "object"):
            found.text(f"{path}.{part}", getattr(threshold, part))
        if threshold.object and request.scope in (None, Scope.DATABASE):
            found.add(
                f"{path}.object",
                "does not go with the scope database: leave it out",
            )


def _check_retry(found: Violations, retry: RetryWish) -> None:
    if retry.max_failures is not None:
        found.number("retry_policy.max_failures", retry.max_failures, 1, MAX_TRIES)
    if retry.max_losses is not None:
        found.number("retry_policy.max_losses", retry.max_losses, 1, MAX_TRIES)
    if retry.backoff_multiplier is not None:
        found.number("retry_policy.backoff_multiplier", retry.backoff_multiplier, 1, MAX_MULTIPLIER)
    found.span("retry_policy.initial_backoff", retry.initial_backoff)
    found.span("retry_policy.max_backoff", retry.max_backoff)


def _check_limits(found: Violations, request: JobRequest) -> None:
    most = MAX_COUNT
    found.number("failure_policy.max_failed_children", request.failure_policy.max_failed_children, 0, most)
    found.number("priority", request.priority, -MAX_PRIORITY, MAX_PRIORITY)
    found.number("max_parallel", request.max_parallel, 0, most)
    found.span("timeout", request.timeout, least=MILLISECOND)


def _check_deadline(found: Violations, deadline: Instant | None, now: Instant) -> None:
    if deadline is None:
        return
    if deadline <= now:
        found.add("deadline", "lies in the past; it must lie in the future")
    elif deadline > LAST_INSTANT:
        found.add("deadline", "lies beyond the year 9999; leave it unset for no deadline")
