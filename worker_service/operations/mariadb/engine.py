from weakref import finalize

from worker_service.domain.errors import TargetUnavailableError
from worker_service.domain.inspection import INSPECT
from worker_service.domain.operation import Operation
from worker_service.domain.ports import Control
from worker_service.domain.target import Target, TargetDescription
from worker_service.operations.mariadb import throttling
from worker_service.operations.mariadb.address import Address
from worker_service.operations.mariadb.catalogue import find, find_wanted, specs
from worker_service.operations.mariadb.connection import Connection, ServerError, require_driver
from worker_service.operations.mariadb.failures import failure_from
from worker_service.operations.mariadb.kept import Kept
from worker_service.operations.mariadb.procedure import make_plan
from worker_service.operations.mariadb.server import Server
from worker_service.operations.mariadb.tables import read_tables
from worker_service.operations.mariadb.worker import MariadbWorker


class MariadbEngine:
    """Maintenance of MariaDB databases, by SQL alone."""

    name = "mariadb"
    schemes = frozenset({"mariadb"})
    throttles = throttling.THROTTLES

    def __init__(self) -> None:
        self._described: dict[str, str] = {}
        self._kept = Kept()
        # At the latest when the process ends.
        finalize(self, self._kept.close)

    def check(self, target: Target) -> None:
        """Check that the driver is there and that the URL names a database; nothing is connected to."""
        require_driver()
        Address.of(target)

    def describe(self, target: Target) -> TargetDescription:
        """Ask the server what it is, and remember which database the target is."""
        address = Address.of(target)
        try:
            with Connection(address) as connection:
                server = Server.on(connection)
        except ServerError as error:
            raise TargetUnavailableError(failure_from(error).message) from error
        identity = server.identity(target)
        self._described[target.name] = identity
        return TargetDescription(
            engine_version=server.product, identity=identity, operations=specs(server.lock_key(target))
        )

    def worker(self, target: Target, control: Control) -> MariadbWorker:
        """Make the worker of one lease; it has a connection of its own while it executes."""
        return MariadbWorker(
            target=target, expected=self._described.get(target.name), control=control, kept=self._kept
        )

    def plan(self, target: Target, operation: Operation) -> tuple[str, ...]:
        """Tell the statements that would run, table by table; only the catalogue is read.

        Raises:
            InvalidOperationError: the operation cannot run here.
            TargetUnavailableError: the server cannot be asked.
        """
        if operation.name == INSPECT:
            find_wanted(operation)
            return ()
        procedure, options = find(operation)
        try:
            with Connection(Address.of(target)) as connection:
                tables = read_tables(connection, operation.object)
        except ServerError as error:
            raise TargetUnavailableError(failure_from(error).message) from error
        return tuple(make_plan(procedure, tables, options).statements.values())

    def held_back(self, target: Target, *, seconds: float) -> str:
        """Look at what the target's throttle asks for; raise ``TargetUnavailableError`` when that cannot be."""
        return throttling.held_back(target, seconds=seconds)


class MysqlEngine(MariadbEngine):
    """The same for MySQL; which of the two a server is, it says itself."""

    name = "mysql"
    schemes = frozenset({"mysql"})
