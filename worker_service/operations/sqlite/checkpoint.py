import re

import apsw

from worker_service.domain.outcome import FailureCategory, Measures, Result, Verdict
from worker_service.operations.options import ChoiceOption
from worker_service.operations.sqlite.failures import failed
from worker_service.operations.sqlite.options import BUSY_TIMEOUT, Options
from worker_service.operations.sqlite.procedure import completed, skipped
from worker_service.operations.sqlite.session import Session
from worker_service.operations.wording import count, size

_FIXED = "3.51.3, 3.50.7 or 3.44.6"
_MODE = ChoiceOption(
    name="mode",
    description="How far the checkpoint goes: passive, full, restart or truncate (default truncate).",
    default="truncate",
    choices=("passive", "full", "restart", "truncate"),
)


class WalCheckpoint:
    """Move the write-ahead log's content into the database file."""

    name = "wal_checkpoint"
    description = "Move the write-ahead log into the file, and by default empty it."
    options = (_MODE, BUSY_TIMEOUT)

    def plan(self, connection: apsw.Connection, options: Options, /) -> tuple[str, ...]:
        """One checkpoint, in WAL mode only."""
        return (_statement(options),) if connection.pragma("journal_mode") == "wal" else ()

    def run(self, session: Session, before: Measures, /) -> Result:
        """Checkpoint and read the answer's row: busy is a column there, never an error."""
        mode = session.journal_mode()
        if mode != "wal":
            return skipped(
                f"the database has no write-ahead log (its journal mode is {mode}).", session.measures()
            )
        version = apsw.sqlite_lib_version()
        if inside_wal_reset_race(version):
            return failed("WAL_RESET_RACE", _refusal(version), FailureCategory.INVALID)
        busy, frames, moved = (int(str(value)) for value in session.rows(_statement(session.options))[0])
        after = session.measures() | {"frames": float(frames), "frames_moved": float(moved)}
        return judge(before, after, busy=busy != 0)


def judge(before: Measures, after: Measures, *, busy: bool) -> Result:
    """Say what a checkpoint did; a truncated log counts no frames, so its size before and after tells."""
    if before["wal_bytes"] == 0 and after["frames"] <= 0:
        return completed(Verdict.NO_EFFECT, "the write-ahead log was empty.", after)
    if not busy and after["frames_moved"] >= after["frames"]:
        gone = before["wal_bytes"] - after["wal_bytes"]
        reason = "the whole write-ahead log is in the file"
        return completed(Verdict.EFFECTIVE, f"{reason}{f', {size(gone)} went' if gone > 0 else ''}.", after)
    held = "another connection still uses the rest"
    if after["frames_moved"] <= 0:
        return completed(
            Verdict.NO_EFFECT, "nothing of the write-ahead log could be moved: a connection uses it.", after
        )
    reason = f"moved {after['frames_moved']:.0f} of {count(after['frames'], 'frame')}; {held}, so the log stays."
    return completed(Verdict.PARTIALLY_EFFECTIVE, reason, after)


def truncate_log(session: Session) -> str:
    """Empty the log after an operation that filled it; return what hindered it, or nothing."""
    if session.journal_mode() != "wal":
        return ""
    if inside_wal_reset_race(apsw.sqlite_lib_version()):
        note = f"the log was left alone: {_refusal(apsw.sqlite_lib_version())}"
    elif session.number("PRAGMA main.wal_checkpoint(TRUNCATE)") == 0:
        return ""
    else:
        note = "another connection uses the write-ahead log, so its bytes come back with a later checkpoint"
    session.log("warning", note)
    return note


def inside_wal_reset_race(version: str) -> bool:
    """Tell whether a SQLite library can damage a database when a checkpoint meets a writer.

    The race is in 3.7.0 to 3.51.2, and mended in 3.44.6 and 3.50.7 of their lines.
    """
    number = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
    mended = (3, 44, 6) <= number < (3, 45, 0) or (3, 50, 7) <= number < (3, 51, 0)
    return (3, 7, 0) <= number < (3, 51, 3) and not mended


def _refusal(version: str) -> str:
    return (
        f"SQLite {version} can damage the database when a checkpoint meets a writer; "
        f"use {_FIXED} or newer of their lines (pip install -U apsw)."
    )


def _statement(options: Options) -> str:
    return f"PRAGMA main.wal_checkpoint({options.words[_MODE.name].upper()})"
