"""A clock that stands still, ids that count, and a store that answers as it is told."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from manager_service.domain.fleet import (
    Lock,
    OfferedOperation,
    Offers,
    OptionSpec,
    OptionType,
    Target,
    WorkerDirective,
)
from manager_service.domain.leases import (
    Heartbeat,
    HeartbeatAnswer,
    Lease,
    LeaseDirective,
    Poll,
    Report,
    ReportAnswer,
)
from manager_service.domain.model import ChildJob, JobSpec, ParentJob, Progress, RequestedOperation
from manager_service.domain.states import ChildJobState, Counts, ParentJobState

NOW = 1_800_000_000_000_000
CHILD_ID = "0190b5a0-0000-7000-8000-000000000002"
PARENT_ID = "0190b5a0-0000-7000-8000-000000000001"


class StillClock:
    """A clock that moves only when it is told to."""

    def __init__(self) -> None:
        self.now = NOW
        self.steady = 0

    def wall(self) -> int:
        return self.now

    def monotonic(self) -> int:
        return self.steady


class CountedIds:
    """Ids that count; chance that is always the same."""

    def __init__(self, chance: float = 0.0) -> None:
        self.made = 0
        self.chance = chance

    def new_id(self) -> str:
        self.made += 1
        return f"0190b5a0-0000-7000-8000-{self.made:012d}"

    def random(self) -> float:
        return self.chance


def offered(
    name: str, *, key: str | None = None, exclusive: bool = True, options: dict[str, OptionType] | None = None
) -> OfferedOperation:
    locks = (Lock(key=key, exclusive=exclusive),) if key else ()
    specs = tuple(OptionSpec(name=option, type=kind) for option, kind in (options or {}).items())
    return OfferedOperation(name=name, options=specs, locks=locks)


def target(name: str, *offers: OfferedOperation, key: str | None = None) -> Target:
    """Make a target that offers vacuum, analyze and reindex under one exclusive key, unless told otherwise."""
    default = tuple(
        offered(operation, key=key or f"file:{name}") for operation in ("vacuum", "analyze", "reindex")
    )
    return Target(
        name=name,
        engine="sqlite",
        engine_version="3.51",
        identity=f"id:{name}",
        labels={},
        max_parallel=1,
        operations=offers or default,
        paused=False,
        workers=(),
        pending=0,
        live=0,
    )


def known(*targets: Target) -> Offers:
    return {item.name: {offer.name: offer for offer in item.operations} for item in targets}


def lease(number: int = 1, *, on: str = "app") -> Lease:
    return Lease(
        lease_id=f"lease-{number}",
        attempt=1,
        child_job_id=CHILD_ID,
        parent_job_id=PARENT_ID,
        operation="vacuum",
        options={},
        target=on,
        object=None,
        timeout=None,
    )


def parent_job(state: ParentJobState = ParentJobState.RUNNING, *, sequence: int = 1) -> ParentJob:
    return ParentJob(
        id=PARENT_ID,
        spec=JobSpec(name="n", operations=(RequestedOperation(name="vacuum"),)),
        state=state,
        counts=Counts(pending=1),
        sequence=sequence,
        paused=False,
        cancel_requested=False,
        round=1,
        create_time=NOW,
        start_time=None,
        end_time=None,
    )


def child_job(state: ChildJobState = ChildJobState.RUNNING, *, attempts: int = 1) -> ChildJob:
    return ChildJob(
        id=CHILD_ID,
        parent_job_id=PARENT_ID,
        operation="vacuum",
        options={},
        target="app",
        object=None,
        state=state,
        verdict=None,
        reason="",
        attempts=attempts,
        failures=0,
        losses=0,
        failure=None,
        before={},
        after={},
        version=1,
        position=0,
        wait_reason=None,
        wait_detail="",
        available_time=None,
        worker_name="w",
        create_time=NOW,
        start_time=NOW,
        end_time=None,
    )


@dataclass
class LeaseStore:
    """Answers lease verbs: grants what is in ``ready``, tells what is in ``directives``."""

    ready: list[Lease] = field(default_factory=list)
    directives: dict[str, LeaseDirective] = field(default_factory=dict)
    directive: WorkerDirective = WorkerDirective.NONE
    acquired: list[tuple[str, int]] = field(default_factory=list)
    beats: list[Heartbeat] = field(default_factory=list)
    accepted: tuple[tuple[str, str, str], ...] = ()
    back: str | None = None
    error: Exception | None = None

    async def acquire(self, session_id: str, poll: Poll) -> tuple[Lease, ...]:
        self.acquired.append((session_id, poll.sequence))
        if self.error:
            raise self.error
        granted, self.ready = self.ready[: poll.max_leases], self.ready[poll.max_leases :]
        return tuple(granted)

    async def heartbeat(self, heartbeat: Heartbeat) -> HeartbeatAnswer:
        self.beats.append(heartbeat)
        answers = tuple(self.directives.get(item.lease_id, LeaseDirective.CONTINUE) for item in heartbeat.leases)
        return HeartbeatAnswer(leases=answers, directive=self.directive, accepted=self.accepted, back=self.back)

    async def report(self, session_id: str, reports: Sequence[Report], poll: Poll | None) -> ReportAnswer:
        return ReportAnswer(statuses=(), leases=())


class SilentFeed:
    """A progress feed that keeps what was published."""

    def __init__(self) -> None:
        self.published: list[tuple[str, str, int, Progress]] = []

    def publish(self, parent_job_id: str, child_job_id: str, attempt: int, progress: Progress) -> None:
        self.published.append((parent_job_id, child_job_id, attempt, progress))

    def passed(self, parent_job_id: str, child_job_id: str, attempt: int) -> None:
        raise NotImplementedError

    def estimated(self, child: ChildJob) -> ChildJob:
        raise NotImplementedError

    def follow(self, parent_job_id: str, ring: Any) -> Any:
        raise NotImplementedError
