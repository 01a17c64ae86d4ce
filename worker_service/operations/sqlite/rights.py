"""What a user without the rights is told: which right is missing, on what, and what SQLite needs it for."""

import os
from dataclasses import dataclass, replace

import apsw

from worker_service.domain.outcome import Failure, FailureCategory
from worker_service.operations.sqlite.failures import failure_of
from worker_service.operations.sqlite.location import Location, size_of
from worker_service.operations.sqlite.opening import keeps_log, may

_MAY_LACK_RIGHTS = ("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM", "SQLITE_IOERR_DELETE")
_MOVED = "SQLITE_READONLY_DBMOVED"
_DENIED = "PERMISSION_DENIED"
_LOG_NEEDED = (
    "the database is in WAL mode, where SQLite needs the log and its index (the -wal and -shm files) beside it "
    "even to read"
)
_KILLED = "A process that was killed left a journal, which SQLite has to roll back and remove first"
_REMEDY = "Run the worker as a user that may read and write it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """What this process may do with a database file and with what SQLite keeps beside it.

    ``foreign`` names the files beside it that may not be both read and written.
    """

    reads: bool = True
    writes: bool = True
    writes_folder: bool = True
    mounted_read_only: bool = False
    log: bool = False
    journal: bool = False
    foreign: tuple[str, ...] = ()


def failure_on(location: Location, error: apsw.Error) -> Failure:
    """Translate an error of SQLite on this file; where a right is missing, say which one."""
    failure = failure_of(error)
    if not failure.reason.startswith(_MAY_LACK_RIGHTS) or failure.reason == _MOVED:
        return failure
    missing = lacking(read_rights(location))
    if missing is None:
        return failure
    detail = f" ({error})" if str(error) else ""
    return replace(
        failure,
        reason=_DENIED if failure.reason.startswith("SQLITE_CANTOPEN") else failure.reason,
        message=f"{missing}{detail}.",
        category=FailureCategory.PERMISSION,
        retryable=False,
    )


def unreachable(error: OSError) -> Failure:
    """Tell why the file's entry cannot be read."""
    if isinstance(error, PermissionError):
        return Failure(
            reason=_DENIED,
            message=f"Permission denied: the worker's user may not enter the database's folder. {_REMEDY}.",
            category=FailureCategory.PERMISSION,
            retryable=False,
        )
    return Failure(
        reason="FILE_MISSING",
        message=f"The database file cannot be found: {error.strerror}. Check the target's path.",
        category=FailureCategory.UNAVAILABLE,
        retryable=False,
    )


def read_rights(location: Location) -> Rights:
    """Ask the operating system; the answer is as old as the question."""
    beside = filter(os.path.exists, (location.log, location.index, location.journal))
    return Rights(
        reads=may(location.path, os.R_OK),
        writes=may(location.path, os.W_OK),
        writes_folder=may(location.directory, os.W_OK | os.X_OK),
        mounted_read_only=_mounted_read_only(location.directory),
        log=keeps_log(location),
        journal=size_of(location.journal) > 0,
        foreign=tuple(path.rpartition("/")[2] for path in beside if not may(path, os.R_OK | os.W_OK)),
    )


def lacking(rights: Rights) -> str | None:
    """Word the first right that is missing, without a full stop; ``None`` when there is none."""
    if not rights.reads:
        return f"Permission denied: the worker's user may not read the database file. {_REMEDY}"
    if rights.mounted_read_only:
        need = f", and {_LOG_NEEDED}" if rights.log else ""
        return f"The file system is mounted read-only{need}: mount it for writing, or leave the database out"
    if rights.log and not rights.writes_folder:
        return f"The worker's user may not write the database's folder, and {_LOG_NEEDED}: grant it"
    if rights.foreign and rights.writes:
        return (
            f"Permission denied: the worker's user may not read and write {' and '.join(rights.foreign)} beside "
            f"the database, where another user's changes may lie. {_REMEDY}"
        )
    return _unwritable(rights)


def _unwritable(rights: Rights) -> str | None:
    if not rights.writes and rights.log:
        return (
            "The database is in WAL mode and the worker's user may not write its file: SQLite would leave -wal "
            f"and -shm files beside it that the application may not write. {_REMEDY}"
        )
    if rights.writes and rights.writes_folder:
        return None
    place = "database's folder, where the journal goes" if rights.writes else "database file"
    if rights.journal:
        return f"{_KILLED}, and the worker's user may not write the {place}: grant it"
    return f"The worker's user may not write the {place}: grant it"


def _mounted_read_only(folder: str) -> bool:
    try:
        return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    except OSError:
        return False
