"""Times and spans: microseconds here, Timestamp and Duration on the wire. Unset is ``None``."""

from functools import lru_cache

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from manager_service.domain.model import Instant, Span

_MICROS = 1_000_000
_NANOS_PER_MICRO = 1_000


def timestamp(instant: Instant | None) -> Timestamp | None:
    """Convert a time for the wire."""
    if instant is None:
        return None
    return Timestamp(seconds=instant // _MICROS, nanos=instant % _MICROS * _NANOS_PER_MICRO)


@lru_cache
def duration(span: Span | None) -> Duration | None:
    """Convert a span that is not negative for the wire; only to be copied, for answers hold the same few."""
    if span is None:
        return None
    return Duration(seconds=span // _MICROS, nanos=span % _MICROS * _NANOS_PER_MICRO)


def instant(message: Message, field: str) -> Instant | None:
    """Read a Timestamp field."""
    return _micros(message, field)


def span(message: Message, field: str) -> Span | None:
    """Read a Duration field; rounded away from zero, so that a tiny one does not become none."""
    return _micros(message, field)


def _micros(message: Message, field: str) -> int | None:
    if not message.HasField(field):
        return None
    value: Duration | Timestamp = getattr(message, field)
    nanos = value.nanos
    return value.seconds * _MICROS + (-(-nanos // _NANOS_PER_MICRO) if nanos > 0 else nanos // _NANOS_PER_MICRO)
