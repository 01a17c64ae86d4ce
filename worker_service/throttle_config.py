"""The `throttle` table of a target in the configuration file."""

import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from worker_service.domain.errors import ConfigurationError
from worker_service.domain.throttle import Throttle

_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}
_LONGEST = 7 * 86_400.0
_MOST = 1 << 53
_QUERY = re.compile(r"\s*(?:select|with|values)\b", re.IGNORECASE)


def read_throttle(table: Mapping[str, Any], where: str) -> Throttle:
    """Return what the table says.

    Args:
        table: it, with none but known keys.
        where: whose it is, to begin an error with.

    Raises:
        ConfigurationError: a value makes no sense; the message says what to write.
    """
    read: dict[str, Callable[[Any], Any]] = {
        "max_replication_lag": _span,
        "max_replication_bytes": _number,
        "max_active_sessions": _number,
        "while_sql": _query,
        "unless_sql": _query,
        "pause_file": _file,
    }
    given: dict[str, Any] = {}
    for name, value in table.items():
        try:
            given[name] = read[name](value)
        except ValueError as error:
            raise ConfigurationError(f"{where}: its {name} {error}.") from None
    if "while_sql" in given and "unless_sql" in given:
        raise ConfigurationError(f"{where}: it has while_sql and unless_sql; put both into one query.")
    return Throttle(**given)


def _span(value: Any) -> timedelta:
    seconds = value
    if isinstance(value, str) and (match := _SPAN.fullmatch(value.strip())):
        seconds = float(match[1]) * _SECONDS[match[2]]
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= _LONGEST:
        raise ValueError('has to be a span of at most a week, such as "500 ms", "30 s", "5 min" or "1 h"')
    return timedelta(seconds=seconds)


def _number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST:
        raise ValueError("has to be a whole number from 0")
    return value


def _query(value: Any) -> str:
    if not isinstance(value, str) or not _QUERY.match(value):
        raise ValueError('has to be a query of one row and column, such as "SELECT count(*) > 10 FROM carts"')
    return value.strip().removesuffix(";")


def _file(value: Any) -> Path:
    if not isinstance(value, str) or "\0" in value or not Path(value).is_absolute():
        raise ValueError("has to be an absolute path, such as /run/overhaul/pause")
    path = Path(value)
    if not path.parent.is_dir():
        raise ValueError(f"would lie in a folder that is not there: make {path.parent} first")
    return path
