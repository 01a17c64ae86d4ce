from contextlib import suppress

import apsw

from worker_service.domain.errors import OperationCancelledError
from worker_service.domain.outcome import FailureCategory, Measures, Result, Verdict
from worker_service.operations.sqlite.checkpoint import truncate_log
from worker_service.operations.sqlite.failures import failed
from worker_service.operations.sqlite.measures import used_bytes
from worker_service.operations.sqlite.options import BUSY_TIMEOUT, Options
from worker_service.operations.sqlite.procedure import completed
from worker_service.operations.sqlite.session import Session, looking
from worker_service.operations.sqlite.space import shortage, vacuum_needs
from worker_service.operations.sqlite.vacuum_progress import VacuumProgress
from worker_service.operations.wording import count, share, size

_PATIENCE = 5.0


class Vacuum:
    """Rewrite the whole file, so that its free pages go back to the file system."""

    name = "vacuum"
    description = "Rewrite the file without its free pages and in order."
    options = (BUSY_TIMEOUT,)

    def plan(self, connection: apsw.Connection, _options: Options, /) -> tuple[str, ...]:
        """VACUUM, and in WAL mode the checkpoint that gives the bytes back."""
        in_wal = connection.pragma("journal_mode") == "wal"
        return ("VACUUM", "PRAGMA main.wal_checkpoint(TRUNCATE)") if in_wal else ("VACUUM",)

    def run(self, session: Session, before: Measures, /) -> Result:
        """Check the room, rewrite the file, empty the log, judge by pages."""
        with session.snapshot():
            mode, objects = session.journal_mode(), _objects(session)
            version = session.number("PRAGMA main.schema_version")
        missing = shortage(vacuum_needs(before, session.location, mode))
        if missing:
            return failed("NO_SPACE_FOR_VACUUM", missing, FailureCategory.DISK_FULL)
        note = self._rewrite(session, before, version)
        with session.snapshot():
            return judge(before, session.measures(), note, _lost(session, objects))

    def _rewrite(self, session: Session, before: Measures, version: int) -> str:
        try:
            with VacuumProgress(session, before):
                session.rows("VACUUM")
            return truncate_log(session)
        except OperationCancelledError:
            if not _was_committed(session, version):
                raise
            return "the stop came too late, the file is rewritten"
        except apsw.FullError:
            # The log that grew until the disk was full would stay, though nothing in it counts.
            with suppress(apsw.Error, OperationCancelledError):
                truncate_log(session)
            raise


def judge(before: Measures, after: Measures, note: str, lost: list[str]) -> Result:
    """Say what VACUUM did: the pages tell, for in WAL mode the file shrinks only with its checkpoint."""
    if "pages" not in after:
        return completed(Verdict.UNKNOWN, f"VACUUM ended; its effect cannot be read: {note or 'locked'}.", after)
    suffix = f"; {note}" if note else ""
    if lost:
        text = (
            f"VACUUM dropped {count(len(lost), 'entry', 'entries')} of the schema: {', '.join(lost[:5])}{suffix}."
        )
        return completed(Verdict.PARTIALLY_EFFECTIVE, text, after)
    reclaimed = used_bytes(before) - used_bytes(after)
    if reclaimed <= 0:
        return completed(Verdict.NO_EFFECT, f"the file was already as small as it can be{suffix}.", after)
    reason = f"reclaimed {size(reclaimed)}: {share(reclaimed, used_bytes(before))} of the file{suffix}."
    waiting = after["wal_bytes"] > 0
    return completed(Verdict.PARTIALLY_EFFECTIVE if waiting else Verdict.EFFECTIVE, reason, after)


def _objects(session: Session) -> set[str]:
    return set(session.names("SELECT type || ' ' || name FROM main.sqlite_schema"))


def _lost(session: Session, objects: set[str]) -> list[str]:
    try:
        return sorted(objects - _objects(session))
    except OperationCancelledError:
        return []


def _was_committed(session: Session, version: int) -> bool:
    # VACUUM raises the schema's version in the transaction that swaps the content, so it tells which came first.
    try:
        with looking(session.location, seconds=_PATIENCE) as connection:
            return bool(connection.pragma("schema_version") != version)
    except apsw.Error:
        return False
