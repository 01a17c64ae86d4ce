"""What a server answered to one statement on one table: pure reading of rows, warnings and errors.

OPTIMIZE, ANALYZE and CHECK raise nothing for a lock that was not to be had, a kill, a view or a missing table: it
stands in a row of their result, and the error's number in the warnings, if anywhere.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from worker_service.domain.outcome import Failure, FailureCategory
from worker_service.operations.mariadb.connection import Row
from worker_service.operations.mariadb.failures import (
    INTERRUPTED,
    NO_SUCH_TABLE,
    TIME_OUTS,
    WRONG_OBJECT,
    failure_of,
    number_in,
)

_FAILED = "operation failed"
_CORRUPT = "corrupt"
_UP_TO_DATE = "already up to date"
_NO_SUPPORT = "doesn't support"
_RECREATED = "recreate + analyze instead"
_SHOWN = 3
_QUOTED = re.compile(r"'[^']*'|`[^`]*`")


class Fate(Enum):
    """What became of one table."""

    DONE = auto()
    NOTHING_TO_DO = auto()
    LEFT_ALONE = auto()
    FAILED = auto()
    INTERRUPTED = auto()
    DAMAGED = auto()
    DOUBTFUL = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of one table, with the server's words and, if it failed, what that means."""

    fate: Fate
    text: str = ""
    failure: Failure | None = None
    notes: tuple[str, ...] = field(default=())


def of_error(number: int, text: str) -> Answer:
    """Read an error, raised or from a row; ``number`` is 0 where a row has its words only."""
    number = number or number_in(text)
    if number == NO_SUCH_TABLE:
        return Answer(fate=Fate.LEFT_ALONE, text="it is not there any more")
    if number == WRONG_OBJECT:
        return Answer(fate=Fate.LEFT_ALONE, text="it is no table with rows of its own")
    failure = failure_of(number, text)
    if number == INTERRUPTED or number in TIME_OUTS:
        return Answer(fate=Fate.INTERRUPTED, text=text, failure=failure)
    return Answer(fate=Fate.FAILED, text=text, failure=failure)


def of_rows(rows: Sequence[Row], warnings: Sequence[Row]) -> Answer:
    """Read the rows of OPTIMIZE, ANALYZE or CHECK TABLE and the warnings after it."""
    errors = [text for kind, text in _messages(rows) if kind == "error"]
    others = tuple(text for kind, text in _messages(rows) if kind in {"note", "warning", "info"})
    status = next((text for kind, text in reversed(_messages(rows)) if kind == "status"), "")
    raised = [(int(code), str(text)) for level, code, text in warnings if str(level).lower() == "error"]
    low = status.lower()
    if _is_damage(errors, low):
        told = "; ".join([*others, *errors][:_SHOWN])
        return Answer(fate=Fate.DAMAGED, text=told, failure=_damage(told), notes=others)
    if errors or low == _FAILED or raised:
        number, text = raised[0] if raised else (0, errors[0] if errors else "")
        return of_error(number, text) if text else _without_reason()
    if low == "ok":
        return Answer(fate=Fate.DONE, notes=tuple(note for note in others if _RECREATED not in note))
    if _UP_TO_DATE in low:
        return Answer(fate=Fate.NOTHING_TO_DO, text=status)
    unsupported = next((note for note in (*others, status) if _NO_SUPPORT in note), "")
    if unsupported:
        return Answer(fate=Fate.LEFT_ALONE, text=f"the server says: {unsupported.lower()}")
    return Answer(fate=Fate.DOUBTFUL, text=status or "; ".join(others) or "the server answered nothing")


def _messages(rows: Sequence[Row]) -> list[tuple[str, str]]:
    return [(str(row[2]).lower(), str(row[3])) for row in rows]


def _is_damage(errors: Sequence[str], status: str) -> bool:
    # A table may be called crashed_jobs.
    words = [_QUOTED.sub("", text.lower()) for text in errors]
    return _CORRUPT in status or any(_CORRUPT in text or "crashed" in text for text in words)


def _damage(told: str) -> Failure:
    return Failure(
        reason="DAMAGED",
        message=f"The table is damaged ({told}): keep a copy of its files, restore a backup or use REPAIR TABLE.",
        category=FailureCategory.CORRUPT,
        retryable=False,
    )


def _without_reason() -> Answer:
    # ANALYZE that was killed answers this and nothing else.
    text = "The server says that it failed and not why; it does so when the statement was killed."
    failure = Failure(reason="OPERATION_FAILED", message=text, category=FailureCategory.INTERNAL, retryable=True)
    return Answer(fate=Fate.INTERRUPTED, text=text, failure=failure)
