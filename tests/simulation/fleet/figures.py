"""Figures of a simulation, and how they are shown."""

from collections.abc import Mapping, Sequence

Figures = Mapping[str, int | float | str]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which so large a share of the values lies; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def jain(shares: Sequence[float]) -> float:
    """Return Jain's index of some shares: 1 when all are equal, 1/n when one has everything."""
    return sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))


def table(figures: Figures) -> str:
    """Return figures as lines of text."""
    width = max(map(len, figures))
    return "\n".join(f"  {name:<{width}}  {_text(value)}" for name, value in figures.items())


def _text(value: float | str) -> str:
    match value:
        case str():
            return value
        case int():
            return f"{value:,}"
        case _:
            return f"{value:,.3f}" if abs(value) < 1 else f"{value:,.1f}"
