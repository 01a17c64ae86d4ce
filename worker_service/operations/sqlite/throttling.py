"""What a query of the file's owner says, to hold a target back."""

import time

import apsw

from worker_service.domain.errors import TargetUnavailableError
from worker_service.domain.target import Target
from worker_service.domain.throttle import Throttle
from worker_service.operations.sqlite.failures import is_interrupt
from worker_service.operations.sqlite.location import Location
from worker_service.operations.sqlite.session import STEPS, looking

THROTTLES = frozenset({"while_sql", "unless_sql"})


def held_back(target: Target, *, seconds: float) -> str:
    """Return why the target is held back; raise ``TargetUnavailableError`` when it cannot be looked at."""
    throttle, until = target.throttle or Throttle(), time.monotonic() + seconds
    try:
        with looking(Location.of(target.url), seconds=seconds) as connection:
            connection.set_progress_handler(lambda: time.monotonic() > until, STEPS)
            return throttle.by_answer(_rows(connection, throttle.sql or "SELECT 0"))
    except apsw.Error as error:
        said = f"it took longer than {seconds:g} s" if is_interrupt(error) else str(error)
        raise TargetUnavailableError(said) from error


def _rows(connection: apsw.Connection, sql: str) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    for row in connection.execute(sql):
        found.append(tuple(row))
        if len(found) > 1:
            break
    return found
