"""What each of PostgreSQL's errors means for a job: one table, from an SQLSTATE to a failure."""

from dataclasses import dataclass, replace

import psycopg

from worker_service.domain.outcome import Failure, FailureCategory, Outcome, Result


@dataclass(frozen=True, slots=True)
class _Meaning:
    reason: str
    category: FailureCategory
    retryable: bool
    advice: str


_PERMISSION = _Meaning(
    "PERMISSION_DENIED",
    FailureCategory.PERMISSION,
    False,
    "The worker's role may not do this: let it own the table or database, or grant it MAINTAIN or pg_maintain "
    "(PostgreSQL 17 or later), and USAGE on the schema",
)
_LOCKED = _Meaning(
    "LOCK_TIMEOUT",
    FailureCategory.LOCKED,
    True,
    "Another session held a lock for longer than lock_timeout_ms: end its transaction, or allow a longer wait",
)
_DEADLOCK = _Meaning(
    "DEADLOCK", FailureCategory.LOCKED, True, "Another session and this one waited for each other: run it again"
)
_FULL = _Meaning(
    "DISK_FULL", FailureCategory.DISK_FULL, False, "The server's disk is full: free space, run it again"
)
_CORRUPT = _Meaning(
    "DATA_CORRUPTED",
    FailureCategory.CORRUPT,
    False,
    "The table or index is damaged: keep a copy of the data folder, then reindex, or restore a backup",
)
_GONE = _Meaning("GONE", FailureCategory.SCHEMA, False, "It is not there any more")
_LOST = _Meaning(
    "CONNECTION_LOST",
    FailureCategory.UNAVAILABLE,
    True,
    "The server cannot be reached, or ended the connection: see whether it runs and takes connections",
)
_REFUSED = _Meaning(
    "LOGIN_REFUSED",
    FailureCategory.PERMISSION,
    False,
    "The server does not let the worker's role in: check the URL's user and database, the password (PGPASSWORD, "
    "~/.pgpass or a service) and pg_hba.conf",
)
_READ_ONLY = _Meaning(
    "READ_ONLY",
    FailureCategory.UNAVAILABLE,
    False,
    "The server is a standby or only reads: name the primary in the target's URL, or all servers with "
    "?target_session_attrs=read-write",
)
_MEMORY = _Meaning(
    "OUT_OF_MEMORY", FailureCategory.IO, True, "The server's memory ran out: try again with less load"
)
_BUSY_SERVER = _Meaning(
    "TOO_MANY_CONNECTIONS",
    FailureCategory.UNAVAILABLE,
    True,
    "The server or the role has no connection left: end some, or raise max_connections",
)
_SCHEMA = _Meaning(
    "SCHEMA", FailureCategory.SCHEMA, False, "The schema needs something that is missing or does not fit its data"
)
_DUPLICATE = _Meaning(
    "DUPLICATE_KEY",
    FailureCategory.CORRUPT,
    False,
    "Rows violate the index's constraint, so it was damaged, or never valid: remove the duplicates, run it again",
)
_OBJECT = _Meaning(
    "UNDEFINED_OBJECT", FailureCategory.SCHEMA, False, "The schema needs something that is missing here"
)
_LIBRARY = _Meaning(
    "MISSING_LIBRARY",
    FailureCategory.SCHEMA,
    False,
    "A function of the schema is in a library that the server cannot load: install its extension's package again, "
    "in the server's release",
)
_LOCALE = _Meaning(
    "MISSING_COLLATION",
    FailureCategory.SCHEMA,
    False,
    "The schema sorts by a locale that the server's system does not have: install it there, then reindex what it "
    "sorts",
)
_ENCODING = _Meaning(
    "ENCODING",
    FailureCategory.SCHEMA,
    False,
    "A name in this database cannot be told in UTF-8, so that none of it can be maintained: rename what has it",
)
_INTERNAL = _Meaning(
    "INTERNAL", FailureCategory.INTERNAL, False, "PostgreSQL failed in a way that is not known here: see its log"
)
_CANCELED = _Meaning(
    "QUERY_CANCELED",
    FailureCategory.TIMEOUT,
    False,
    "The server ended the statement: an administrator cancelled it, or it ran longer than its timeout",
)

