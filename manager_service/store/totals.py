"""What attempts did, as the rows of parent jobs and children hold it."""

import json
from dataclasses import astuple, fields
from functools import lru_cache
from typing import Any

from manager_service.domain.totals import NOTHING, LockWaiter, Totals

_NUMBERS = tuple(field.name for field in fields(Totals) if field.name != "waiters")
_NAMES = tuple(field.name for field in fields(LockWaiter))


def totals_text(totals: Totals) -> str | None:
    """Return totals as JSON; those of nothing, which most parent jobs begin with, as nothing."""
    if totals == NOTHING:
        return None
    numbers = {name: value for name in _NUMBERS if (value := getattr(totals, name))}
    return json.dumps({**numbers, "waiters": [astuple(waiter) for waiter in totals.waiters]})


# Read at each end of an attempt, and mostly still what was written at the last.
@lru_cache(maxsize=256)
def totals_of_text(text: str | None) -> Totals:
    """Return the totals that ``totals_text`` wrote."""
    if text is None:
        return NOTHING
    value = json.loads(text)
    return Totals(**{**value, "waiters": _waiters(value["waiters"])})


def waiters_text(waiters: tuple[LockWaiter, ...]) -> str | None:
    """Return who waited for locks as JSON; nobody, which is the most frequent by far, as nothing."""
    return json.dumps([astuple(waiter) for waiter in waiters]) if waiters else None


def waiters_of_text(text: str | None) -> tuple[LockWaiter, ...]:
    """Return the waiters that ``waiters_text`` wrote."""
    return _waiters(json.loads(text)) if text else ()


def _waiters(rows: list[list[Any]]) -> tuple[LockWaiter, ...]:
    return tuple(LockWaiter(**dict(zip(_NAMES, row, strict=True))) for row in rows)
