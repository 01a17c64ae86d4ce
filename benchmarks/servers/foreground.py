"""How long pgbench's transactions take while the database is maintained."""

import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.figures import Figure, percentile
from benchmarks.servers import sample
from benchmarks.servers.contenders import overhaul_serving, timed
from benchmarks.servers.postgresql import THE_SAME, Contender, by_table, copy_of, reference, whole_by_two
from benchmarks.servers.size import Size
from tests.postgres import PostgresServer

# Of pgbench's two clients no more than one may be at work when something is to begin.
_THROTTLE = "max_active_sessions = 1"


def _throttled(_: PostgresServer, url: str) -> float:
    with overhaul_serving(url, *THE_SAME, "--scope", "table", throttle=_THROTTLE) as command:
        return timed(command)


_CONTENDERS: dict[str, Contender] = {
    "vacuumdb, reindexdb": reference,
    "overhaul run": by_table,
    "overhaul run --scope database, jobs=2": whole_by_two,
    "overhaul create, throttled": _throttled,
}
_CLIENTS = 2


def measure(size: Size) -> list[Figure]:
    """Run pgbench beside each on copies in turn, and compare its 99th percentiles."""
    found: dict[str, list[float]] = {name: [] for name in _CONTENDERS}
    seconds: dict[str, list[float]] = {name: [] for name in _CONTENDERS}
    with PostgresServer(durable=True, settings={"autovacuum": "off", "max_wal_size": "4GB"}) as server:
        source = sample.make(server, size)
        for number in range(size.rounds):
            for name in _CONTENDERS if number % 2 == 0 else reversed(_CONTENDERS):
                with copy_of(server, source) as url, _pgbench(server, url) as latencies:
                    seconds[name].append(_CONTENDERS[name](server, url))
                found[name].append(percentile(latencies, 99))
    theirs = found["vacuumdb, reindexdb"]
    return [
        *(
            Figure(name=f"pgbench, 99 %, beside {name}", values=values, unit="ms")
            for name, values in found.items()
        ),
        *(Figure(name=f"{name}, all of it", values=values, unit="s") for name, values in seconds.items()),
        *(
            Figure(
                name=f"{name} / vacuumdb, reindexdb",
                values=[o / t for o, t in zip(found[name], theirs, strict=True)],
                unit="x",
                aim="at most 1",
            )
            for name in ("overhaul run", "overhaul run --scope database, jobs=2", "overhaul create, throttled")
        ),
    ]


@contextmanager
def _pgbench(server: PostgresServer, url: str) -> Iterator[list[float]]:
    """Run pgbench for as long as the block takes; what it hands out holds the latencies in ms afterwards."""
    latencies: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        command: list[str | Path] = [
            server.program("pgbench"),
            "--client",
            str(_CLIENTS),
            "--time",
            "3600",
            "--log",
            "--no-vacuum",
            url,
        ]
        running = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield latencies
        finally:
            running.send_signal(signal.SIGTERM)
            running.wait()
        for log in Path(folder).iterdir():
            lines = log.read_text().splitlines()[:-1]  # the last may be half a line
            latencies += [int(line.split()[2]) / 1000 for line in lines]
