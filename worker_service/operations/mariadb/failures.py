"""What each of the server's errors means for a job: one table, from an error's number to a failure."""

import re
from dataclasses import dataclass, replace

from worker_service.domain.outcome import Failure, FailureCategory, Outcome, Result
from worker_service.operations.mariadb.connection import ServerError

LOCK_WAIT_TIMEOUT = 1205
NO_SUCH_TABLE = 1146
WRONG_OBJECT = 1347
INTERRUPTED = 1317
STATEMENT_TIMEOUT = 1969
TIME_OUTS = frozenset({STATEMENT_TIMEOUT, 3024})
_UNKNOWN_VARIABLE = 1193
_NOT_HERE = frozenset({_UNKNOWN_VARIABLE, 1227, 1228, 1229, 1231, 1232, 1238, 1290})


@dataclass(frozen=True, slots=True)
class _Meaning:
    name: str
    category: FailureCategory
    retryable: bool
    advice: str


_F = FailureCategory
_GRANT = "The role lacks a privilege: grant it what docs/operations.md lists"
_LOGIN = (
    "The server does not let the worker in: check the user, its password (MYSQL_PWD or an option file) and from "
    "which hosts it may come"
)
_READ_ONLY = "The server is read-only: maintain the primary, or make this one writable"
_FULL = (
    "The server's disk, or a limit of it, is full: free space beside the table and in tmpdir, then run it again"
)
_AWAY = "The connection to the server broke, because it ended or someone cut it: look at its log"
_MANY = "The server takes no more connections just now: raise its limit, or run it in a quieter hour"
_LOCKED = (
    "Another connection holds the table: end its transaction, run it in a quieter hour, or allow a longer "
    "lock_timeout_s"
)
_CRASHED = "The table is damaged: keep a copy of its files, then restore it or use REPAIR TABLE"
_DEFINITION = "The server cannot rebuild the table as it is defined: mend its definition"
_DISK = "The server could not read or write its files: look at its log and at the disk"
_NETWORK = "The server cannot be reached: check host, port, and that it runs"
_TIME = "The statement ran longer than the operation's timeout and the server stopped it"

