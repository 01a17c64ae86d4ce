"""Numbers and lists as people read them, the same for every engine."""

from collections.abc import Iterable

_STEP = 1000
_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def size(number: float) -> str:
    """Write bytes for people: ``12.3 MB``."""
    value, unit = float(number), 0
    while value >= _STEP and unit < len(_UNITS) - 1:
        value, unit = value / _STEP, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def disk_need(number: float) -> str:
    """Write how many bytes of disk something takes while it runs; empty for none."""
    return f"needs about {size(number)} of disk meanwhile" if number else ""


def share(part: float, whole: float) -> str:
    """Write a part of a whole as ``40 %``."""
    return f"{100 * part / whole:.0f} %" if whole else "0 %"


def count(number: float, noun: str, plural: str | None = None) -> str:
    """Write a number with its noun: ``1 index``, ``3 indexes``."""
    return f"{number:,.0f} {noun if number == 1 else plural or noun + 's'}"


def listed(items: Iterable[str], most: int = 5) -> str:
    """Join the first items, and tell how many more there are."""
    every = list(items)
    more = len(every) - most
    return "; ".join(every[:most]) + (f"; and {more:,} more" if more > 0 else "")
