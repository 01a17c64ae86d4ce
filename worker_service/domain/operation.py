from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from worker_service.domain.inspection import Inspection
from worker_service.domain.lock import Lock

WORKER_TYPE = "database_maintenance_operation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation on one object of one target, as a lease grants it.

    Attributes:
        name: the operation, such as ``vacuum``.
        target: the logical name of the database.
        object: the table or index it is done to; ``None`` for the whole database.
        options: option names and their values as text, as the request gave them.
        timeout: the longest the operation may run; ``None`` for no limit.
        child_job_id: the child job this attempt belongs to.
        parent_job_id: the parent job, which is the correlation id of every log line.
        attempt: the number of this attempt, from 1.
        inspection: what ``inspect`` looks for; ``None`` with every other operation.
    """

    name: str
    target: str
    object: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    timeout: timedelta | None = None
    child_job_id: str = ""
    parent_job_id: str = ""
    attempt: int = 1
    inspection: Inspection | None = None


class OptionType(StrEnum):
    """How the text of an option is read."""

    BOOLEAN = "boolean"
    INTEGER = "integer"
    STRING = "string"


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionSpec:
    """An option that an operation understands.

    ``minimum`` and ``maximum`` bound a whole number; ``values`` are the only texts that a string option takes, in
    upper or lower case. The manager refuses others when a job is created; the engine checks all the same.
    """

    name: str
    type: OptionType
    description: str
    minimum: int | None = None
    maximum: int | None = None
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationSpec:
    """What an engine says of an operation: its options, and the locks it takes on the whole database."""

    name: str
    description: str
    options: tuple[OptionSpec, ...] = ()
    locks: tuple[Lock, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an operation is.

    ``done`` and ``total`` share ``unit`` and are ``None`` where the engine does not tell: no percentage is
    invented. Within one ``phase`` ``done`` never falls.
    """

    phase: str
    done: int | None = None
    total: int | None = None
    unit: str = ""
