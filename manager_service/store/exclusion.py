"""What keeps the transactions of several managers apart."""

from collections.abc import Collection, Sequence
from typing import Any, Protocol


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

    def try_share_parents(self, ids: Collection[str]) -> set[str]:
        """Share those of the parent jobs that nobody has for itself, and return them."""

    def own_parent(self, parent_id: str) -> None:
        """Wait until nobody shares the parent job, and have it for oneself."""

    def try_own_parent(self, parent_id: str) -> bool:
        """Have the parent job for oneself, if that takes no waiting."""

    def leases(self, children: Sequence[str], *, wait: bool) -> Sequence[Any]:
        """Hold the leases of children and return them as they are now; those that ended are left out.

        Args:
            children: who had them when they were read.
            wait: whether to wait for those that others hold; they are left out otherwise.
        """

    def heads(self, ids: Collection[str], keys: Collection[str]) -> tuple[set[str], set[str]]:
        """Hold heads together with their targets, and keys; return those that no other transaction holds.

        Args:
            ids: children that stand first in their lanes.
            keys: names of whatever is counted or compared before a grant.
        """

    def counts(self, ids: Sequence[str]) -> Sequence[Any]:
        """Hold the counts of parent jobs to the end, in the order of the ids, and return what they are now."""


class Alone:
    """One transaction writes at a time: everything is its own already."""

    alone = True

    def hold_session(self, session_id: str) -> None:
        """Hold it already."""

    def hold_name(self, worker_name: str) -> None:
        """Hold it already."""

    def share_parents(self, ids: Collection[str]) -> None:
        """Hold them already."""

    def try_share_parents(self, ids: Collection[str]) -> set[str]:
        """Hold them already."""
        return set(ids)

    def own_parent(self, parent_id: str) -> None:
        """Hold it already."""

    def try_own_parent(self, parent_id: str) -> bool:  # noqa: ARG002 -- the port's
        """Hold it already."""
        return True

    def leases(self, children: Sequence[str], *, wait: bool) -> Sequence[Any]:  # noqa: ARG002 -- the port's
        """Return nothing: what was read stands."""
        return ()

    def heads(self, ids: Collection[str], keys: Collection[str]) -> tuple[set[str], set[str]]:
        """Hold them already."""
        return set(ids), set(keys)

    def counts(self, ids: Sequence[str]) -> Sequence[Any]:  # noqa: ARG002 -- the port's
        """Return nothing: what was read stands."""
        return ()
