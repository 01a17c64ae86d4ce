"""Connections to PostgreSQL that outlive an operation."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from typing_extensions import override

from worker_service.operations import kept
from worker_service.operations.postgresql.address import Conninfo, connect

Raw = psycopg.Connection[tuple[Any, ...]]

_NAME = "overhaul"
# What one operation reads of a table the next one reads too: to think it out anew takes longer than to read it.
_PREPARED_AFTER = 5
# What the operation had set or locked holds for the next one no more.
_CLEAN = b"RESET ALL; SELECT pg_catalog.pg_advisory_unlock_all()"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a database is, and which it is where that was configured and is not asked for."""

    conninfo: Conninfo
    identity: str | None = None


Lent = kept.Lent[Place, Raw]


class Kept(kept.Kept[Place, Raw]):
    """Lends connections and takes them back; ``known`` is the place's identity, once it was looked at.

    Two targets may be one database and state to be two: neither has a connection of the other's.
    """

    @override
    def connect(self, place: Place) -> Raw:
        connection = connect(place.conninfo, _NAME)
        connection.prepare_threshold = _PREPARED_AFTER
        return connection

    @override
    def key(self, place: Place) -> Hashable:
        return place.identity, tuple(sorted(place.conninfo.items()))

    @override
    def descriptor(self, connection: Raw) -> int:
        return -1 if connection.closed else connection.fileno()

    @override
    def is_clean(self, connection: Raw) -> bool:
        if connection.info.transaction_status is not TransactionStatus.IDLE:
            return False
        try:
            connection.execute(_CLEAN, prepare=False)
        except psycopg.Error:
            return False
        return True
