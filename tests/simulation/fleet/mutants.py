"""Planted defects that only a crowd shows: each takes one guard out of the product."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from manager_service.domain import planning
from manager_service.domain.attempts import Loss, end_by_loss
from manager_service.leasing import LeaseDesk
from manager_service.progress import Follower, ProgressHub, _Followed
from manager_service.store import lanes
from manager_service.store.create import Children
from manager_service.store.unit_of_work import UnitOfWork
from worker_service.backoff import Backoff

_row = lanes._row
_heads = Children.heads
_turn = UnitOfWork.turn
_spec = planning._spec


@contextmanager
def first_come_first_served() -> Iterator[None]:
    """Let the order of the ids decide, whose parent job ever it is."""

    def heads(children: Children) -> Iterator[dict[str, Any]]:
        return ({**row, "turn": 0} for row in _heads(children))

    with (
        patch.object(lanes, "_row", lambda tx, head: {**_row(tx, head), "turn": 0}),
        patch.object(Children, "heads", heads),
    ):
        yield


def priority_ignored() -> AbstractContextManager[Any]:
    """Take every parent job for one of the same priority."""
    return patch.object(planning, "_spec", lambda *given: replace(_spec(*given), priority=0))


def newcomers_join_the_turn_under_way() -> AbstractContextManager[Any]:
    """Let the head of a new parent job be granted before those who wait for the next turn."""
    return patch.object(UnitOfWork, "turn", lambda tx, rank: _turn(tx, rank) - 1)


def limit_of_a_parent_job_ignored() -> AbstractContextManager[Any]:
    """Grant as if parent jobs had no ``max_parallel``."""
    return patch(
        "manager_service.store.choosing.Limits._room",
        lambda limits, head: limits._parents.setdefault(head.parent_id, 1_000_000),
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


def silent_sessions_not_forgotten() -> AbstractContextManager[Any]:
    """Remember for ever what workers served that never said goodbye."""
    return patch("manager_service.leasing.sessions.Sessions._forget_silent", lambda _: None)


def polls_not_forgotten() -> AbstractContextManager[Any]:
    """Remember the polls of sessions that ended."""
    return patch("manager_service.store.acquire.Polls.forget", lambda *_: None)


def heartbeats_not_forgotten() -> AbstractContextManager[Any]:
    """Remember the heartbeats of sessions that are silent for ever."""
    return patch("manager_service.leasing.heartbeats.takewhile", lambda *_: ())


def progress_not_forgotten() -> AbstractContextManager[Any]:
    """Remember how far children were that have ended."""
    return patch("manager_service.progress._Paces._forget_old", lambda *_: None)


def offers_not_forgotten() -> AbstractContextManager[Any]:
    """Remember what was ever offered, however much that is."""
    return patch(
        "manager_service.store.offers.KeptOffers.keep",
        lambda offers, offers_id, target, locks: offers._kept.update({(offers_id, target): locks}),
    )


def pages_not_forgotten() -> AbstractContextManager[Any]:
    """Remember pages of events that nobody asks for any more."""
    return patch("manager_service.orchestrator.event_pages.EventPages._forget_old", lambda *_: None)


def followers_not_forgotten() -> AbstractContextManager[Any]:
    """Remember who followed a parent job."""

    @contextmanager
    def follow(self: ProgressHub, parent_job_id: str, ring: Callable[[], None]) -> Iterator[Follower]:
        follower = Follower(self._clock, ring)
        self._followed.setdefault(parent_job_id, _Followed()).followers.add(follower)
        yield follower

    return patch.object(ProgressHub, "follow", follow)


@contextmanager
def reports_kept() -> Iterator[None]:
    """Keep every report, where no object of the manager shows it."""
    kept: list[Any] = []
    report = LeaseDesk.report

    async def keep(self: LeaseDesk, session_id: str, reports: Any, poll: Any) -> Any:
        kept.append(reports)
        return await report(self, session_id, reports, poll)

    with patch.object(LeaseDesk, "report", keep):
        yield
