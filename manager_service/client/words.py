"""How values of the wire are written for people and for scripts: enum words, safe text, times."""

import unicodedata
from datetime import UTC, datetime, timedelta

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from overhaul.v1 import job_pb2

UNSAFE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})


def word(message: Message, field: str) -> str | None:
    """Return an enum field as the glossary writes it, such as ``partially_completed``; ``None`` when unset."""
    number: int = getattr(message, field)
    enum = message.DESCRIPTOR.fields_by_name[field].enum_type
    if enum is None:
        raise TypeError(f"{message.DESCRIPTOR.name}.{field} is not an enum")
    if number == 0:
        return None
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    value = enum.values_by_number.get(number)
    return f"unknown_{number}" if value is None else value.name.removeprefix(prefix).lower()


def spoken(message: Message, field: str) -> str:
    """Return an enum field in words, such as ``partially completed``; empty when unset."""
    return (word(message, field) or "").replace("_", " ")


def waits_for(child: job_pb2.ChildJob) -> str:
    """Return for what a child waits, in words; empty when it does not wait, or nobody tells."""
    if child.wait_reason == job_pb2.WAIT_REASON_AVAILABLE_TIME:
        return "to be tried again"
    return spoken(child, "wait_reason")


def place(child: job_pb2.ChildJob) -> str:
    """Return what a child is done to, such as ``shop.public.orders``."""
    return f"{child.target}.{child.object}" if child.HasField("object") else child.target


def safe(text: str) -> str:
    """Return the text with everything that steers a terminal written out as an escape, on one line."""
    return "".join(
        character.encode("unicode_escape").decode("ascii")
        if unicodedata.category(character) in UNSAFE_CATEGORIES
        else character
        for character in text
    )


def moment(message: Message, field: str) -> datetime | None:
    """Return a timestamp field with its zone (UTC); ``None`` when unset."""
    if not message.HasField(field):
        return None
    stamp: Timestamp = getattr(message, field)
    return stamp.ToDatetime(tzinfo=UTC)


def clock(message: Message, field: str) -> str:
    """Return a point in time as people here write it; empty where it is unset."""
    value = moment(message, field)
    return "" if value is None else value.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def duration(message: Message) -> timedelta | None:
    """Return the time from `start_time` to `end_time`; ``None`` while either is unset."""
    start, end = moment(message, "start_time"), moment(message, "end_time")
    return None if start is None or end is None else max(end - start, timedelta(0))


def about(span: timedelta) -> str:
    """Return a span of which no more is known, such as ``about 20 s``, ``about 5 min`` or ``about 2 h 30 min``."""
    total = span.total_seconds()
    if total < 1:
        return "less than a second"
    if round(total) < 60:  # noqa: PLR2004 - a minute
        return f"about {round(total)} s"
    hours, minutes = divmod(round(total / 60), 60)
    parts = (f"{hours} h" if hours else "", f"{minutes} min" if minutes else "")
    return " ".join(("about", *(part for part in parts if part)))


def how_far(progress: job_pb2.Progress) -> str:
    """Return how far an operation is and how long it still takes, such as ``copy 41 %, about 2 min left``."""
    left = remaining(progress)
    return ", ".join(part for part in (percentage(progress), f"{about(left)} left" if left else "") if part)


def percentage(progress: job_pb2.Progress) -> str:
    """Return how far an operation is, such as ``copy 41 %``, or ``copy 1200 pages`` without a total."""
    phase = safe(progress.phase)
    if progress.HasField("done") and progress.total > 0:
        return f"{phase} {min(100, 100 * progress.done // progress.total)} %".strip()
    return f"{phase} {progress.done} {safe(progress.unit)}".strip() if progress.HasField("done") else phase


def remaining(progress: job_pb2.Progress) -> timedelta | None:
    """Return how long an operation still takes; ``None`` where that cannot be told."""
    return progress.remaining.ToTimedelta() if progress.HasField("remaining") else None


def seconds(span: timedelta | None) -> str:
    """Return a span in words, such as ``0.4 s`` or ``2:05:00``; empty for ``None``."""
    if span is None:
        return ""
    total = span.total_seconds()
    if total < 60:  # noqa: PLR2004 - a minute
        return f"{total:.1f} s"
    return str(timedelta(seconds=round(total))).removeprefix("0:")


def number(value: float) -> str:
    """Return a number as short as it is exact enough for people."""
    return f"{int(value)}" if value.is_integer() else f"{value:g}"
