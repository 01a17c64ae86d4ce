"""What two servers wrote down of the statements of maintenance that ran in them."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from tests.battery.overlaps import Work
from tests.mariadb import MariadbServer

POSTGRES_LOGGED = {
    "log_statement": "all",
    "log_min_duration_statement": "0",
    "log_line_prefix": "%n|%p|%d|%a|",
}
MARIADB_LOGGED = {"slow-query-log": "1", "long-query-time": "0", "log-output": "TABLE"}
NEVER = float("inf")
_LINE = re.compile(
    r"(?P<time>\d+\.\d+)\|(?P<pid>\d+)\|(?P<db>[^|]*)\|(?P<app>[^|]*)\|(?P<kind>[A-Z]+):  (?P<text>.*)"
)
_ATTEMPT = re.compile(r"overhaul:(?P<child>[^:]+):(?P<attempt>\d+)")
_PART = r'"((?:[^"]|"")+)"'
_POSTGRES_WORK = re.compile(
    r"(?:VACUUM|ANALYZE|CLUSTER|REINDEX INDEX|DROP INDEX)(?: \([^)]*\)| CONCURRENTLY| IF EXISTS| ONLY)* "
    rf"(?P<object>{_PART}\.{_PART})"
)
_MARIADB_WORK = re.compile(
    r"/\* (?P<tag>\S+) \*/ "
    r"(?P<text>(?:OPTIMIZE|ALTER|ANALYZE|CHECK)(?: NO_WRITE_TO_BINLOG)? TABLE `(?P<table>(?:[^`]|``)+)`.*)"
)
_ENDED = "SELECT db, UNIX_TIMESTAMP(start_time), TIME_TO_SEC(query_time), sql_text FROM mysql.slow_log"


def postgres_works(log: Iterable[str], tables_of: Mapping[str, frozenset[str]]) -> list[Work]:
    """Read the statements that a server with these settings wrote down, in order.

    A statement that has no end has none because the server ended first: then it ends with the server's next start.

    Args:
        log: the lines of the server's log.
        tables_of: by the quoted name of a table or index, whose tables a statement on it works on.
    """
    begun: dict[str, Work] = {}
    found: list[Work] = []
    for time, pid, app, kind, text, database in _lines(log):
        if text.startswith("starting PostgreSQL"):
            found += [_ended(work, time, well=False) for work in begun.values()]
            begun = {}
        elif kind == "LOG" and (work := _begun(text, app, database, time, tables_of)):
            begun[pid] = work
        elif pid in begun and (kind in {"ERROR", "FATAL", "PANIC"} or text.startswith("duration: ")):
            found.append(_ended(begun.pop(pid), time, well=kind == "LOG"))
    return [*found, *(_ended(work, NEVER, well=False) for work in begun.values())]


def mariadb_works(server: MariadbServer, database: str) -> list[Work]:
    """Read the statements that ended in a database of a server with these settings."""
    return [work for work in _mariadb_works(server.run(_ENDED)) if work.database == database]


def _mariadb_works(rows: Iterable[tuple[object, ...]]) -> Iterator[Work]:
    for database, begin, seconds, text in rows:
        match = _MARIADB_WORK.fullmatch(str(text))
        attempt = _ATTEMPT.fullmatch(match["tag"]) if match else None
        if match and attempt:
            yield Work(
                child=attempt["child"],
                attempt=int(attempt["attempt"]),
                database=str(database),
                tables=frozenset({match["table"].replace("``", "`")}),
                text=match["text"],
                begin=float(str(begin)),
                end=float(str(begin)) + float(str(seconds)),
            )


def _lines(log: Iterable[str]) -> Iterator[tuple[float, str, str, str, str, str]]:
    for line in log:
        if match := _LINE.fullmatch(line):
            yield float(match["time"]), match["pid"], match["app"], match["kind"], match["text"], match["db"]


def _begun(
    text: str, app: str, database: str, time: float, tables_of: Mapping[str, frozenset[str]]
) -> Work | None:
    attempt = _ATTEMPT.fullmatch(app)
    match = _POSTGRES_WORK.fullmatch(text.removeprefix("statement: "))
    if attempt is None or match is None:
        return None
    return Work(
        child=attempt["child"],
        attempt=int(attempt["attempt"]),
        database=database,
        tables=tables_of.get(match["object"], frozenset({match["object"]})),
        text=match[0],
        begin=time,
        end=NEVER,
    )


def _ended(work: Work, time: float, *, well: bool) -> Work:
    return replace(work, end=time, well=well)
