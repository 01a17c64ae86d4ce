from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """An opaque key that the operation holds while it runs; exclusive keys never overlap."""

    key: str
    exclusive: bool = True
