"""What VACUUM itself says of the rows it went through, which the server's counters tell late or not at all."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from worker_service.operations.postgresql.names import Name
from worker_service.operations.postgresql.session import Notice

# The words are those of English; where the server speaks another language the counters have to do.
_ROWS = re.compile(r"tuples: (\d+) removed, \d+ remain, (\d+) are dead but not yet removable")
_VERSIONS = re.compile(r"found (\d+) removable, \d+ nonremovable row versions")
_KEPT = re.compile(r"(\d+) dead row versions cannot be removed yet")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Dead rows that a VACUUM removed, and those that it had to leave."""

    removed: int
    remaining: int


@dataclass(slots=True)
class Heard:
    """What was said of each table, the one for its long values included."""

    rows: dict[Name, Rows] = field(default_factory=dict)

    def hear(self, name: Name, notices: Sequence[Notice]) -> None:
        """Take what was said while the table was vacuumed."""
        said = [rows for notice in notices if (rows := _said(notice))]
        if said:
            removed, remaining = sum(one.removed for one in said), sum(one.remaining for one in said)
            self.rows[name] = Rows(removed=removed, remaining=remaining)


def _said(notice: Notice) -> Rows | None:
    if match := _ROWS.search(notice.text):
        return Rows(removed=int(match[1]), remaining=int(match[2]))
    if match := _VERSIONS.search(notice.text):
        kept = _KEPT.search(notice.detail)
        return Rows(removed=int(match[1]), remaining=int(kept[1]) if kept else 0)
    return None
