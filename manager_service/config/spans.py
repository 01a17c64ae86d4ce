import re

from manager_service.domain.model import MILLISECOND, SECOND, Span

_SPAN = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)")
_UNITS = {"ms": MILLISECOND, "s": SECOND, "m": 60 * SECOND, "h": 3_600 * SECOND, "d": 86_400 * SECOND}


def parse_span(text: str) -> Span:
    """Read a span such as ``500ms``, ``10s``, ``5m``, ``12h`` or ``30d``; raise ``ValueError``."""
    match = _SPAN.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a span; write a number and a unit: 500ms, 10s, 5m, 12h or 30d")
    return int(float(match[1]) * _UNITS[match[2]])


def show_span(span: Span) -> str:
    """Write a span in the largest unit that holds it wholly."""
    for unit, size in reversed(_UNITS.items()):
        if span and not span % size:
            return f"{span // size}{unit}"
    return f"{span / SECOND:g}s"
