"""Writing tables anew: OPTIMIZE TABLE and ALTER TABLE ... FORCE, judged by the files and not by the OK."""

from collections.abc import Callable
from dataclasses import replace

from worker_service.domain.outcome import Result, Verdict
from worker_service.operations.mariadb.answers import Answer, Fate
from worker_service.operations.mariadb.options import BINLOG, LOCK_TIMEOUT, ONLINE, REBUILD, Options
from worker_service.operations.mariadb.procedure import Facts, judge
from worker_service.operations.mariadb.state import rebuilt
from worker_service.operations.mariadb.tables import ENGINES_WITHOUT_SPACE, Table
from worker_service.operations.mariadb.wording import quoted
from worker_service.operations.options import FORMER_ATTEMPT
from worker_service.operations.wording import count, share, size

_SAME_FILES = "the server says OK and its files are the old ones; innodb_optimize_fulltext_only does that"
_GRANT = "grant PROCESS, so that the files can be read"


class Vacuum:
    """Write every table anew, so that what its deleted rows left goes back to the file system."""

    name = "vacuum"
    description = "Write every table anew (OPTIMIZE TABLE), which gives back the room of deleted rows."
    options = (REBUILD, ONLINE, BINLOG, LOCK_TIMEOUT, FORMER_ATTEMPT)
    only_looks = False
    copies = True
    engines_left_alone = ENGINES_WITHOUT_SPACE

    def statement(self, table: Table, options: Options, /) -> str:
        """OPTIMIZE, which InnoDB does as a rebuild and an ANALYZE; or the rebuild alone."""
        if options[REBUILD.name] or options[ONLINE.name]:
            return rebuild_statement(table, options)
        words = "OPTIMIZE TABLE" if options[BINLOG.name] else "OPTIMIZE NO_WRITE_TO_BINLOG TABLE"
        return f"{words} {quoted(table.name)}"

    def keeps_out(self, table: Table, options: Options, /) -> str:
        """Writers, for a moment or for all of it."""
        return _keeps_out(table, options)

    def judge(self, facts: Facts, /) -> Result:
        """Judge by the bytes of the files."""
        return _judge(facts, _reclaimed)


class Reindex:
    """Rebuild every table with all its indexes."""

    name = "reindex"
    description = "Rebuild every table with all its indexes (ALTER TABLE ... FORCE)."
    options = (ONLINE, BINLOG, LOCK_TIMEOUT, FORMER_ATTEMPT)
    only_looks = False
    copies = True
    engines_left_alone = ENGINES_WITHOUT_SPACE

    def statement(self, table: Table, options: Options, /) -> str:
        """The rebuild; the server has no other way to make an index of InnoDB anew."""
        return rebuild_statement(table, options)

    def keeps_out(self, table: Table, options: Options, /) -> str:
        """Writers, for a moment or for all of it."""
        return _keeps_out(table, options)

    def judge(self, facts: Facts, /) -> Result:
        """Judge by whether the files are other ones now."""
        return _judge(facts, _anew)


def rebuild_statement(table: Table, options: Options) -> str:
    """Word the rebuild; an online one is refused by the server where it would keep writers waiting."""
    online = ", ALGORITHM=INPLACE, LOCK=NONE" if options[ONLINE.name] else ""
    return f"ALTER TABLE {quoted(table.name)} FORCE{online}"


def _keeps_out(table: Table, options: Options) -> str:
    if options[ONLINE.name]:
        return "everyone waits for a moment at its beginning and its end; it fails where writers would wait longer"
    if table.is_innodb:
        return (
            "everyone waits for a moment at its beginning and its end; with a FULLTEXT index writers wait for all "
            "of it"
        )
    return "writers wait for all of it"


def _judge(facts: Facts, verdict: Callable[[Facts, list[str]], tuple[Verdict, str]]) -> Result:
    seen = _amended(facts)
    measures = {
        "tables_rebuilt": float(len(seen.swept.having(Fate.DONE))),
        "tables_failed": float(len(seen.swept.having(Fate.FAILED, Fate.INTERRUPTED))),
    }
    return judge(seen, "rebuilt", measures, lambda done: verdict(seen, done))


def _amended(facts: Facts) -> Facts:
    """Correct what the server said by what its files say: a failure may come after the work, an OK without any."""
    swept, after = facts.swept, facts.after
    if after is None:
        return facts
    answers = {
        name: _by_files(answer, rebuilt(name, facts.before, after, said=answer.fate is Fate.DONE))
        for name, answer in swept.answers.items()
    }
    seen = replace(swept, answers=answers)
    if len(seen.having(Fate.DONE)) == swept.total:
        seen = replace(seen, stopped=False, end=None)
    return replace(facts, swept=seen)


def _by_files(answer: Answer, anew: bool | None) -> Answer:  # noqa: FBT001 - three values, of which one is unknown
    if anew is False and answer.fate is Fate.DONE:
        return Answer(fate=Fate.NOTHING_TO_DO, text=_SAME_FILES)
    if anew and answer.fate in {Fate.FAILED, Fate.INTERRUPTED}:
        return Answer(fate=Fate.DONE, text=f"it is rebuilt, and then: {answer.text}")
    return answer


def _reclaimed(facts: Facts, done: list[str]) -> tuple[Verdict, str]:
    told = f"rebuilt {count(len(facts.swept.having(Fate.DONE)), 'table')}"
    had, has, unknown = _sizes(facts, done)
    if had > has:
        reason = f"{told}, reclaimed {size(had - has)}: {share(had - has, had)} of their files"
        more = f"; of {count(unknown, 'table')} more nobody tells the size: {_GRANT}" if unknown else ""
        return Verdict.EFFECTIVE, reason + more
    if unknown:
        return Verdict.UNKNOWN, f"{told}; what came back cannot be told of {unknown} of them: {_GRANT}"
    return Verdict.NO_EFFECT, f"{told}, their files were already as small as they can be"


def _anew(facts: Facts, done: list[str]) -> tuple[Verdict, str]:
    if facts.after is None:
        return Verdict.UNKNOWN, "the server said OK, and could not be asked any more what its files are"
    after = facts.after
    seen = [name for name in done if rebuilt(name, facts.before, after, said=True)]
    told = f"rebuilt {count(len(seen), 'table')} with all their indexes"
    if len(seen) == len(done):
        return Verdict.EFFECTIVE, told
    unseen = len(done) - len(seen)
    if not seen:
        return Verdict.UNKNOWN, f"the server said OK of {count(unseen, 'table')}, and nothing else tells: {_GRANT}"
    return Verdict.PARTIALLY_EFFECTIVE, f"{told}; of {unseen} more the server's OK is all there is: {_GRANT}"


def _sizes(facts: Facts, names: list[str]) -> tuple[int, int, int]:
    """Add up the bytes before and after, and count the tables whose bytes are not known."""
    if facts.after is None:
        return 0, 0, len(names)
    pairs = [(facts.before.size(name), facts.after.size(name)) for name in names]
    known = [(had, has) for had, has in pairs if had is not None and has is not None]
    return sum(had for had, _ in known), sum(has for _, has in known), len(pairs) - len(known)
