"""What a client asks for, in Python's own types."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta

from google.protobuf import duration_pb2, timestamp_pb2

from manager_service.client.options import Scope
from manager_service.client.thresholds import Threshold
from overhaul.v1 import job_pb2, job_service_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """An operation with its options as text, such as ``Operation(name="analyze", options={"limit": "400"})``."""

    name: str
    options: Mapping[str, str] = field(default_factory=dict)

    def to_wire(self) -> job_pb2.OperationSpec:
        """Return the message."""
        return job_pb2.OperationSpec(name=self.name, options=self.options)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """A parent job to be created; `targets` or `target_labels` is enough.

    ``None`` and empty take the manager's defaults: vacuum, analyze and reindex, three failures and three
    losses per child, no limits. ``timeout`` bounds one attempt of one operation, ``deadline`` (which must have
    a time zone) the whole job. ``max_failed`` ends the job when more children failed; ``fail_fast`` is its 0.
    With the scopes table and index the children are done to the objects that fit ``include`` and not ``exclude``;
    ``only_if`` skips those that are not worth their while.
    """

    targets: Sequence[str] = ()
    target_labels: Mapping[str, str] = field(default_factory=dict)
    operations: Sequence[str | Operation] = ()
    name: str = ""
    priority: int = 0
    max_parallel: int = 0
    timeout: timedelta | None = None
    deadline: datetime | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    fail_fast: bool = False
    max_failed: int | None = None
    max_failures: int | None = None
    max_losses: int | None = None
    allow_unknown_targets: bool = False
    scope: Scope | None = None
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    only_if: Sequence[str | Threshold] = ()

    def to_wire(self, *, request_id: str | None, dry_run: bool = False) -> job_service_pb2.CreateParentJobRequest:
        """Return the message that asks for it."""
        return job_service_pb2.CreateParentJobRequest(
            request_id=request_id,
            name=self.name,
            targets=self.targets,
            target_labels=self.target_labels,
            operations=[_operation(operation).to_wire() for operation in self.operations],
            retry_policy=self._retry_policy(),
            failure_policy=self._failure_policy(),
            priority=self.priority,
            max_parallel=self.max_parallel,
            timeout=_duration(self.timeout),
            deadline=_timestamp(self.deadline),
            labels=self.labels,
            dry_run=dry_run,
            allow_unknown_targets=self.allow_unknown_targets,
            scope=_SCOPES[self.scope],
            selection=self._selection(),
            only_if=[_threshold(item) for item in self.only_if],
        )

    def _selection(self) -> job_pb2.Selection | None:
        return (
            job_pb2.Selection(include=self.include, exclude=self.exclude) if self.include or self.exclude else None
        )

    def _retry_policy(self) -> job_pb2.RetryPolicy | None:
        if self.max_failures is None and self.max_losses is None:
            return None
        return job_pb2.RetryPolicy(max_failures=self.max_failures, max_losses=self.max_losses)

    def _failure_policy(self) -> job_pb2.FailurePolicy | None:
        if self.fail_fast:
            return job_pb2.FailurePolicy(mode=job_pb2.FAILURE_MODE_FAIL_FAST)
        if self.max_failed is None:
            return None
        return job_pb2.FailurePolicy(mode=job_pb2.FAILURE_MODE_MAX_FAILED, max_failed_children=self.max_failed)


_SCOPES: Mapping[Scope | None, "job_pb2.Scope.ValueType"] = {
    None: job_pb2.SCOPE_UNSPECIFIED,
    Scope.DATABASE: job_pb2.SCOPE_DATABASE,
    Scope.TABLE: job_pb2.SCOPE_TABLE,
    Scope.INDEX: job_pb2.SCOPE_INDEX,
    Scope.CUSTOMARY: job_pb2.SCOPE_CUSTOMARY,
}


def _threshold(item: str | Threshold) -> job_pb2.Threshold:
    return job_pb2.Threshold(condition=item) if isinstance(item, str) else job_pb2.Threshold(**asdict(item))


def _operation(operation: str | Operation) -> Operation:
    return Operation(name=operation) if isinstance(operation, str) else operation


def _duration(value: timedelta | None) -> duration_pb2.Duration | None:
    if value is None:
        return None
    wire = duration_pb2.Duration()
    wire.FromTimedelta(value)
    return wire


def _timestamp(value: datetime | None) -> timestamp_pb2.Timestamp | None:
    if value is None:
        return None
    wire = timestamp_pb2.Timestamp()
    wire.FromDatetime(value.astimezone(UTC))
    return wire
