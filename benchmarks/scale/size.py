from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured: how often, and the small or the full number of whatever makes it large."""

    rounds: int
    full: bool

    def of(self, small: int, full: int) -> int:
        """Return the number that was asked for."""
        return full if self.full else small
