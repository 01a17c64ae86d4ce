"""Workers, their sessions and their targets, as the manager knows them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum, auto

from manager_service.domain.model import Instant, Span

MAX_SERVED_TARGETS = 10_000  # with all they offer they have to fit into one message


@dataclass(frozen=True, slots=True)
class Versions:
    """The versions of the workers' protocol that a manager takes: its own, and that of one release before."""

    newest: int

    @property
    def oldest(self) -> int:
        """The version before the newest, if there was one."""
        return max(1, self.newest - 1)

    def __contains__(self, version: int) -> bool:
        return self.oldest <= version <= self.newest

    def __str__(self) -> str:
        return f"{self.newest}" if self.oldest == self.newest else f"{self.oldest} to {self.newest}"


TAKEN = Versions(newest=1)


class OptionType(StrEnum):
    """How the text of an option is read."""

    BOOLEAN = auto()
    INTEGER = auto()
    STRING = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionSpec:
    """An option that an operation understands.

    Attributes:
        name: what it is called.
        type: how its text is read.
        description: what it does.
        minimum: the least value of a whole number.
        maximum: the greatest value of a whole number.
        values: the only texts it takes, in upper or lower case; empty takes any.
    """

    name: str
    type: OptionType
    description: str = ""
    minimum: int | None = None
    maximum: int | None = None
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """An opaque key that an operation holds while it runs."""

    key: str
    exclusive: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedOperation:
    """An operation that a worker offers on a target."""

    name: str
    description: str = ""
    options: tuple[OptionSpec, ...] = ()
    locks: tuple[Lock, ...] = ()


Offers = Mapping[str, Mapping[str, OfferedOperation]]
"""What is offered on targets: operations by name, by target."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedTarget:
    """A target as a worker registers it."""

    name: str
    engine: str
    engine_version: str
    identity: str
    labels: Mapping[str, str] = field(default_factory=dict)
    max_parallel: int = 1
    operations: tuple[OfferedOperation, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """Who a worker is and what it serves."""

    worker_name: str
    instance_id: str
    build: str = ""
    host: str = ""
    pid: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    targets: tuple[ServedTarget, ...] = ()
    slots: int = 1


class SessionState(StrEnum):
    """How a worker's session stands. STALE and LOST follow from the last heartbeat and are not stored."""

    READY = auto()
    DRAINING = auto()
    STALE = auto()
    LOST = auto()
    SUPERSEDED = auto()
    CLOSED = auto()


class WorkerDirective(StrEnum):
    """What a worker as a whole is to do."""

    NONE = auto()
    DRAIN = auto()
    TERMINATE = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A worker as operators see it; ``slots_used`` is counted from the live leases."""

    worker_name: str
    instance_id: str
    session_id: str
    state: SessionState
    build: str
    host: str
    pid: int
    labels: Mapping[str, str]
    slots: int
    slots_used: int
    targets: tuple[str, ...]
    create_time: Instant
    heartbeat_time: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """Workers that were found to be lost, and when that was, by the store's clock; whoever gets them tells it."""

    workers: tuple[Worker, ...]
    time: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A target as operators and the planner see it."""

    name: str
    engine: str
    engine_version: str
    identity: str
    labels: Mapping[str, str]
    max_parallel: int
    operations: tuple[OfferedOperation, ...]
    paused: bool
    workers: tuple[str, ...]
    pending: int
    live: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The spans that leases live by, the same for a whole deployment.

    A lease outlives three missed heartbeats and a period of the expirer; a lease that no heartbeat or report
    names within ``accept_within`` is taken back at no cost.
    """

    heartbeat_interval: Span = 10_000_000
    lease_duration: Span = 45_000_000
    accept_within: Span = 20_000_000
    poll_window: Span = 50_000_000
