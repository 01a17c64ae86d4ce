"""Planted defects: each takes one guard out of the product, and the simulation has to notice."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from sqlalchemy import bindparam, delete

from manager_service.domain.attempts import Loss
from manager_service.domain.ports import Hints
from manager_service.store.embedded import EmbeddedTransactions
from manager_service.store.endings import _child as child_row
from manager_service.store.endings import lose_leases
from manager_service.store.expiry import EXPIRED
from manager_service.store.statements import Statement
from manager_service.store.store import SqlJobStore
from manager_service.store.tables import leases
from manager_service.store.unit_of_work import LEASES_OF_CHILDREN, UnitOfWork


def fence_by_worker_only() -> AbstractContextManager[Any]:
    """Take any report of the worker that holds the child, whichever of its leases it is about."""
    return patch("manager_service.store.report._fits", lambda lease, session, _: lease.session_id == session)


def outages_not_made_up_for() -> AbstractContextManager[Any]:
    """Let time count against leases while no manager ran."""
    return patch("manager_service.store.clock.make_up", lambda *_: None)


def successors_forgotten() -> AbstractContextManager[Any]:
    """Let nobody follow an ended child in its lane."""
    return patch("manager_service.store.endings.enter_successors", lambda *_: None)


@contextmanager
def parent_decided_outside_the_transaction() -> Iterator[None]:
    """Commit the children first and the parent job's row in a transaction of its own, a moment later."""
    flush = UnitOfWork.flush
    owed: list[tuple[EmbeddedTransactions, UnitOfWork]] = []

    def commit(self: EmbeddedTransactions, tx: UnitOfWork) -> Hints:
        hints = tx.hints()
        self._writer.commit()
        self._mark.committed()
        owed.append((self, tx))
        asyncio.get_running_loop().call_soon(later)
        return hints

    def later() -> None:
        transactions, tx = owed.pop(0)
        transactions._writer.begin()
        flush(tx)
        transactions._writer.commit()

    with patch.object(EmbeddedTransactions, "commit", commit):
        yield


def _has_lease(tx: UnitOfWork, row: Any) -> bool:
    return bool(tx.rows(LEASES_OF_CHILDREN, ids=[row.child_id]))


@contextmanager
def expiry_filtered_by_id_only() -> Iterator[None]:
    """Read what ran out in one transaction and take it back in another, whatever happened in between."""

    async def expire(self: SqlJobStore, *, limit: int) -> int:
        rows = await self._backend.read(lambda c, now: c.rows(EXPIRED, now=now(), limit=limit))
        await asyncio.sleep(0.5)
        await self._write(lambda tx: lose_leases(tx, [(row, Loss.EXPIRED) for row in rows if _has_lease(tx, row)]))
        return len(rows)

    by_id = Statement(delete(leases).where(leases.c.child_id == bindparam("of")))
    with ExitStack() as stack:
        stack.enter_context(patch.object(SqlJobStore, "expire_leases", expire))
        stack.enter_context(patch("manager_service.store.endings.END_LEASE", by_id))
        yield


def locks_not_taken() -> AbstractContextManager[Any]:
    """Grant a lease whoever holds its keys."""
    return patch("manager_service.store.candidates.Offers.locks_of", lambda *_: {})


def attempts_handed_out_again() -> AbstractContextManager[Any]:
    """Give the number of an attempt back when its lease is lost."""
    return patch("manager_service.store.endings._child", _same_attempts)


def _same_attempts(tx: UnitOfWork, item: Any) -> Mapping[str, Any]:
    row = child_row(tx, item)
    return {**row, "attempts": row["attempts"] - (item.outcome is None)}
