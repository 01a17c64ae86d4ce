import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from worker_service.catalogue import Served
from worker_service.domain.errors import InvalidOperationError
from worker_service.domain.operation import Operation

DEFAULT_OPERATIONS = ("vacuum", "analyze", "reindex")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedOperation:
    """The statements that an operation would run, in order."""

    operation: str
    statements: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetPlan:
    """What would run on one target."""

    name: str
    engine: str
    operations: tuple[PlannedOperation, ...]


def plan_target(served: Served, operations: Sequence[str]) -> TargetPlan:
    """Tell the statements that the operations would run on a target; nothing is changed.

    Raises:
        InvalidOperationError: the engine does not know an operation; the message names the nearest.
        TargetUnavailableError: the target cannot be read just now.
    """
    target = served.target
    known = [spec.name for spec in served.engine.describe(target).operations]
    for name in operations:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it knows {', '.join(known)}."
            raise InvalidOperationError(f"The engine {target.engine} has no operation {name!r}: {hint}")
    planned = tuple(
        PlannedOperation(
            operation=name,
            statements=served.engine.plan(target, Operation(name=name, target=target.name)),
        )
        for name in operations
    )
    return TargetPlan(name=target.name, engine=target.engine, operations=planned)