MEANINGS: dict[str, _Meaning] = {
    "08": _LOST,
    "0A000": _Meaning(
        "NOT_SUPPORTED", FailureCategory.INVALID, False, "This server cannot do that with this table or index"
    ),
    "22021": _ENCODING,
    "22023": _Meaning(
        "INVALID_VALUE", FailureCategory.INVALID, False, "The server does not take an option's value"
    ),
    "22P05": _ENCODING,
    "23505": _DUPLICATE,
    "23P01": _DUPLICATE,
    "25006": _READ_ONLY,
    "28": _REFUSED,
    "3D000": _REFUSED,
    "3F000": _GONE,
    "40P01": _DEADLOCK,
    "42501": _PERMISSION,
    "42704": _OBJECT,
    "42883": _OBJECT,
    "42P01": _GONE,
    "42P21": _OBJECT,
    "42P22": _OBJECT,
    "53100": _FULL,
    "53200": _MEMORY,
    "53300": _BUSY_SERVER,
    "53400": _Meaning(
        "LIMIT_EXCEEDED",
        FailureCategory.DISK_FULL,
        False,
        "A limit of the server was reached, such as temp_file_limit",
    ),
    "55006": _DEADLOCK,
    "55P03": _LOCKED,
    "57014": _CANCELED,
    "57P": _LOST,
    "58030": _Meaning(
        "IO_ERROR", FailureCategory.IO, True, "Reading or writing failed: see the server's and the system's log"
    ),
    "58P01": _CORRUPT,
    "XX001": _CORRUPT,
    "XX002": _CORRUPT,
    "22": _SCHEMA,
    "42": _SCHEMA,
    "P0": _SCHEMA,
    "38": _SCHEMA,
}

# What these files of the server refuse has states that mean something else where others refuse.
_BY_SOURCE = {"dfmgr": _LIBRARY, "pg_locale": _LOCALE}

ENDING = frozenset({"CONNECTION_LOST", "DISK_FULL", "READ_ONLY", "QUERY_CANCELED", "LOGIN_REFUSED"})
"""Troubles that would meet each of the other objects too."""


def failure_of(error: psycopg.Error) -> Failure:
    """Translate an error of the driver or the server."""
    meaning = _meaning(error)
    said = _said(error)
    return Failure(
        reason=meaning.reason,
        message=f"{meaning.advice} ({said})." if said else f"{meaning.advice}.",
        category=meaning.category,
        retryable=meaning.retryable,
    )


def is_gone(failure: Failure) -> bool:
    """Tell whether the object was dropped or renamed meanwhile."""
    return failure.reason == _GONE.reason


def needs_what_is_missing(failure: Failure) -> Failure:
    """Reword the failure of an object that is there: it is a function of its schema that misses something."""
    text = failure.message.replace(_GONE.advice, _OBJECT.advice, 1)
    return replace(failure, reason=_OBJECT.reason, message=text)


def not_permitted(said: str) -> Failure:
    """Make the failure of an object that was passed over for want of rights, which the server only warns of."""
    return _failure(_PERMISSION, said)


def not_free(said: str) -> Failure:
    """Make the failure of an object that was passed over because of a lock, which the server only warns of."""
    return _failure(_LOCKED, said)


def failed(reason: str, message: str, category: FailureCategory, *, retryable: bool = False) -> Result:
    """Make the result of an operation that failed for a reason that PostgreSQL does not name."""
    return failed_with(Failure(reason=reason, message=message, category=category, retryable=retryable))


def failed_with(failure: Failure) -> Result:
    """Make the result of an operation that failed."""
    return Result(outcome=Outcome.FAILED, reason=failure.message, failure=failure)


def _failure(meaning: _Meaning, said: str) -> Failure:
    return Failure(
        reason=meaning.reason,
        message=f"{meaning.advice} ({said}).",
        category=meaning.category,
        retryable=meaning.retryable,
    )


def _meaning(error: psycopg.Error) -> _Meaning:
    state = error.sqlstate
    if state is None:
        return _of_no_state(error)
    for source, meaning in _BY_SOURCE.items():
        if (error.diag.source_file or "").startswith(source):
            return meaning
    known = (MEANINGS.get(state[:length]) for length in (5, 3, 2))
    return next((meaning for meaning in known if meaning), _INTERNAL)


def _of_no_state(error: psycopg.Error) -> _Meaning:
    # libpq gives no state of a login that was refused, only the server's words, in the server's language.
    if not isinstance(error, psycopg.OperationalError):
        return _INTERNAL
    text = str(error)
    if "no password supplied" in text:  # which libpq finds out by itself
        return _REFUSED
    refused = ("password", "authentication", "pg_hba.conf", "does not exist", "permission denied for database")
    return _REFUSED if "FATAL" in text and any(word in text for word in refused) else _LOST


def _said(error: psycopg.Error) -> str:
    text = error.diag.message_primary or str(error)
    return " ".join(text.split()).removesuffix(".")
