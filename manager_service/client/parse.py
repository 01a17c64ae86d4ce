"""How the texts of options are read; one that cannot be read is a usage error with what would have been right."""

import re
from datetime import UTC, datetime, timedelta

import typer

from manager_service.client.thresholds import Threshold

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_WHERE = re.compile(r"(?P<operation>[^@/]*)(?:@(?P<target>[^/]+))?(?:/(?P<object>.+))?")
SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def span(text: str) -> timedelta:
    """Read a span such as ``30s``, ``5m``, ``2h`` or ``1h30m``."""
    parts = SPAN.findall(text.strip())
    if not parts or "".join(number + unit for number, unit in parts) != text.strip():
        raise typer.BadParameter(f"{text!r} is not a duration; write for example 30s, 5m, 2h or 1h30m")
    try:
        value = timedelta(seconds=sum(float(number) * UNITS[unit] for number, unit in parts))
    except OverflowError:
        raise typer.BadParameter(f"{text!r} is too long") from None
    if value < timedelta(milliseconds=1):
        raise typer.BadParameter(f"{text!r} is too short; the least is 1ms")
    return value


def deadline(text: str, now: datetime | None = None) -> datetime:
    """Read a time such as ``2030-01-31T04:00+01:00`` (without a zone: local time), or ``+2h`` from now."""
    if text.startswith("+"):
        return (now or datetime.now(UTC)) + span(text[1:])
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a time; write for example 2030-01-31T04:00 or +2h") from None


def pairs(texts: list[str] | None) -> dict[str, str]:
    """Read ``key=value`` texts; a key twice is refused."""
    read: dict[str, str] = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise typer.BadParameter(f"{text!r} is not a label; write key=value")
        if key in read:
            raise typer.BadParameter(f"the key {key!r} is given twice")
        read[key] = value
    return read


def operation(text: str) -> tuple[str, dict[str, str]]:
    """Read ``NAME`` or ``NAME:option=value,option=value`` into the name and its options."""
    name, colon, options = text.partition(":")
    if not name or (colon and not options):
        raise typer.BadParameter(f"{text!r} is not an operation; write NAME or NAME:option=value,option=value")
    return name, pairs(options.split(",")) if options else {}


def threshold(text: str) -> Threshold:
    """Read ``CONDITION``, or ``OPERATION@TARGET/OBJECT: CONDITION`` with any of the three parts left out."""
    where, colon, condition = text.rpartition(":")
    match = _WHERE.fullmatch(where.strip())
    if not condition.strip() or match is None or (colon and not where.strip()):
        raise typer.BadParameter(
            f"{text!r} is no threshold; write a condition such as 'dead_ratio > 0.1', or one for some alone such "
            "as 'vacuum@orders/public.big*: dead_ratio > 0.3'"
        )
    named = {part: text.strip() for part, text in match.groupdict(default="").items()}
    return Threshold(condition=condition.strip(), **named)
