"""Gather why the pending children of a page wait: a few statements a page, none a child."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import bindparam, func, literal_column, select

from manager_service.domain.fleet import SessionState
from manager_service.domain.model import Instant
from manager_service.domain.states import WaitReason
from manager_service.domain.waiting import WaitFacts, wait_reason
from manager_service.store.held_back import held_back_of
from manager_service.store.rows import locks_by_operation, locks_of_child, spec_of
from manager_service.store.statements import Among, Connection, Statement
from manager_service.store.tables import (
    child_jobs,
    leases,
    live_locks,
    parent_counts,
    parent_jobs,
    session_targets,
    sessions,
    targets,
)

# Workers on one target mostly hold it back for the same reason.
_REASONS_TOLD = 3

_PARENTS = Statement(
    select(
        parent_jobs.c.id,
        parent_jobs.c.paused,
        parent_jobs.c.spec,
        (parent_counts.c.leased + parent_counts.c.running).label("live"),
    )
    .select_from(parent_jobs.join(parent_counts, parent_counts.c.parent_id == parent_jobs.c.id))
    .where(Among(parent_jobs.c.id, "ids"))
)
_ahead, _before = child_jobs.alias("ahead"), child_jobs.alias("earlier")
# The nearest open child before each child in its lane: one seek each.
_AHEAD = Statement(
    select(child_jobs.c.id, _ahead.c.operation, _ahead.c.target)
    .select_from(
        child_jobs.join(
            _ahead,
            _ahead.c.id
            == select(_before.c.id)
            .with_hint(_before, "INDEXED BY ix_child_jobs_open")
            .where(
                _before.c.parent_id == child_jobs.c.parent_id,
                _before.c.lane == child_jobs.c.lane,
                _before.c.position < child_jobs.c.position,
                _before.c.state == literal_column("'pending'"),
            )
            .order_by(_before.c.position.desc())
            .limit(1)
            .correlate(child_jobs)
            .scalar_subquery(),
        )
    )
    .where(Among(child_jobs.c.id, "ids"))
)
_TARGETS = Statement(
    select(targets.c.name, targets.c.paused, targets.c.max_parallel).where(Among(targets.c.name, "names"))
)
_slots_used = (
    select(func.count())
    .select_from(leases)
    .where(leases.c.session_id == sessions.c.id)
    .correlate(sessions)
    .scalar_subquery()
)
_SERVED = Statement(
    select(
        session_targets.c.target,
        session_targets.c.operations,
        sessions.c.held_back,
        (sessions.c.slots - _slots_used).label("free"),
    )
    .select_from(session_targets.join(sessions, sessions.c.id == session_targets.c.session_id))
    .where(
        Among(session_targets.c.target, "names"),
        sessions.c.state == SessionState.READY.value,
        sessions.c.heartbeat_time >= bindparam("since"),
    )
)
_LIVE = Statement(
    select(leases.c.target, leases.c.operation, leases.c.worker_name, leases.c.child_id).where(
        Among(leases.c.target, "names")
    )
)
_HELD = Statement(
    select(live_locks.c.key, live_locks.c.exclusive, leases.c.operation, leases.c.worker_name)
    .select_from(live_locks.join(leases, leases.c.child_id == live_locks.c.child_id))
    .where(Among(live_locks.c.key, "keys"))
)


class Waits:
    """The facts about a page of children, read when the first pending one asks."""

    def __init__(
        self, connection: Connection, pending: Sequence[Any], *, now: Instant, alive_since: Instant
    ) -> None:
        self._connection = connection
        self._now = now
        names = sorted({row.target for row in pending})
        rows = connection.rows
        self._parents = {row.id: row for row in rows(_PARENTS, ids=sorted({row.parent_id for row in pending}))}
        ahead = rows(_AHEAD, ids=[row.id for row in pending])
        self._ahead = {row.id: f"{row.operation} on {row.target}" for row in ahead}
        self._targets = {row.name: row for row in rows(_TARGETS, names=names)}
        self._live = _by_target(rows(_LIVE, names=names))
        self._offers = _by_target(rows(_SERVED, names=names, since=alive_since))
        self._held = self._holders(pending)

    def reason(self, row: Any) -> tuple[WaitReason | None, str]:
        """Return why a pending child waits."""
        return wait_reason(self._facts(row), now=self._now)

    def _facts(self, row: Any) -> WaitFacts:
        parent, target = self._parents[row.parent_id], self._targets.get(row.target)
        offers = self._offering(row)
        limit = spec_of(parent.spec).max_parallel
        reasons = [held_back_of(offer.held_back).get(row.target, "") for offer in offers]
        willing = [offer for offer, reason in zip(offers, reasons, strict=True) if not reason]
        return WaitFacts(
            parent_paused=bool(parent.paused),
            ahead=self._ahead.get(row.id, ""),
            available_time=row.available_time,
            last_reason=row.reason,
            target_paused=target is not None and bool(target.paused),
            served=bool(offers),
            holder=self._holder(row),
            parent_full=bool(limit) and parent.live >= limit,
            slots_free=any(offer.free > 0 for offer in willing or offers),
            held_back="" if willing else "; ".join(sorted(set(reasons))[:_REASONS_TOLD]),
        )

    def _offering(self, row: Any) -> list[Any]:
        return [o for o in self._offers.get(row.target, ()) if row.operation in locks_by_operation(o.operations)]

    def _holder(self, row: Any) -> str:
        target, live = self._targets.get(row.target), self._live.get(row.target, [])
        if target is not None and len(live) >= target.max_parallel:
            return _says(live[0])
        for key, exclusive in self._locks(row).items():
            for holder in self._held.get(key, ()):
                if exclusive or holder.exclusive:
                    return _says(holder)
        return ""

    def _locks(self, row: Any) -> Mapping[str, bool]:
        if row.locks is not None:
            return locks_of_child(row.locks)
        offers = self._offering(row)
        return locks_by_operation(offers[0].operations)[row.operation] if offers else {}

    def _holders(self, pending: Sequence[Any]) -> Mapping[str, list[Any]]:
        keys = sorted({key for row in pending for key in self._locks(row)})
        held: dict[str, list[Any]] = {}
        for row in self._connection.rows(_HELD, keys=keys):
            held.setdefault(row.key, []).append(row)
        return held


def _says(holder: Any) -> str:
    return f"{holder.operation} on {holder.worker_name}"


def _by_target(rows: Sequence[Any]) -> dict[str, list[Any]]:
    grouped: dict[str, list[Any]] = {}
    for row in rows:
        grouped.setdefault(row.target, []).append(row)
    return grouped
