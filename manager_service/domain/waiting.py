"""Why a pending child waits: the pure choice among facts that the store gathers."""

from dataclasses import dataclass

from manager_service.domain.model import Instant
from manager_service.domain.states import WaitReason


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitFacts:
    """What is known about a pending child.

    Attributes:
        parent_paused: the parent job is paused.
        ahead: the operation of the open child before it in its lane; empty at the head.
        available_time: when it may be leased at the earliest.
        last_reason: how its last attempt ended.
        target_paused: the target is paused.
        served: a live worker that takes leases serves the target and offers the operation.
        holder: the operation and worker that keep the target busy; empty where it has room.
        parent_full: the parent job has as many live children as it may.
        slots_free: such a worker has a free slot; where some hold the target back, one of the others.
        held_back: why every such worker holds the target back; empty where one does not.
    """

    parent_paused: bool = False
    ahead: str = ""
    available_time: Instant | None = None
    last_reason: str = ""
    target_paused: bool = False
    served: bool = True
    holder: str = ""
    parent_full: bool = False
    slots_free: bool = True
    held_back: str = ""


def wait_reason(facts: WaitFacts, *, now: Instant) -> tuple[WaitReason | None, str]:
    """Return the first reason that applies and what it says in words; ``None``: about to be granted."""
    later = facts.available_time is not None and facts.available_time > now
    in_order = (
        (facts.parent_paused, WaitReason.PARENT_PAUSED, ""),
        (bool(facts.ahead), WaitReason.PREDECESSOR, facts.ahead),
        (later, WaitReason.AVAILABLE_TIME, facts.last_reason),
        (facts.target_paused, WaitReason.TARGET_PAUSED, ""),
        (not facts.served, WaitReason.NO_WORKER, ""),
        (bool(facts.holder), WaitReason.TARGET_BUSY, facts.holder),
        (facts.parent_full, WaitReason.PARENT_LIMIT, ""),
        (not facts.slots_free, WaitReason.SLOTS_FULL, ""),
        (bool(facts.held_back), WaitReason.THROTTLED, facts.held_back),
    )
    return next(((reason, detail) for applies, reason, detail in in_order if applies), (None, ""))
