import apsw

from worker_service.domain.errors import OperationCancelledError
from worker_service.domain.outcome import Measures, Result, Verdict
from worker_service.operations.options import NumberOption
from worker_service.operations.sqlite.checkpoint import truncate_log
from worker_service.operations.sqlite.options import BUSY_TIMEOUT, Options
from worker_service.operations.sqlite.procedure import cancelled, completed, skipped
from worker_service.operations.sqlite.session import Session
from worker_service.operations.wording import count, size

CHUNK = 1_000
_INCREMENTAL = 2
_SETTINGS = {0: "none", 1: "full"}
_PAGES = NumberOption(
    name="pages", description="How many free pages to give back at most (default 0: all).", default=0
)


class IncrementalVacuum:
    """Give free pages back in small transactions, so that others get their turn in between."""

    name = "incremental_vacuum"
    description = "Give free pages back in small steps; needs auto_vacuum=incremental."
    options = (_PAGES, BUSY_TIMEOUT)

    def plan(self, connection: apsw.Connection, options: Options, /) -> tuple[str, ...]:
        """One statement a chunk."""
        if connection.pragma("auto_vacuum") != _INCREMENTAL:
            return ()
        total = _wanted(int(connection.pragma("freelist_count")), options)
        return tuple(_statement(min(CHUNK, total - done)) for done in range(0, total, CHUNK))

    def run(self, session: Session, before: Measures, /) -> Result:
        """Free chunk by chunk; a stop keeps what is done."""
        setting = session.number("PRAGMA main.auto_vacuum")
        if setting != _INCREMENTAL:
            return skipped(_not_incremental(setting), session.measures())
        total = _wanted(int(before["free_pages"]), session.options)
        if total == 0:
            return skipped("the file has no free pages.", session.measures())
        note = self._free(session, total)
        return judge(before, session.measures(), total, note)

    def _free(self, session: Session, total: int) -> str:
        try:
            for done in range(0, total, CHUNK):
                session.progress("free", done, total, "pages")
                session.checkpoint()
                session.rows(_statement(min(CHUNK, total - done)))
            session.progress("free", total, total, "pages")
            truncate_log(session)
        except OperationCancelledError:
            return "stopped"
        return ""


def judge(before: Measures, after: Measures, total: int, note: str) -> Result:
    """Say how many pages the file lost."""
    freed = before["pages"] - after.get("pages", before["pages"])
    text = f"gave back {count(freed, 'page')}: {size(freed * before['page_bytes'])}"
    if note and freed < total:
        return cancelled(f"stopped after it {text} of {total}.", after)
    if freed <= 0:
        return completed(Verdict.NO_EFFECT, "no page could be given back.", after)
    if freed < total:
        return completed(Verdict.PARTIALLY_EFFECTIVE, f"{text}, of {total} wanted.", after)
    return completed(Verdict.EFFECTIVE, f"{text}.", after)


def _wanted(free: int, options: Options) -> int:
    asked = options.numbers[_PAGES.name]
    return min(asked, free) if asked else free


def _statement(pages: int) -> str:
    return f"PRAGMA main.incremental_vacuum({pages})"


def _not_incremental(setting: int) -> str:
    return (
        f"the database's auto_vacuum is {_SETTINGS.get(setting, str(setting))}, and must be incremental: "
        "set PRAGMA auto_vacuum=2, then run vacuum once."
    )
