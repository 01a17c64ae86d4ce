"""Overhaul beside vacuumdb and reindexdb, on copies of one PostgreSQL database."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from benchmarks.figures import Figure
from benchmarks.servers import end_state, sample
from benchmarks.servers.contenders import overhaul_run, overhaul_serving, timed
from benchmarks.servers.size import Size
from tests.postgres import PostgresServer

Contender = Callable[[PostgresServer, str], float]
# What `vacuumdb --analyze` does to each table in one statement, and reindexdb after it.
THE_SAME = ("--operation", "vacuum:analyze=true", "--operation", "reindex")
_BY_TWO = ("--operation", "vacuum:analyze=true,jobs=2", "--operation", "reindex:jobs=2")
_SOME = "reference, of 5 % of the tables"
_WORTH_IT = (*THE_SAME, "--scope", "table", "--only-if", "dead_rows > 30")


def reference(server: PostgresServer, url: str) -> float:
    """Vacuum and analyse, then rebuild, by the server's own programs over two connections."""
    return timed(
        [server.program("vacuumdb"), "--analyze", "--jobs", "2", "--quiet", "--dbname", url],
        [server.program("reindexdb"), "--concurrently", "--jobs", "2", "--quiet", "--dbname", url],
    )


def whole(_: PostgresServer, url: str) -> float:
    """Walk the database, one operation after the other."""
    return timed(overhaul_run(url, *THE_SAME, "--scope", "database"))


def whole_by_two(_: PostgresServer, url: str) -> float:
    """Walk the database over two connections, as the reference does."""
    return timed(overhaul_run(url, *_BY_TWO, "--scope", "database"))


def by_table(_: PostgresServer, url: str) -> float:
    """Do the same with a child job for each table, which is the default."""
    return timed(overhaul_run(url, *THE_SAME))


def served(_: PostgresServer, url: str) -> float:
    """Do so by a manager and a worker that run already."""
    with overhaul_serving(url, *THE_SAME, "--scope", "table") as command:
        return timed(command)


def served_by_two(_: PostgresServer, url: str) -> float:
    """Walk the database by them, over two connections."""
    with overhaul_serving(url, *_BY_TWO) as command:
        return timed(command)


def worth_it_served(_: PostgresServer, url: str) -> float:
    """Do it by them where there are dead rows to speak of."""
    with overhaul_serving(url, *_WORTH_IT) as command:
        return timed(command)


def worth_it(_: PostgresServer, url: str) -> float:
    """Do the same where there are dead rows to speak of."""
    return timed(overhaul_run(url, *_WORTH_IT))


_OF_ALL: Mapping[str, Contender] = {
    "overhaul run": by_table,
    "overhaul run --scope database": whole,
    "overhaul run --scope database, jobs=2": whole_by_two,
    "overhaul create --scope table": served,
    "overhaul create, jobs=2": served_by_two,
}


def measure(size: Size) -> list[Figure]:
    """Time each on copies in turn, and compare what is left behind."""
    with PostgresServer(durable=True, settings={"autovacuum": "off", "max_wal_size": "4GB"}) as server:
        print(f"  PostgreSQL {server.version}, scale {size.scale}, {size.tables} small tables", file=sys.stderr)
        source = sample.make(server, size)
        well = sample.make_well(server, source)
        rounds = [_round(server, source, well, size, number) for number in range(size.rounds)]
    times = {name: [seconds[name] for seconds, _ in rounds] for name in rounds[0][0]}
    differing = [float(len(found)) for _, found in rounds]
    for found in (found for _, found in rounds if found):
        print(f"  differing: {', '.join(found[:10])}", file=sys.stderr)
    return [
        *(Figure(name=name, values=values, unit="s") for name, values in times.items()),
        *(_ratio(times, name, "reference", "at most 1") for name in _OF_ALL),
        *(
            _ratio(times, f"{command} --only-if, of 5 % of the tables", _SOME, "at most 0.25")
            for command in ("overhaul run", "overhaul create")
        ),
        Figure(name="differences of the end state", values=differing, unit="", aim="0"),
    ]


def _round(
    server: PostgresServer, source: str, well: str, size: Size, number: int
) -> tuple[dict[str, float], list[str]]:
    contenders: list[tuple[str, str, Contender]] = [
        ("reference", source, reference),
        *((name, source, contender) for name, contender in _OF_ALL.items()),
        (_SOME, well, reference),
        ("overhaul run --only-if, of 5 % of the tables", well, worth_it),
        ("overhaul create --only-if, of 5 % of the tables", well, worth_it_served),
    ]
    seconds, states = {}, {}
    for name, template, contender in contenders if number % 2 == 0 else reversed(contenders):
        with copy_of(server, template) as url:
            if template is well:
                sample.spoil(url, size)
            states["before", template] = end_state.read(server, url)
            seconds[name] = contender(server, url)
            states[name, template] = end_state.read(server, url)
    ordered = {name: seconds[name] for name, *_ in contenders}
    before, of_reference = states["before", source], states["reference", source]
    return ordered, [
        found for name in _OF_ALL for found in end_state.differences(before, of_reference, states[name, source])
    ]


@contextmanager
def copy_of(server: PostgresServer, template: str) -> Iterator[str]:
    """Lend a copy of a database, with nothing left to be written to the disk."""
    url = server.create_database(template)
    server.checkpoint()
    try:
        yield url
    finally:
        server.drop_database(url)


def _ratio(times: dict[str, list[float]], ours: str, theirs: str, aim: str) -> Figure:
    ratios = [o / t for o, t in zip(times[ours], times[theirs], strict=True)]
    return Figure(name=f"{ours} / {theirs}", values=ratios, unit="x", aim=aim)
