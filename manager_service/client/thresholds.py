"""When an operation is worth its while, as a client says it; free of gRPC, so that options are read without it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A condition on what is measured of an object, such as ``dead_ratio > 0.1``.

    It is for one operation, one target or objects whose names fit a pattern where these are given. Of several that
    fit the most specific counts: by object before by target before by operation.
    """

    condition: str
    operation: str = ""
    target: str = ""
    object: str = ""
