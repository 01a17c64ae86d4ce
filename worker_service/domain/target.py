from collections.abc import Mapping
from dataclasses import dataclass, field

from worker_service.domain.inspection import Threshold
from worker_service.domain.operation import OperationSpec
from worker_service.domain.throttle import Throttle


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A database that this worker serves.

    Attributes:
        name: the logical name that jobs use.
        url: where it is; known to this process only, kept out of ``repr``, logs and the wire.
        engine: the name of the engine that serves it.
        labels: key-value pairs that a request can select targets by.
        identity: an explicit identity, needed where the file system cannot give one; ``None`` derives it.
        max_parallel: how many operations may run on it at once, before the engine's own limit.
        throttle: while what holds nothing begins on it; ``None`` for never.
        only_if: when operations are worth their while on it, where a parent job does not say.
    """

    name: str
    url: str = field(repr=False)
    engine: str
    labels: Mapping[str, str] = field(default_factory=dict)
    identity: str | None = None
    max_parallel: int = 1
    throttle: Throttle | None = None
    only_if: tuple[Threshold, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetDescription:
    """What the worker tells the manager about a target; it never includes its URL.

    Attributes:
        engine_version: the version of the library or server that runs the operations.
        identity: which database this really is; equal for two names of one database.
        operations: what can be run, with the locks each takes on the whole database.
    """

    engine_version: str
    identity: str
    operations: tuple[OperationSpec, ...]
