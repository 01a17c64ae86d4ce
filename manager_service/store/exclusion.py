"""What keeps the transactions of several managers apart."""

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from manager_service.store.statements import Rows

# What waits for the heads and the keys that are held.
Held = Callable[[], tuple[set[str], set[str]]]


class Exclusion(Protocol):
    """How a transaction gets for itself what it is about to change.

    The order is the same for all: a session, its parent jobs, its leases; heads and targets, which are passed over
    while another transaction has them; last, at the end of the transaction, the counts of parent jobs.
    """

    alone: bool
    """Whether no other transaction writes meanwhile, so that what was read stands."""

    def hold_session(self, session_id: str) -> None:
        """Wait until no other transaction acts for the session."""

    def hold_name(self, worker_name: str) -> None:
        """Wait until no other transaction opens a session of the worker's name."""

    def share_parents(self, ids: Collection[str]) -> None:
        """Wait until nobody has one of the parent jobs for itself, and keep it so."""

    def share_parents_of(self, children: Sequence[str]) -> Rows:
        """Share the parent jobs of the live leases of children, and return their ids when asked."""

    def try_share_parents(self, ids: Collection[str]) -> Rows:
        """Share those of the parent jobs that nobody has for itself, and return them when asked."""

    def own_parent(self, parent_id: str) -> None:
        """Wait until nobody shares the parent job, and have it for oneself."""

    def try_own_parent(self, parent_id: str) -> bool:
        """Have the parent job for oneself, if that takes no waiting."""

    def leases(self, children: Sequence[str], *, wait: bool) -> Rows:
        """Hold the leases of children, and return them as they are then when asked, without those that ended.

        Args:
            children: who had them when they were read.
            wait: whether to wait for those that others hold; they are left out otherwise.
        """

    def heads(self, ids: Collection[str], keys: Collection[str]) -> Held:
        """Hold heads with their targets, and keys; return when asked those that no other transaction holds.

        Args:
            ids: children that stand first in their lanes.
            keys: names of whatever is counted or compared before a grant.
        """

    def counts(self, ids: Sequence[str]) -> Rows:
        """Hold the counts of parent jobs to the end, in the order of the ids; return when asked what they are."""


class Alone:
    """One transaction writes at a time: everything is its own already."""

    alone = True

    def hold_session(self, session_id: str) -> None:
        """Hold it already."""

    def hold_name(self, worker_name: str) -> None:
        """Hold it already."""

    def share_parents(self, ids: Collection[str]) -> None:
        """Hold them already."""

    def share_parents_of(self, children: Sequence[str]) -> Rows:  # noqa: ARG002 -- the port's
        """Hold them already."""
        return tuple

    def try_share_parents(self, ids: Collection[str]) -> Rows:
        """Hold them already."""
        return lambda: tuple(ids)

    def own_parent(self, parent_id: str) -> None:
        """Hold it already."""

    def try_own_parent(self, parent_id: str) -> bool:  # noqa: ARG002 -- the port's
        """Hold it already."""
        return True

    def leases(self, children: Sequence[str], *, wait: bool) -> Rows:  # noqa: ARG002 -- the port's
        """Return nothing: what was read stands."""
        return tuple

    def heads(self, ids: Collection[str], keys: Collection[str]) -> Held:
        """Hold them already."""
        return lambda: (set(ids), set(keys))

    def counts(self, ids: Sequence[str]) -> Rows:  # noqa: ARG002 -- the port's
        """Return nothing: what was read stands."""
        return tuple
