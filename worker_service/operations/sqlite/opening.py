import os

import apsw

from worker_service.operations.sqlite.location import Location

_FLAGS = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_URI
_VERSIONS, _LOG = (18, 2), b"\x02\x02"
"""Where the file's header says which SQLite may write and read it, and what it says there in WAL mode."""


def opened(location: Location, mode: str) -> apsw.Connection:
    """Open the file as it is, for reading (``ro``) or for writing (``rw``), and never create it.

    Without the right to write the file, SQLite opens it for reading alone. In WAL mode it would then make a log
    of this user's own and not remove it, which keeps the application from writing its database ever after. So
    such a file is not opened unless somebody else has its log open already.

    Raises:
        apsw.Error: SQLite refused it, or it would leave such a log behind.
    """
    connection = apsw.Connection(location.uri(mode), flags=_FLAGS)
    if not may(location.path, os.W_OK) and _says_log(connection) and not os.path.lexists(location.index):
        connection.close()
        raise apsw.exception_for(apsw.SQLITE_READONLY_CANTINIT)
    return connection


def keeps_log(location: Location) -> bool:
    """Tell whether the file is in WAL mode, without a lock and without a file beside it; false when unreadable."""
    try:
        connection = apsw.Connection(f"{location.uri('ro')}&immutable=1", flags=_FLAGS)
    except apsw.Error:
        return False
    try:
        return _says_log(connection)
    finally:
        connection.close()


def may(path: str, what: int) -> bool:
    """Tell whether this process may do ``what`` (``os.R_OK``, ...) with a path; not where it is mounted so."""
    return os.access(path, what, effective_ids=os.access in os.supports_effective_ids)


def _says_log(connection: apsw.Connection) -> bool:
    return connection.read("main", 0, *_VERSIONS)[1] == _LOG
