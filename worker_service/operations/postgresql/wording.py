"""Numbers and names as people and PostgreSQL read them."""

from collections.abc import Sequence


def count(number: float, noun: str, plural: str | None = None) -> str:
    """Write a number with its noun: ``1 index``, ``3 indexes``."""
    return f"{number:,.0f} {noun if number == 1 else plural or noun + 's'}"


def quoted(name: str) -> str:
    """Quote an identifier for PostgreSQL, whatever it contains."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Quote a text for PostgreSQL, whatever it contains."""
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'" if "\\" in text else f"'{escaped}'"


def listed(items: Sequence[str], most: int = 5) -> str:
    """Join the first items, and tell how many more there are."""
    more = len(items) - most
    return "; ".join(items[:most]) + (f"; and {more:,} more" if more > 0 else "")
