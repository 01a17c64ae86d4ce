"""What the store holds at one moment, read by a connection of its own."""

from collections import namedtuple
from pathlib import Path
from typing import Any, Final, NamedTuple

from pysqlite3 import dbapi2

_PARENTS = [
    "id",
    "state",
    "paused",
    "cancel_requested",
    "round",
    "spec",
    "end_time",
    "sequence",
    "pending",
    "leased",
    "running",
    "completed",
    "failed",
    "cancelled",
    "skipped",
]
_CHILDREN = [
    "id",
    "parent_id",
    "position",
    "lane",
    "target",
    "operation",
    "attempts",
    "failures",
    "losses",
    "version",
    "state",
    "verdict",
    "reason",
    "end_time",
]
_LEASES = [
    "child_id",
    "lease_id",
    "parent_id",
    "target",
    "operation",
    "session_id",
    "attempt",
    "losses",
    "state",
    "version",
    "missed",
    "expire_time",
    "stop",
]
_EVENTS = ["parent_id", "sequence", "kind", "child_id", "previous_state", "attempts", "version", "state", "counts"]

_TABLES: Final = {
    "parents": ("SELECT {} FROM parent_jobs JOIN parent_counts ON parent_id = id", _PARENTS),
    "children": ("SELECT {} FROM child_jobs ORDER BY parent_id, position", _CHILDREN),
    "leases": ("SELECT {} FROM leases", _LEASES),
    "attempts": (
        "SELECT {} FROM attempts",
        ["child_id", "attempt", "lease_id", "report_id", "outcome"],
    ),
    "queue": ("SELECT {} FROM queue", ["child_id", "parent_id", "target", "hold"]),
    "locks": ("SELECT {} FROM live_locks", ["key", "child_id", "exclusive"]),
    "sessions": ("SELECT {} FROM sessions", ["id", "slots", "state"]),
    "totals": (
        "SELECT parent_id, count(*) AS number, max(sequence) AS last FROM events GROUP BY parent_id",
        ["parent_id", "number", "last"],
    ),
}


class Facts(NamedTuple):
    """The rows of one snapshot; ``events`` are those that were not read before."""

    parents: dict[str, Any]
    children: dict[str, Any]
    leases: dict[str, Any]
    attempts: list[Any]
    queue: dict[str, Any]
    locks: list[Any]
    sessions: dict[str, Any]
    totals: dict[str, Any]
    events: list[Any]


def _row(name: str, columns: list[str]) -> Any:
    make: Any = namedtuple  # noqa: PYI024 -- the columns are data
    return make(name, columns)._make


_ROWS: Final = {name: _row(name, columns) for name, (_, columns) in _TABLES.items()}
_SQL: Final = {name: sql.format(", ".join(columns)) for name, (sql, columns) in _TABLES.items()}
_EVENT: Final = _row("events", _EVENTS)
_NEW_EVENTS: Final = (
    f"SELECT {', '.join(_EVENTS)} FROM events WHERE parent_id = ? AND sequence > ? ORDER BY sequence"
)


class Observer:
    """Reads the store's file behind the manager's back."""

    def __init__(self, path: Path) -> None:
        self._raw = dbapi2.connect(str(path), isolation_level=None)
        self._cursor = self._raw.cursor()
        self._version = -1
        self._read: dict[str, int] = {}

    def changed(self) -> bool:
        """Tell whether something was committed since the last look."""
        [version] = self._cursor.execute("PRAGMA data_version").fetchone()
        changed, self._version = version != self._version, version
        return bool(changed)

    def look(self) -> Facts:
        """Read everything in one snapshot."""
        self._cursor.execute("BEGIN")
        try:
            rows = {
                name: [_ROWS[name](row) for row in self._cursor.execute(sql).fetchall()]
                for name, sql in _SQL.items()
            }
            events = [event for total in rows["totals"] for event in self._new_events(total)]
        finally:
            self._cursor.execute("ROLLBACK")
        return Facts(
            parents={row.id: row for row in rows["parents"]},
            children={row.id: row for row in rows["children"]},
            leases={row.child_id: row for row in rows["leases"]},
            attempts=rows["attempts"],
            queue={row.child_id: row for row in rows["queue"]},
            locks=rows["locks"],
            sessions={row.id: row for row in rows["sessions"]},
            totals={row.parent_id: row for row in rows["totals"]},
            events=events,
        )

    def _new_events(self, total: Any) -> list[Any]:
        after = self._read.get(total.parent_id, 0)
        if after == total.last:
            return []
        self._read[total.parent_id] = total.last
        return [_EVENT(row) for row in self._cursor.execute(_NEW_EVENTS, (total.parent_id, after)).fetchall()]

    def close(self) -> None:
        self._raw.close()
