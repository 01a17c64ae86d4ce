from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured: how often, pgbench's scale, and how many small tables there are beside its own."""

    rounds: int
    scale: int
    tables: int
