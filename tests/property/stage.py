"""The small world that the machine plays in: few targets, with every kind of lock, and short budgets."""

from collections.abc import Collection, Sequence

from manager_service.domain.fleet import Lock, OfferedOperation, Registration, ServedTarget
from manager_service.domain.model import (
    SECOND,
    Instant,
    JobSpec,
    Plan,
    PlannedChild,
    RequestedOperation,
    RetryPolicy,
)
from manager_service.domain.states import FailurePolicy

OPERATIONS = ("vacuum", "analyze")
TARGETS = ("alias a", "alias b", "wide", "plain")
# Which targets and operations a worker may offer. No job needs the spare target: it can be forgotten.
OFFERS: Sequence[tuple[Collection[str], Collection[str]]] = (
    (TARGETS, OPERATIONS),
    (("wide", "plain"), OPERATIONS),
    (("alias a", "wide", "spare"), ("analyze",)),
)
POLICY = RetryPolicy(max_failures=2, max_losses=2, initial_backoff=10 * SECOND, max_backoff=15 * SECOND)


def served(name: str, operations: Collection[str], identity: str = "") -> ServedTarget:
    return ServedTarget(
        name=name,
        engine="sqlite",
        engine_version="3.53",
        identity=identity or f"file:{name}",
        max_parallel=2 if name == "wide" else 1,
        operations=tuple(
            OfferedOperation(name=operation, locks=_locks(name, operation))
            for operation in OPERATIONS
            if operation in operations
        ),
    )


def _locks(target: str, operation: str) -> tuple[Lock, ...]:
    if target == "wide":
        return (Lock(key="wide", exclusive=operation == "vacuum"),)
    return (Lock(key=_key(target), exclusive=True),)


def _key(target: str) -> str:
    """Return what a target's operations exclude each other by: two of the names mean the same file."""
    return "file" if target.startswith("alias") else target


def registration(worker_name: str, instance_id: str, offer: int, slots: int, identity: str = "") -> Registration:
    targets, operations = OFFERS[offer]
    return Registration(
        worker_name=worker_name,
        instance_id=instance_id,
        targets=tuple(served(name, operations, identity) for name in targets),
        slots=slots,
    )


def plan(
    targets: Sequence[str],
    operations: Sequence[str],
    *,
    request_id: str | None,
    priority: int,
    max_parallel: int,
    failure_policy: FailurePolicy,
    deadline: Instant | None,
) -> Plan:
    pairs = [(target, operation) for target in targets for operation in operations]
    return Plan(
        request_id=request_id,
        request_hash="hash",
        spec=JobSpec(
            name="upkeep",
            operations=tuple(RequestedOperation(name=name) for name in operations),
            retry_policy=POLICY,
            failure_policy=failure_policy,
            priority=priority,
            max_parallel=max_parallel,
            timeout=60 * SECOND,
            deadline=deadline,
        ),
        children=tuple(
            PlannedChild(target=target, operation=operation, lane=_lane(target, operation, position))
            for position, (target, operation) in enumerate(pairs)
        ),
    )


def _lane(target: str, operation: str, position: int) -> str:
    return f"own {position}" if (target, operation) == ("wide", "analyze") else _key(target)
