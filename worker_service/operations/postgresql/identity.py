from worker_service.domain.errors import TargetUnavailableError
from worker_service.domain.lock import Lock
from worker_service.operations.postgresql.catalog import Reader

_MAY = "SELECT has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE')"
_IDENTITY = """
SELECT (SELECT system_identifier FROM pg_control_system()), oid FROM pg_database WHERE datname = current_database()
"""


def identity_of(read: Reader) -> str:
    """Tell which database this really is: the cluster's own number and the database's in it.

    A primary and its standbys have the same, under every host name.

    Raises:
        TargetUnavailableError: the role may not ask for the cluster's number.
    """
    if not read(_MAY)[0][0]:
        raise TargetUnavailableError(
            "The role may not run pg_control_system(), which tells which server this is: GRANT EXECUTE ON "
            "FUNCTION pg_control_system() to it, or set the target's identity in the worker's configuration file."
        )
    system, database = read(_IDENTITY)[0]
    return f"postgresql:{system}:{database}"


def lock_on(identity: str) -> Lock:
    """The one key that every operation on a database holds alone.

    For now that is the whole database, as with the lock in the target: with ``max_parallel`` above 1 two
    operations on it never overlap.
    """
    return Lock(key=identity if identity.startswith("postgresql:") else f"postgresql:{identity}")
