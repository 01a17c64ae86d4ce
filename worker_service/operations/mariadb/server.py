from dataclasses import dataclass
from typing import Self

from worker_service.domain.target import Target
from worker_service.operations.mariadb.connection import Connection, ServerError
from worker_service.operations.mariadb.failures import is_not_here

_UNIQUE_IDS = ("@@GLOBAL.server_uid", "@@GLOBAL.server_uuid")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What a server says of itself.

    Attributes:
        version: such as ``10.11.19-MariaDB``.
        is_mariadb: whether it is MariaDB and not MySQL, whatever the URL called it.
        unique_id: its own identifier; where it has none, its host name and port, told as ``at:HOST:PORT``.
        database: the database's name as the server writes it.
    """

    version: str
    is_mariadb: bool
    unique_id: str
    database: str

    @classmethod
    def on(cls, connection: Connection) -> Self:
        """Ask the server; raise ``ServerError`` when it does not answer."""
        [(version, comment, database)] = connection.rows("SELECT VERSION(), @@version_comment, DATABASE()")
        return cls(
            version=str(version),
            is_mariadb="mariadb" in f"{version} {comment}".lower(),
            unique_id=_unique_id(connection),
            database=str(database),
        )

    @property
    def product(self) -> str:
        """Return what it is, as ``MariaDB 10.11.19``."""
        return f"{'MariaDB' if self.is_mariadb else 'MySQL'} {self.version}"

    def identity(self, target: Target) -> str:
        """Tell which database the target really is: server and name, or what the target states."""
        if target.identity:
            return target.identity
        kind = "mariadb" if self.is_mariadb else "mysql"
        return f"{kind}:{self.unique_id}:{self.database}"

    def lock_key(self, target: Target) -> str:
        """The key of the database in the manager, which tells an identity that was stated from other engines'."""
        return f"{'' if target.identity is None else 'mariadb:'}{self.identity(target)}"


def _unique_id(connection: Connection) -> str:
    for variable in _UNIQUE_IDS:
        try:
            if found := connection.value(f"SELECT {variable}"):
                return str(found)
        except ServerError as error:
            if not is_not_here(error):
                raise
    [(host, port)] = connection.rows("SELECT @@hostname, @@port")
    return f"at:{host}:{port}"
