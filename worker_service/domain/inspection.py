"""What an ``inspect`` child looks for, and what it finds."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum, auto
from fnmatch import fnmatchcase

from worker_service.domain.lock import Lock

INSPECT = "inspect"
"""The operation that finds the objects of a target; an engine that knows objects offers it."""


class Scope(StrEnum):
    """What the objects of a parent job's children are to be; CUSTOMARY leaves it to the engine."""

    DATABASE = auto()
    TABLE = auto()
    INDEX = auto()
    CUSTOMARY = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which objects are meant, by patterns with ``*``, ``?`` and ``[...]``; without any all are."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def takes(self, *names: str) -> bool:
        """Tell whether an object is meant that has these names: the whole one, and the one without a schema."""
        if any(fnmatchcase(name, pattern) for name in names for pattern in self.exclude):
            return False
        return not self.include or any(fnmatchcase(name, pattern) for name in names for pattern in self.include)


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedOperation:
    """An operation that is to be planned, with its options as the request gave them."""

    name: str
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What is to be looked for.

    Attributes:
        scope: what the objects are to be. For each operation the engine takes the narrowest that it does the
            operation to and that is no narrower than this: no table is vacuumed by the index.
        operations: what is to be done to them.
        selection: which of them are meant; it does not apply to a whole database.
        preview: whether the statements are to be told.
    """

    scope: Scope = Scope.DATABASE
    operations: tuple[WantedOperation, ...] = ()
    selection: Selection = Selection()
    preview: bool = False

    def decided(self, customary: Scope) -> "Inspection":
        """Return it with the engine's own scope where that is left to the engine."""
        return replace(self, scope=customary) if self.scope is Scope.CUSTOMARY else self


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """When an operation is worth its while on a target, as its owner set it.

    Attributes:
        condition: what has to hold of an object's measures, such as ``dead_ratio > 0.1``.
        operation: the operation it is for; empty for all.
        object: the objects it is for, as a pattern of ``Selection``; empty for all.
    """

    condition: str
    operation: str = ""
    object: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """That the operation ``by`` does all that ``operation`` would do to an object; ``reason`` says why."""

    operation: str
    by: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectedObject:
    """An object that was found.

    Attributes:
        object: its name, as an ``Operation`` has it; ``None`` for the whole database.
        operations: the names of what is to be done to it.
        size_bytes: how large it is, 0 for unknown; larger ones go first.
        measures: numbers by name, without those that are not known of it.
        locks: what is held while something is done to it, beside the locks of all objects. Where there is neither,
            what is offered for the whole database.
        previews: for each of the operations the statements that would run, and whom their locks keep out.
        left_out: why nothing is to be done to it all the same; empty where something is.
        urgent: whether it goes first, whatever its size: the whole database is in danger while it waits.
            Of several the first in the answer.
        covered: which of the operations are not needed where another of them is done. One that covers is not
            covered itself.
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
    """What was found, in the order of the children that come of it.

    ``locks`` are held whatever is done to one of the objects. ``measures`` are names that an object may have a
    measure by even if none of these does: a threshold may ask for the age of a vacuum that never was. ``only_if``
    is not the engine's: the worker adds what the target's owner set.
    """

    objects: tuple[InspectedObject, ...] = ()
    locks: tuple[Lock, ...] = ()
    measures: tuple[str, ...] = ()
    only_if: tuple[Threshold, ...] = ()
