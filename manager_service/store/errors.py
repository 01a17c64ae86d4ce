"""What a transaction may end with besides the refusals of the domain."""

from manager_service.domain.errors import StoreUnavailableError


class ConflictError(Exception):
    """Transactions of several managers got into each other's way, and this one was undone: run it again."""


class LostLeaseError(Exception):
    """A lease that was read as live in this transaction was not there to be ended: a defect."""


class HeldUpError(StoreUnavailableError):
    """Another transaction held for too long what this one needed."""


class ConnectionLostError(StoreUnavailableError):
    """The database cannot be reached or went away; whether a commit that was under way took place is not known."""
