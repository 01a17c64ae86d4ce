"""What a transaction owes at its end: to its parent jobs, and to those who listen."""

from dataclasses import replace

from manager_service.domain.ports import Hints
from manager_service.store.unit_of_work import UnitOfWork


def settled(tx: UnitOfWork) -> Hints:
    """Write what a unit of work owes, and return what listeners are to look at once it is committed."""
    tx.flush()
    hints = tx.hints()
    changed = tx.parents(hints.parents)
    ended = tuple(parent_job for parent_id in sorted(changed) for parent_job in changed[parent_id].ends)
    return replace(hints, ended=ended) if ended else hints