_MEANINGS: dict[int, _Meaning] = {
    1021: _Meaning("ER_DISK_FULL", _F.DISK_FULL, False, _FULL),
    1114: _Meaning("ER_RECORD_FILE_FULL", _F.DISK_FULL, False, _FULL),
    1026: _Meaning("ER_ERROR_ON_WRITE", _F.IO, True, _DISK),
    1016: _Meaning("ER_CANT_OPEN_FILE", _F.IO, True, _DISK),
    1017: _Meaning("ER_FILE_NOT_FOUND", _F.IO, True, _DISK),
    1030: _Meaning("ER_GET_ERRNO", _F.IO, True, _DISK),
    1034: _Meaning("ER_NOT_KEYFILE", _F.CORRUPT, False, _CRASHED),
    1194: _Meaning("ER_CRASHED_ON_USAGE", _F.CORRUPT, False, _CRASHED),
    1195: _Meaning("ER_CRASHED_ON_REPAIR", _F.CORRUPT, False, _CRASHED),
    1712: _Meaning("ER_INDEX_CORRUPT", _F.CORRUPT, False, _CRASHED),
    1877: _Meaning("ER_TABLE_CORRUPT", _F.CORRUPT, False, _CRASHED),
    1932: _Meaning("ER_NO_SUCH_TABLE_IN_ENGINE", _F.CORRUPT, False, _CRASHED),
    1062: _Meaning("ER_DUP_ENTRY", _F.CORRUPT, False, "The rows violate a unique key: run integrity_check"),
    1040: _Meaning("ER_CON_COUNT_ERROR", _F.UNAVAILABLE, True, _MANY),
    1203: _Meaning("ER_TOO_MANY_USER_CONNECTIONS", _F.UNAVAILABLE, True, _MANY),
    1226: _Meaning("ER_USER_LIMIT_REACHED", _F.UNAVAILABLE, True, _MANY),
    1049: _Meaning("ER_BAD_DB_ERROR", _F.UNAVAILABLE, False, "There is no such database: check the target's URL"),
    1053: _Meaning("ER_SERVER_SHUTDOWN", _F.UNAVAILABLE, True, _AWAY),
    1927: _Meaning("ER_CONNECTION_KILLED", _F.UNAVAILABLE, True, _AWAY),
    2006: _Meaning("CR_SERVER_GONE_ERROR", _F.UNAVAILABLE, True, _AWAY),
    2013: _Meaning("CR_SERVER_LOST", _F.UNAVAILABLE, True, _AWAY),
    2002: _Meaning("CR_CONNECTION_ERROR", _F.UNAVAILABLE, True, _NETWORK),
    2003: _Meaning("CR_CONN_HOST_ERROR", _F.UNAVAILABLE, True, _NETWORK),
    2005: _Meaning("CR_UNKNOWN_HOST", _F.UNAVAILABLE, True, _NETWORK),
    2026: _Meaning("CR_SSL_CONNECTION_ERROR", _F.UNAVAILABLE, False, "TLS failed: check the ssl_ parameters"),
    1129: _Meaning("ER_HOST_IS_BLOCKED", _F.PERMISSION, False, _LOGIN),
    1130: _Meaning("ER_HOST_NOT_PRIVILEGED", _F.PERMISSION, False, _LOGIN),
    1044: _Meaning("ER_DBACCESS_DENIED_ERROR", _F.PERMISSION, False, _GRANT),
    1045: _Meaning("ER_ACCESS_DENIED_ERROR", _F.PERMISSION, False, _LOGIN),
    1698: _Meaning("ER_ACCESS_DENIED_NO_PASSWORD_ERROR", _F.PERMISSION, False, _LOGIN),
    1820: _Meaning("ER_MUST_CHANGE_PASSWORD", _F.PERMISSION, False, _LOGIN),
    1862: _Meaning("ER_MUST_CHANGE_PASSWORD_LOGIN", _F.PERMISSION, False, _LOGIN),
    4151: _Meaning("ER_ACCOUNT_HAS_BEEN_LOCKED", _F.PERMISSION, False, _LOGIN),
    1142: _Meaning("ER_TABLEACCESS_DENIED_ERROR", _F.PERMISSION, False, _GRANT),
    1143: _Meaning("ER_COLUMNACCESS_DENIED_ERROR", _F.PERMISSION, False, _GRANT),
    1227: _Meaning("ER_SPECIFIC_ACCESS_DENIED_ERROR", _F.PERMISSION, False, _GRANT),
    1290: _Meaning("ER_OPTION_PREVENTS_STATEMENT", _F.PERMISSION, False, _READ_ONLY),
    1036: _Meaning("ER_OPEN_AS_READONLY", _F.PERMISSION, False, _READ_ONLY),
    1792: _Meaning("ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION", _F.PERMISSION, False, _READ_ONLY),
    1836: _Meaning("ER_READ_ONLY_MODE", _F.PERMISSION, False, _READ_ONLY),
    LOCK_WAIT_TIMEOUT: _Meaning("ER_LOCK_WAIT_TIMEOUT", _F.LOCKED, True, _LOCKED),
    1213: _Meaning("ER_LOCK_DEADLOCK", _F.LOCKED, True, _LOCKED),
    1799: _Meaning(
        "ER_INNODB_ONLINE_LOG_TOO_BIG",
        _F.LOCKED,
        True,
        "More was written to the table meanwhile than the server keeps: run it in a quieter hour, or raise "
        "innodb_online_alter_log_max_size",
    ),
    INTERRUPTED: _Meaning(
        "ER_QUERY_INTERRUPTED", _F.UNAVAILABLE, True, "Somebody else killed the statement: ask who did, and why"
    ),
    STATEMENT_TIMEOUT: _Meaning("ER_STATEMENT_TIMEOUT", _F.TIMEOUT, False, _TIME),
    3024: _Meaning("ER_QUERY_TIMEOUT", _F.TIMEOUT, False, _TIME),
    NO_SUCH_TABLE: _Meaning("ER_NO_SUCH_TABLE", _F.SCHEMA, False, "The table is not there any more"),
    WRONG_OBJECT: _Meaning("ER_WRONG_OBJECT", _F.SCHEMA, False, "That is no table with rows of its own"),
    1064: _Meaning(
        "ER_PARSE_ERROR", _F.INVALID, False, "This server does not know the statement: leave out its options"
    ),
    1814: _Meaning(
        "ER_TABLESPACE_DISCARDED", _F.SCHEMA, False, "The table is without its file: import it, or drop the table"
    ),
    4047: _Meaning(
        "ER_UNSUPPORTED_COMPRESSED_TABLE",
        _F.SCHEMA,
        False,
        "The server only reads compressed tables: give it another ROW_FORMAT, or let it write them",
    ),
    1067: _Meaning("ER_INVALID_DEFAULT", _F.SCHEMA, False, _DEFINITION),
    1118: _Meaning("ER_TOO_BIG_ROWSIZE", _F.SCHEMA, False, _DEFINITION),
    4119: _Meaning("ER_VERS_ALTER_NOT_ALLOWED", _F.SCHEMA, False, _DEFINITION),
    1845: _Meaning(
        "ER_ALTER_OPERATION_NOT_SUPPORTED", _F.INVALID, False, "It cannot be done online: leave out online=true"
    ),
    1846: _Meaning(
        "ER_ALTER_OPERATION_NOT_SUPPORTED_REASON",
        _F.INVALID,
        False,
        "It cannot be done online: leave out online=true",
    ),
}
_WORDS: tuple[tuple[str, int], ...] = (
    ("lock wait timeout exceeded", LOCK_WAIT_TIMEOUT),
    ("deadlock found", 1213),
    ("max_statement_time exceeded", 1969),
    ("maximum statement execution time", 3024),
    ("execution was interrupted", INTERRUPTED),
    ("doesn't exist in engine", 1932),
    ("doesn't exist", NO_SUCH_TABLE),
    ("is not of type 'base table'", WRONG_OBJECT),
    ("command denied", 1142),
    ("is read only", 1036),
    ("read-only", 1290),
    ("is full", 1114),
    ("no space left", 1021),
    ("disk full", 1021),
    ("crashed", 1194),
    ("incorrect key file", 1034),
    ("corrupt", 1712),
)
_DISK_FULL_INSIDE = re.compile(r"(no space left|disk full|Errcode: 28|error 28\b)", re.IGNORECASE)
_EVERYWHERE = frozenset({2002, 2003, 2005, 2006, 2013, 1053, 1927, 1290, 1792, 1836, 0}) | TIME_OUTS


