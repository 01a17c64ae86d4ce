"""Connections to MariaDB and MySQL that outlive an operation."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from typing_extensions import override

from worker_service.operations import kept
from worker_service.operations.mariadb.address import Address
from worker_service.operations.mariadb.connection import Connection
from worker_service.operations.mariadb.server import Server

Lent = kept.Lent[Address, Connection]


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What holds for the next operation on a connection too: which server it leads to, and what was set on it."""

    server: Server
    settings: Sequence[str]


class Kept(kept.Kept[Address, Connection]):
    """Lends connections and takes those back that hold no lock; what is ``known`` is ``Known``."""

    @override
    def connect(self, place: Address) -> Connection:
        return Connection(place)

    @override
    def key(self, place: Address) -> Hashable:
        parameters = tuple(sorted(place.parameters.items()))
        return place.host, place.port, place.database, place.user, place.password, parameters

    @override
    def descriptor(self, connection: Connection) -> int:
        return connection.descriptor

    @override
    def is_clean(self, connection: Connection) -> bool:
        # The locks are given back by their names, and every operation states what it goes by.
        return connection.descriptor >= 0
