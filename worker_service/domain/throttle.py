"""What a target's owner wants to be spared: while one of these holds, nothing begins there."""

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

PAUSE_FILE = "pause_file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttle:
    """When a target is held back; what is ``None`` is not looked at.

    Attributes:
        max_replication_lag: how far its replicas may be behind, or it behind its primary.
        max_replication_bytes: how many bytes of the log its replicas may have yet to replay.
        max_active_sessions: how many sessions other than Overhaul's may be at work on the server.
        while_sql: a query of one row and column; while that is true the target is held back.
        unless_sql: the same, the other way round: while that is not true the target is held back.
        pause_file: while it exists the target is held back.
    """

    max_replication_lag: timedelta | None = None
    max_replication_bytes: int | None = None
    max_active_sessions: int | None = None
    while_sql: str | None = field(default=None, repr=False)
    unless_sql: str | None = field(default=None, repr=False)
    pause_file: Path | None = None

    @property
    def asks(self) -> frozenset[str]:
        """The names of what the engine is to look at: all that is set but the file."""
        names = (
            "max_replication_lag",
            "max_replication_bytes",
            "max_active_sessions",
            "while_sql",
            "unless_sql",
        )
        return frozenset(name for name in names if getattr(self, name) is not None)

    @property
    def sql(self) -> str | None:
        """The query, whichever way round."""
        return self.while_sql or self.unless_sql

    def by_answer(self, rows: list[tuple[object, ...]]) -> str:
        """Return why the query's answer holds the target back; the empty text when it does not.

        An answer that is neither true nor false holds it back, whichever way round: nobody knows what it means.
        """
        if len(rows) != 1 or len(rows[0]) != 1:
            return f"{self._name} has to answer one row of one column"
        [(value,)] = rows
        if value is None or isinstance(value, str | bytes):
            return f"{self._name} answers neither true nor false"
        if self.while_sql:
            return "while_sql is true" if value else ""
        return "" if value else "unless_sql is not true"

    def by_lag(self, seconds: float, whose: str) -> str:
        """Return why a lag holds the target back."""
        if self.max_replication_lag is None or seconds <= self.max_replication_lag.total_seconds():
            return ""
        return f"{whose} is {round(seconds, 2):g} s behind, at most {self.max_replication_lag.total_seconds():g}"

    def by_bytes(self, behind: float, whose: str) -> str:
        """Return why bytes that were not replayed hold the target back."""
        if self.max_replication_bytes is None or behind <= self.max_replication_bytes:
            return ""
        return f"{whose} is {behind:.0f} bytes behind, at most {self.max_replication_bytes}"

    def by_sessions(self, active: int) -> str:
        """Return why the sessions at work hold the target back."""
        if self.max_active_sessions is None or active <= self.max_active_sessions:
            return ""
        return f"{active} active sessions, at most {self.max_active_sessions}"

    @property
    def _name(self) -> str:
        return "while_sql" if self.while_sql else "unless_sql"
