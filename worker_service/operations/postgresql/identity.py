import psycopg

from worker_service.domain.errors import TargetUnavailableError
from worker_service.domain.lock import Lock
from worker_service.operations.postgresql.catalog import Reader

_LOOK = """
SELECT pg_is_in_recovery(), (SELECT system_identifier FROM pg_control_system()), oid
FROM pg_database WHERE datname = current_database()
"""
_STANDBY = "SELECT pg_is_in_recovery()"


def identity_of(read: Reader) -> str:
    """Tell which database this really is: the cluster's own number and the database's in it.

    A primary and its standbys have the same, under every host name.

    Raises:
        TargetUnavailableError: the role may not ask for the cluster's number.
    """
    return look(read, None)[1]


def look(read: Reader, given: str | None) -> tuple[bool, str]:
    """Tell whether the server is a standby, and which database this is: the given one, if any, is not asked for.

    Raises:
        TargetUnavailableError: the role may not ask for the cluster's number.
    """
    if given:
        return bool(read(_STANDBY)[0][0]), given
    try:
        standby, system, database = read(_LOOK)[0]
    except psycopg.errors.InsufficientPrivilege:
        raise TargetUnavailableError(
            "The role may not run pg_control_system(), which tells which server this is: GRANT EXECUTE ON "
            "FUNCTION pg_control_system() to it, or set the target's identity in the worker's configuration file."
        ) from None
    return bool(standby), f"postgresql:{system}:{database}"


def lock_on(identity: str) -> Lock:
    """The key of a whole database, which an operation on all of it holds alone; those on one table share it."""
    return Lock(key=identity if identity.startswith("postgresql:") else f"postgresql:{identity}")
