"""What each of SQLite's errors means for a job: one table, from an error's name to a failure."""

from dataclasses import dataclass

import apsw

from worker_service.domain.outcome import Failure, FailureCategory, Outcome, Result

_PRIMARY = 0xFF


@dataclass(frozen=True, slots=True)
class _Meaning:
    category: FailureCategory
    retryable: bool
    advice: str


_LOCKED = _Meaning(
    FailureCategory.LOCKED,
    True,
    "Another application holds the database locked: end its transaction, or allow a longer busy_timeout_ms",
)
_FULL = _Meaning(
    FailureCategory.DISK_FULL,
    False,
    "The disk or SQLite's temporary folder is full: free space, then run it again",
)
_CORRUPT = _Meaning(
    FailureCategory.CORRUPT, False, "The database is damaged: keep a copy, then restore a backup or use .recover"
)
_SCHEMA = _Meaning(
    FailureCategory.SCHEMA, False, "The schema needs something that is missing here or does not fit its data"
)
_COLLATION = _Meaning(
    FailureCategory.SCHEMA,
    False,
    "The schema uses a collation that only the application registers: run this from the application",
)
_FUNCTION = _Meaning(
    FailureCategory.SCHEMA,
    False,
    "The schema uses a function or module that only the application registers: run this from the application",
)
_DUPLICATE = _Meaning(
    FailureCategory.CORRUPT,
    False,
    "The rows violate a constraint of the schema: run integrity_check, then repair them",
)
_UNRECOVERED = _Meaning(
    FailureCategory.UNAVAILABLE,
    False,
    "A process that was killed left a journal or a log, which has to be brought into the file first and cannot be "
    "while it is only read: run an operation or open the application, then try again",
)
_INTERNAL = _Meaning(FailureCategory.INTERNAL, True, "SQLite failed in a way that is not known here")

MEANINGS: dict[str, _Meaning] = {
    "SQLITE_BUSY": _LOCKED,
    "SQLITE_LOCKED": _LOCKED,
    "SQLITE_PROTOCOL": _LOCKED,
    "SQLITE_FULL": _FULL,
    "SQLITE_IOERR": _Meaning(
        FailureCategory.IO, True, "Reading or writing the disk failed: look at the system's log and the disk"
    ),
    "SQLITE_IOERR_WRITE": _Meaning(
        FailureCategory.IO,
        True,
        "Writing failed: look at the system's log, the disk, its quotas and the file-size limit (ulimit -f)",
    ),
    "SQLITE_IOERR_SHMSIZE": _Meaning(
        FailureCategory.DISK_FULL,
        False,
        "The disk has no room for the write-ahead log's index (the -shm file): free space, then run it again",
    ),
    "SQLITE_IOERR_NOMEM": _Meaning(FailureCategory.IO, True, "The memory ran out: try again with less load"),
    "SQLITE_NOMEM": _Meaning(FailureCategory.IO, True, "The memory ran out: try again with less load"),
    "SQLITE_READONLY": _Meaning(
        FailureCategory.PERMISSION, False, "The worker's user may not write the database file: grant it"
    ),
    "SQLITE_READONLY_DIRECTORY": _Meaning(
        FailureCategory.PERMISSION,
        False,
        "The worker's user may not write the database's folder, where the journal goes: grant it",
    ),
    "SQLITE_READONLY_DBMOVED": _Meaning(
        FailureCategory.UNAVAILABLE, False, "The file was moved or replaced meanwhile: check the target's path"
    ),
    "SQLITE_READONLY_ROLLBACK": _UNRECOVERED,
    "SQLITE_READONLY_RECOVERY": _UNRECOVERED,
    "SQLITE_PERM": _Meaning(FailureCategory.PERMISSION, False, "The worker's user may not use the file: grant it"),
    "SQLITE_AUTH": _Meaning(FailureCategory.PERMISSION, False, "SQLite refused the statement"),
    "SQLITE_CANTOPEN": _Meaning(
        FailureCategory.UNAVAILABLE,
        True,
        "The file or its journal cannot be opened: check the path, its folder and the worker's rights",
    ),
    "SQLITE_CORRUPT": _CORRUPT,
    "SQLITE_FORMAT": _CORRUPT,
    "SQLITE_NOTADB": _Meaning(
        FailureCategory.NOT_A_DATABASE,
        False,
        "The file is not a SQLite database, or it is encrypted: check the target's path",
    ),
    "SQLITE_ERROR": _SCHEMA,
    "SQLITE_ERROR_MISSING_COLLSEQ": _COLLATION,
    "SQLITE_CONSTRAINT": _DUPLICATE,
    "SQLITE_SCHEMA": _Meaning(FailureCategory.SCHEMA, True, "The schema changed meanwhile: run it again"),
    "SQLITE_TOOBIG": _SCHEMA,
}

ONE_OBJECT = frozenset({FailureCategory.SCHEMA, FailureCategory.CORRUPT})
"""Troubles of one table or index; the others of the same file may still be done."""


def failure_of(error: apsw.Error) -> Failure:
    """Translate an error of SQLite."""
    name = _name(error)
    meaning = _meaning(name, str(error))
    return Failure(
        reason=name,
        message=f"{meaning.advice} ({error})." if str(error) else f"{meaning.advice}.",
        category=meaning.category,
        retryable=meaning.retryable,
    )


def failed(reason: str, message: str, category: FailureCategory, *, retryable: bool = False) -> Result:
    """Make the result of an operation that failed for a reason that SQLite does not name."""
    return failed_with(Failure(reason=reason, message=message, category=category, retryable=retryable))


def failed_with(failure: Failure) -> Result:
    """Make the result of an operation that failed."""
    return Result(outcome=Outcome.FAILED, reason=failure.message, failure=failure)


def is_interrupt(error: apsw.Error) -> bool:
    """Tell whether the error is an interrupt; while SQLite reads the schema it calls one a plain error."""
    while_reading_schema = _name(error) == "SQLITE_ERROR" and "interrupted" in str(error)
    return while_reading_schema or isinstance(error, apsw.InterruptError)


def is_of_one_object(error: apsw.Error) -> bool:
    """Tell whether the error concerns one table or index only."""
    return failure_of(error).category in ONE_OBJECT


def _name(error: apsw.Error) -> str:
    code: int | None = getattr(error, "extendedresult", None)
    if code is None:
        return type(error).__name__
    return str(
        apsw.mapping_extended_result_codes.get(code)
        or apsw.mapping_result_codes.get(code & _PRIMARY)
        or f"SQLITE_{code}"
    )


def _meaning(name: str, message: str) -> _Meaning:
    if name == "SQLITE_ERROR" and "no such collation" in message:
        return _COLLATION
    if name == "SQLITE_ERROR" and message.startswith(("unknown function", "no such function", "no such module")):
        return _FUNCTION
    while name:
        if meaning := MEANINGS.get(name):
            return meaning
        name = name.rpartition("_")[0]
    return _INTERNAL