def failure_of(number: int, text: str) -> Failure:
    """Translate an error of the server or the driver; ``number`` is 0 where only its words are known."""
    number = number or number_in(text)
    meaning = _MEANINGS.get(number) or _Meaning(
        f"ERROR_{number}" if number else "DRIVER_ERROR",
        _F.INTERNAL if number else _F.UNAVAILABLE,
        True,
        "The server failed in a way that is not known here" if number else "The connection failed",
    )
    if _DISK_FULL_INSIDE.search(text):
        meaning = replace(meaning, category=_F.DISK_FULL, retryable=False, advice=_FULL)
    said = text.strip().rstrip(".")
    told = f"{said}, error {number}" if number else said
    return Failure(
        reason=meaning.name,
        message=f"{meaning.advice} ({told}).",
        category=meaning.category,
        retryable=meaning.retryable,
    )


def failure_from(error: ServerError) -> Failure:
    """Translate what was raised."""
    return failure_of(error.number, error.text)


def number_in(text: str) -> int:
    """Tell the number of an error that stands in a result row, where the server writes its words only."""
    low = text.lower()
    return next((number for words, number in _WORDS if words in low), 0)


def meets_all(error: ServerError) -> bool:
    """Tell whether the error would meet the next table too."""
    return error.number in _EVERYWHERE


def is_not_here(error: ServerError) -> bool:
    """Tell whether a setting is not known to this server or not the role's to make."""
    return error.number in _NOT_HERE


def failed(reason: str, message: str, category: FailureCategory, *, retryable: bool = False) -> Result:
    """Make the result of an operation that failed for a reason that the server does not name."""
    return failed_with(Failure(reason=reason, message=message, category=category, retryable=retryable))


def failed_with(failure: Failure) -> Result:
    """Make the result of an operation that failed."""
    return Result(outcome=Outcome.FAILED, reason=failure.message, failure=failure)
