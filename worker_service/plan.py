import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from worker_service.catalogue import Served
from worker_service.domain.errors import InvalidOperationError
from worker_service.domain.operation import Operation


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedOperation:
    """An operation to be planned, with its options as text."""

    name: str
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> "WantedOperation":
        """Read ``NAME`` or ``NAME:option=value,option=value``; raise ``InvalidOperationError``."""
        name, colon, rest = text.partition(":")
        pairs = [pair.partition("=") for pair in rest.split(",")] if colon else []
        if not name or not all(key and equals for key, equals, _ in pairs):
            raise InvalidOperationError(f"{text!r} is no operation: write NAME or NAME:option=value,option=value.")
        return cls(name=name, options={key: value for key, _, value in pairs})


DEFAULT_OPERATIONS = tuple(WantedOperation(name=name) for name in ("vacuum", "analyze", "reindex"))


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


def plan_target(served: Served, operations: Sequence[WantedOperation]) -> TargetPlan:
    """Tell the statements that the operations would run on a target; nothing is changed.

    Raises:
        InvalidOperationError: the engine does not know an operation or an option; the message says which it knows.
        TargetUnavailableError: the target cannot be read just now.
    """
    target = served.target
    known = [spec.name for spec in served.engine.describe(target).operations]
    for wanted in operations:
        if wanted.name not in known:
            near = difflib.get_close_matches(wanted.name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it knows {', '.join(known)}."
            raise InvalidOperationError(f"The engine {target.engine} has no operation {wanted.name!r}: {hint}")
    planned = tuple(
        PlannedOperation(
            operation=wanted.name,
            statements=served.engine.plan(
                target, Operation(name=wanted.name, target=target.name, options=wanted.options)
            ),
        )
        for wanted in operations
    )
    return TargetPlan(name=target.name, engine=target.engine, operations=planned)
