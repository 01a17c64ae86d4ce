"""Planted defects that only a crowd shows: each takes one guard out of the product."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

from manager_service.domain.attempts import Loss, end_by_loss
from manager_service.store import lanes
from worker_service.backoff import Backoff

_row = lanes._row


def first_come_first_served() -> AbstractContextManager[Any]:
    """Let the order of the ids decide, whose parent job ever it is."""
    return patch.object(lanes, "_row", lambda tx, head: {**_row(tx, head), "turn": 0})


def priority_ignored() -> AbstractContextManager[Any]:
    """Queue every head at the same rank."""
    return patch.object(lanes, "_row", lambda tx, head: {**_row(tx, head), "rank": 0})


def newcomers_join_the_turn_under_way() -> AbstractContextManager[Any]:
    """Let the head of a new parent job be granted before those who wait for the next turn."""

    def row(tx: Any, head: Any) -> dict[str, Any]:
        before = head.parent.last_turn
        made = _row(tx, head)
        made["turn"] = head.parent.last_turn = max(tx.turn(made["rank"]), before + 1)
        return made

    return patch.object(lanes, "_row", row)


def limit_of_a_parent_job_ignored() -> AbstractContextManager[Any]:
    """Grant as if parent jobs had no ``max_parallel``."""
    return patch(
        "manager_service.store.acquire._Limits._room",
        lambda limits, parent: limits._parents.setdefault(parent.id, 1_000_000),
    )


def outages_not_made_up_for() -> AbstractContextManager[Any]:
    """Let time count against leases while no manager ran."""
    return patch("manager_service.store.clock.make_up", lambda *_: None)


def leases_not_taken_back() -> AbstractContextManager[Any]:
    """Let nobody look for leases that ran out."""

    async def nothing(_: Any) -> None:
        return

    return patch("manager_service.housekeeping.Housekeeping._expire_leases", nothing)


def any_loss_costs() -> AbstractContextManager[Any]:
    """Count the loss of a lease that was never accepted, too."""
    return patch(
        "manager_service.store.endings.end_by_loss",
        lambda budget, _, **given: end_by_loss(budget, Loss.EXPIRED, **given),
    )


@contextmanager
def pauses_without_jitter() -> Iterator[None]:
    """Let whoever finds no manager try again after the same pauses."""
    pause = Backoff.pause

    async def same(self: Backoff, **given: Any) -> None:
        self._draw = lambda: 1.0
        await pause(self, **given)

    with patch.object(Backoff, "pause", same):
        yield
