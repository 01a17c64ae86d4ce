"""The errors of PostgreSQL's driver, as the store's own."""

import re
from collections.abc import Callable
from typing import Final

import psycopg
from psycopg import errors

from manager_service.domain.errors import StoreUnavailableError
from manager_service.store.errors import ConflictError, ConnectionLostError, HeldUpError

# Another transaction was in the way, and this one is to be run again.
_CONFLICTS: Final = (
    errors.DeadlockDetected,
    errors.SerializationFailure,
    errors.UniqueViolation,
)
# The server goes on and so does the connection, but this cannot be done now: it is full, the role has lost its
# rights (what it may not look into is not there for it), or it takes too long.
_REFUSED: Final = (
    errors.DiskFull,
    errors.OutOfMemory,
    errors.QueryCanceled,
    errors.InsufficientPrivilege,
    errors.UndefinedTable,
)
# The server cannot do now what it could before: it ends, restarts, is a standby, is full, or lets nobody in.
# A manager whose process was stopped within a transaction finds that the server has ended its session.
UNAVAILABLE: Final = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    errors.ReadOnlySqlTransaction,
    errors.IdleInTransactionSessionTimeout,
)


# Why nobody is let in who comes again. The driver tells no SQLSTATE of a connection that was refused, so by its
# words; what a server says in another language is taken for something that may pass.
_NEVER_LET_IN: Final = re.compile(
    r"authentication failed|no password supplied|no pg_hba\.conf entry|role .* does not exist|"
    r"database .* does not exist|not permitted to log in|permission denied for database|"
    r"no such (?:user|database)|does not support SSL"
)


def is_refusal(error: BaseException | None) -> bool:
    """Tell whether a server lets a program never in, or not do what it needs, until somebody changes that."""
    if isinstance(error, errors.InsufficientPrivilege):
        return True
    return isinstance(error, psycopg.OperationalError) and bool(_NEVER_LET_IN.search(str(error)))


class Translated:
    """Turns the driver's errors about the server and its locks into the store's own.

    A class, because it surrounds every statement: a generator costs seven times as much.

    Args:
        met_a_standby: called when the server does not write any more.
    """

    def __init__(self, met_a_standby: Callable[[], None] = lambda: None) -> None:
        self._met_a_standby = met_a_standby

    def __enter__(self) -> None:
        """Let the block run."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if not isinstance(error, psycopg.Error):
            return
        why = str(error).strip().partition("\n")[0]
        if isinstance(error, errors.ReadOnlySqlTransaction):
            self._met_a_standby()
        if isinstance(error, _CONFLICTS):
            raise ConflictError(why) from error
        if isinstance(error, errors.LockNotAvailable):
            raise HeldUpError(why) from error
        if isinstance(error, _REFUSED):
            raise StoreUnavailableError(why) from error
        if isinstance(error, UNAVAILABLE):
            raise ConnectionLostError(why) from error


translated = Translated()
