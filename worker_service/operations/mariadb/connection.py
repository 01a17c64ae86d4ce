from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol, Self

from worker_service.domain.errors import InvalidTargetError
from worker_service.operations.mariadb.address import Address

Value = Any
Row = tuple[Value, ...]
_REMEDY = "MariaDB and MySQL need the driver PyMySQL, which is not installed: pip install 'overhaul[mariadb]'."
NO_DRIVER_ERROR = 0
_DRIVERS = range(2_000, 3_000)
_GONE = 2006


class ServerError(Exception):
    """The server, or the way to it, refused something.

    Args:
        number: the server's or the driver's error number; 0 where there is none.
        text: what it said.
    """

    def __init__(self, number: int, text: str) -> None:
        super().__init__(text)
        self.number = number
        self.text = text

    @property
    def is_answer(self) -> bool:
        """Whether the server said it; the driver's own numbers are those of a connection that broke."""
        return self.number not in {NO_DRIVER_ERROR, *_DRIVERS}


class Reader(Protocol):
    """What asks the server: a connection, or a session whose statements another thread may stop."""

    def rows(self, sql: str, *arguments: Value) -> list[Row]:
        """Run a statement to its end and return its rows; raise ``ServerError`` when the server refuses it."""


def require_driver() -> None:
    """Load the driver; raise ``InvalidTargetError`` when it is not installed."""
    try:
        import pymysql  # noqa: F401, PLC0415 - who maintains no MariaDB need not have it
    except ModuleNotFoundError as error:
        raise InvalidTargetError(_REMEDY) from error


class Connection:
    """One connection to a server, in autocommit, used by one thread.

    Args:
        address: where the database is.
        program: what the server is told of who connects, as its connection attribute ``program_name``.

    Raises:
        InvalidTargetError: the driver is not installed.
        ServerError: the server cannot be reached, or refuses.
    """

    def __init__(self, address: Address, *, program: str = "overhaul") -> None:
        require_driver()
        from worker_service.operations.mariadb import driver  # noqa: PLC0415 - see require_driver

        self._errors = driver.ERRORS
        self._descriptor = driver.descriptor
        try:
            self._connection: Any = driver.connect({**address.arguments(), "program_name": program})
        except (*driver.ERRORS, RuntimeError, ValueError) as error:
            raise translated(error) from error
        self._number = int(self.value("SELECT CONNECTION_ID()"))

    @property
    def number(self) -> int:
        """The server's id of the connection, which KILL takes."""
        return self._number

    @property
    def descriptor(self) -> int:
        """The file descriptor of the connection, -1 where it has ended."""
        return self._descriptor(self._connection)

    def rows(self, sql: str, *arguments: Value) -> list[Row]:
        """Run a statement to its end and return its rows; without arguments a ``%`` means itself.

        Raises:
            ServerError: the server refused it, or the connection broke.
        """
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(sql, arguments or None)
                return [tuple(row) for row in cursor.fetchall()]
        except self._errors as error:
            raise translated(error) from error

    def records(self, sql: str) -> list[Mapping[str, Value]]:
        """Run a statement whose columns differ from version to version, and return its rows by their names."""
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(sql)
                names = [str(column[0]) for column in cursor.description or ()]
                return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        except self._errors as error:
            raise translated(error) from error

    def value(self, sql: str, *arguments: Value) -> Value:
        """Run a statement and return the first column of its first row; ``None`` when there is none."""
        rows = self.rows(sql, *arguments)
        return rows[0][0] if rows else None

    def close(self) -> None:
        """End the connection; harmless when it is broken."""
        try:
            self._connection.close()
        except self._errors:
            return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def translated(error: Exception) -> ServerError:
    """Return the driver's error as one of ours."""
    match error.args:
        case (0, ""):
            # So the driver answers whoever asks once more after the connection broke.
            return ServerError(_GONE, "the connection has ended")
        case (int(number), str(text), *_) if not isinstance(error, OSError):
            return ServerError(number, text)
        case _:
            return ServerError(NO_DRIVER_ERROR, str(error) or type(error).__name__)
