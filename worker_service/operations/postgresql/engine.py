from threading import Lock
from typing import TYPE_CHECKING

from worker_service.domain.errors import InvalidTargetError
from worker_service.domain.operation import Operation
from worker_service.domain.ports import Control, OperationWorker
from worker_service.domain.target import Target, TargetDescription

if TYPE_CHECKING:
    from worker_service.operations.postgresql.serving import Serving


class PostgresqlEngine:
    """Maintenance of PostgreSQL databases, by psycopg, which is loaded when the first target asks for it."""

    name = "postgresql"
    schemes = frozenset({"postgresql", "postgres"})
    throttles = frozenset(
        {"max_replication_lag", "max_replication_bytes", "max_active_sessions", "while_sql", "unless_sql"}
    )

    def __init__(self) -> None:
        self._loaded: Serving | None = None
        # Targets are described by several threads.
        self._loading = Lock()

    def check(self, target: Target) -> None:
        """Check the form of the URL; raise ``InvalidTargetError``, also when the driver is missing."""
        self._serving.check(target)

    def describe(self, target: Target) -> TargetDescription:
        """Read the server's version and which database this is."""
        return self._serving.describe(target)

    def worker(self, target: Target, control: Control) -> OperationWorker:
        """Make the worker of one lease."""
        return self._serving.worker(target, control)

    def plan(self, target: Target, operation: Operation) -> tuple[str, ...]:
        """Tell the statements that would run on the database as it is.

        Raises:
            InvalidOperationError: the operation cannot run here.
            TargetUnavailableError: the database cannot be reached.
        """
        return self._serving.plan(target, operation)

    def held_back(self, target: Target, *, seconds: float) -> str:
        """Look at what the target's throttle asks for; raise ``TargetUnavailableError`` when that cannot be."""
        return self._serving.held_back(target, seconds=seconds)

    @property
    def _serving(self) -> "Serving":
        with self._loading:
            if self._loaded is None:
                self._loaded = _load()
            return self._loaded


def _load() -> "Serving":
    try:
        # A worker that serves files alone neither needs the driver nor waits for it.
        from worker_service.operations.postgresql.serving import Serving  # noqa: PLC0415
    except ImportError as error:
        raise InvalidTargetError(
            f"The driver for PostgreSQL is missing ({error}): pip install 'overhaul[postgresql]'"
        ) from error
    return Serving()
