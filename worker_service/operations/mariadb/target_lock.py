"""The lock in the server, which keeps two operations apart whatever the manager granted.

The server's named locks have one holder each, so a database has a number of places. Who works on all of it takes
all of them; who works on one table takes any of them, and the lock of that table. So all against one is busy, from
either side; two tables are worked on beside each other, and one table by one only. For that a connection has to
hold several locks, which MariaDB 10.0.2 and MySQL 5.7.5 have brought.

The first place is called as the only lock was before there were places, and a worker of that time takes this one
alone. So who works on a table leaves it free, and looks whether it is.
"""

import hashlib
from collections.abc import Sequence
from contextlib import suppress

from worker_service.domain.errors import TargetBusyError
from worker_service.operations.mariadb.connection import Connection, ServerError

_DIGEST = 32
_PLACES = 16
_TRIES = 2
_SPREAD = 4


class TargetLock:
    """What one connection holds of a database's lock.

    Args:
        connection: the one that works; the lock ends with it at the latest.
        database: the database's name as the server writes it.
        tag: the attempt's, by which a later attempt finds who holds the lock.
    """

    def __init__(self, connection: Connection, database: str, tag: str) -> None:
        self._connection = connection
        self._database = database
        self._places = place_names(database)
        self._own = attempt_lock_name(tag)
        self._held: tuple[str, ...] = ()

    def take(self, table: str | None) -> None:
        """Take it for the whole database, or for one table of it, without waiting.

        Raises:
            TargetBusyError: another connection holds it; then this one holds nothing of it.
        """
        try:
            if table is None:
                self._take_all()
            else:
                self._take_one(table)
        except TargetBusyError:
            self.release()
            raise

    def release(self) -> bool:
        """Give back what is held, and tell whether the connection holds nothing more.

        The server frees it with the connection too, but a moment after that has ended here: the next operation
        would find the database busy.
        """
        if not self._held:
            return True
        # A kill that came too late for a statement may strike this one, once.
        for _ in range(_TRIES):
            with suppress(ServerError):
                self._each("RELEASE_LOCK(%s)", self._held)
                self._held = ()
                return True
        return False

    def _take_all(self) -> None:
        self._held = (*self._places, self._own)
        for name, taken in zip(self._places, self._each("GET_LOCK(%s, 0)", self._held), strict=False):
            if not taken:
                what = "the database" if name == self._places[0] else "a table of the database"
                raise self._busy(name, f"{what} {self._database!r}")

    def _take_one(self, table: str) -> None:
        # In one statement, because most operations take less time than to ask for each.
        name = table_lock_name(self._database, table)
        place, *others = self._places_from(name)
        names = (name, place, self._own)
        asked = f"SELECT IS_FREE_LOCK(%s){', GET_LOCK(%s, 0)' * len(names)}"
        free, *taken = self._connection.rows(asked, self._places[0], *names)[0]
        self._held = tuple(lock for lock, got in zip(names, taken, strict=True) if got)
        if not free:
            raise self._busy(self._places[0], f"the database {self._database!r}")
        if name not in self._held:
            raise self._busy(name, f"the table {table!r} of the database {self._database!r}")
        if place not in self._held and not any(self._take(other) for other in others):
            raise TargetBusyError(
                f"Other operations work on {_PLACES - 1} tables of the database {self._database!r}: that is all."
            )

    def _take(self, name: str) -> bool:
        taken = bool(self._connection.value("SELECT GET_LOCK(%s, 0)", name))
        if taken:
            self._held = (*self._held, name)
        return taken

    def _places_from(self, table: str) -> Sequence[str]:
        """Return the places for tables, beginning where few others begin."""
        places = self._places[1:]
        begin = int(table[-_SPREAD:], 16) % len(places)
        return (*places[begin:], *places[:begin])

    def _each(self, call: str, names: Sequence[str]) -> Sequence[object]:
        return self._connection.rows(f"SELECT {', '.join([call] * len(names))}", *names)[0]

    def _busy(self, name: str, what: str) -> TargetBusyError:
        holder = self._connection.value("SELECT IS_USED_LOCK(%s)", name)
        return TargetBusyError(f"Another operation holds {what} (connection {holder}).")


def place_names(database: str) -> tuple[str, ...]:
    """Name the places of a database; a lock's name has 64 signs at most."""
    first = _name(database)
    return (first, *(f"{first}:{number}" for number in range(1, _PLACES)))


def table_lock_name(database: str, table: str) -> str:
    """Name the lock of one table; no identifier has the sign that parts them."""
    return _name(f"{database}\0{table}")


def attempt_lock_name(tag: str) -> str:
    """Name what an attempt holds besides, so that a later one can tell which connection is its."""
    return _name(f"\0{tag}")


def _name(what: str) -> str:
    return f"overhaul:{hashlib.sha256(what.encode()).hexdigest()[:_DIGEST]}"
