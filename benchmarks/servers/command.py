import argparse
import os
import sys
from collections.abc import Callable, Mapping

from benchmarks.figures import Figure
from benchmarks.servers import foreground, mariadb, postgresql
from benchmarks.servers.size import Size

FIGURES: Mapping[str, Callable[[Size], list[Figure]]] = {
    "postgresql": postgresql.measure,
    "foreground": foreground.measure,
    "mariadb": mariadb.measure,
}


def main(arguments: list[str]) -> None:
    """Maintain copies of a database by `overhaul run` and by the server's own programs, in turn."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks servers", description=main.__doc__)
    parser.add_argument("names", nargs="*", help=f"what to measure, of {', '.join(FIGURES)}; without names all")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured (3)")
    parser.add_argument("--scale", type=int, default=50, help="pgbench's scale: 100,000 rows each (50)")
    parser.add_argument("--tables", type=int, default=500, help="how many small tables there are beside (500)")
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.names if name not in FIGURES]:
        parser.error(f"nothing is called {unknown[0]}; there are {', '.join(FIGURES)}")
    for name in given.names or FIGURES:
        print(f"{name}:", flush=True)
        print(f"  {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
        for figure in FIGURES[name](Size(rounds=given.rounds, scale=given.scale, tables=given.tables)):
            print(f"  {figure}", flush=True)
