"""Carry out the end of attempts: the only way a lease ends."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, delete, insert, update

from manager_service.domain.attempts import Budget, Ending, Loss, Stop, end_by_loss
from manager_service.domain.model import Failure
from manager_service.domain.states import ChildJobState, Outcome
from manager_service.domain.totals import NOTHING, Totals
from manager_service.store.lanes import Head, enter_queue, enter_successors
from manager_service.store.parents import ParentInWork
from manager_service.store.rows import failure_text, text_of
from manager_service.store.statements import Among, Rows, Statement
from manager_service.store.tables import attempts, child_jobs, leases, live_locks
from manager_service.store.totals import waiters_text
from manager_service.store.unit_of_work import UnitOfWork

# The compare-and-set of every end of a lease.
END_LEASE = Statement(
    delete(leases).where(
        leases.c.child_id == bindparam("of"),
        leases.c.lease_id == bindparam("lease"),
        leases.c.attempt == bindparam("number"),
    )
)
_UNLOCK = Statement(delete(live_locks).where(Among(live_locks.c.child_id, "ids")))
_INSERT_ATTEMPT = Statement(insert(attempts))
_UPDATE_CHILD = Statement(
    update(child_jobs)
    .where(child_jobs.c.id == bindparam("of"))
    .values(
        {
            name: bindparam(name)
            for name in (
                "attempts",
                "failures",
                "losses",
                "version",
                "state",
                "verdict",
                "reason",
                "failure",
                "before",
                "after",
                "available_time",
                "start_time",
                "end_time",
                "waiters",
            )
        }
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A live lease whose attempt ends; ``lease`` is its row. Without a report it has no outcome and no totals."""

    lease: Any
    ending: Ending
    outcome: Outcome | None = None
    report_id: str | None = None
    failure: Failure | None = None
    reason: str = ""
    totals: Totals = NOTHING


def hold_leases(tx: UnitOfWork, rows: Sequence[Any], *, wait: bool = True) -> Sequence[Any]:
    """Hold leases that were read, and return what they are now, but for those that ended meanwhile.

    Their children may have others by now, which are none of these.

    Args:
        tx: the transaction.
        rows: the leases as they were read.
        wait: whether to wait for others that hold them; those are left out otherwise.
    """
    if tx.exclusion.alone or not rows:
        return rows
    parents, read = {row.parent_id for row in rows}, {row.lease_id for row in rows}
    if wait:
        tx.share(parents)
    else:
        shared = tx.ask_share(parents)()
        rows = [row for row in rows if row.parent_id in shared]
    held = tx.exclusion.leases([row.child_id for row in rows], wait=wait)()
    return [row for row in held if row.lease_id in read]


def budget_of(lease: Any, parent: ParentInWork) -> Budget:
    """Return what the child of a live lease has spent, and what stops it."""
    return Budget(
        failures=lease.failures,
        losses=lease.losses,
        policy=parent.spec.retry_policy,
        stop=Stop(lease.stop) if lease.stop else None,
        stop_reason=lease.stop_reason,
    )


def end_attempts(tx: UnitOfWork, ended: Sequence[Ended], following: Rows | None = None) -> None:
    """Delete the leases, write the attempts and the children, and let go on what waited for them.

    Args:
        tx: the transaction.
        ended: the leases, and how they end.
        following: what comes after these and perhaps other children in their lanes, where it was asked before.
    """
    if not ended:
        return
    parents = tx.parents(item.lease.parent_id for item in ended)
    children = [item.lease.child_id for item in ended]
    tx.post(_UNLOCK, ids=children)
    tx.expect(tx.ask_many(END_LEASE, [_fence(item.lease) for item in ended]), children)
    tx.post_many(_INSERT_ATTEMPT, [_attempt(tx, item) for item in ended])
    tx.post_many(_UPDATE_CHILD, [_child(tx, item) for item in ended])
    for item in ended:
        _tell(tx, parents[item.lease.parent_id], item)
    tx.settle()
    enter_queue(tx, [_again(tx, parents, item) for item in ended if not item.ending.state.final])
    for item in ended:
        if not item.ending.state.final and parents[item.lease.parent_id].stopping:
            tx.to_sweep(parents[item.lease.parent_id])
    final = {item.lease.child_id for item in ended if item.ending.state.final}
    if final:
        enter_successors(tx, final, parents, following)


def lose_leases(tx: UnitOfWork, lost: Sequence[tuple[Any, Loss]]) -> None:
    """Take live leases back without a report."""
    parents = tx.parents(lease.parent_id for lease, _ in lost)
    ended = []
    for lease, loss in lost:
        budget = budget_of(lease, parents[lease.parent_id])
        ending = end_by_loss(budget, loss, now=tx.now, jitter=tx.ids.random())
        ended.append(Ended(lease=lease, ending=ending, reason=ending.reason))
    end_attempts(tx, ended)


def _fence(lease: Any) -> dict[str, Any]:
    return {"of": lease.child_id, "lease": lease.lease_id, "number": lease.attempt}


def _attempt(tx: UnitOfWork, item: Ended) -> dict[str, Any]:
    lease = item.lease
    reported = tx.now if item.outcome is not None else None
    return {
        "child_id": lease.child_id,
        "attempt": lease.attempt,
        "lease_id": lease.lease_id,
        "worker_name": lease.worker_name,
        "report_id": item.report_id,
        "outcome": item.outcome,
        "failure": failure_text(item.failure),
        "reason": item.reason,
        "create_time": lease.grant_time,
        # A report accepts a lease as a heartbeat does.
        "start_time": reported if lease.start_time is None else lease.start_time,
        "end_time": tx.now,
    }


def _child(tx: UnitOfWork, item: Ended) -> dict[str, Any]:
    lease, ending = item.lease, item.ending
    return {
        "of": lease.child_id,
        "attempts": lease.attempt,
        "failures": ending.failures,
        "losses": ending.losses,
        "version": lease.version + 1,
        "state": ending.state.value,
        "verdict": ending.verdict,
        "reason": ending.reason,
        "failure": failure_text(ending.failure),
        "before": text_of(ending.before),
        "after": text_of(ending.after),
        "available_time": ending.available_time,
        "start_time": lease.grant_time if lease.start_time is None else lease.start_time,
        "end_time": tx.now if ending.state.final else None,
        "waiters": waiters_text(item.totals.waiters),
    }


def _tell(tx: UnitOfWork, parent: ParentInWork, item: Ended) -> None:
    lease, ending = item.lease, item.ending
    parent.child_changed(
        lease.child_id,
        ChildJobState(lease.state),
        ending.state,
        attempts=lease.attempt,
        version=lease.version + 1,
        verdict=ending.verdict,
        reason=ending.reason,
    )
    parent.add_totals(item.totals)
    tx.freed(parent, lease.child_id, lease.target)
    if ending.state is ChildJobState.COMPLETED:
        tx.completed(lease.child_id, tx.now - lease.grant_time)


def _again(tx: UnitOfWork, parents: dict[str, ParentInWork], item: Ended) -> Head:
    return Head(
        child_id=item.lease.child_id,
        parent=parents[item.lease.parent_id],
        target=item.lease.target,
        operation=item.lease.operation,
        available_time=item.ending.available_time or tx.now,
    )
