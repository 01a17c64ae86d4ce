import argparse
import os
import sys
from collections.abc import Callable, Mapping

from benchmarks.figures import Figure
from benchmarks.scale import (
    backlog,
    big_parent,
    cancel,
    creation,
    held_snapshot,
    one_parent,
    two_managers,
    vacuum,
    watchers,
)
from benchmarks.scale.size import Size
from tests.postgres import PostgresServer

FIGURES: Mapping[str, Callable[[PostgresServer, Size], list[Figure]]] = {
    "cancel": cancel.measure,
    "creation": creation.measure,
    "backlog": backlog.measure,
    "big_parent": big_parent.measure,
    "two_managers": two_managers.measure,
    "watchers": watchers.measure,
    "one_parent": one_parent.measure,
    "held_snapshot": held_snapshot.measure,
    "vacuum": vacuum.measure,
}


def main(arguments: list[str]) -> None:
    """Measure the PostgreSQL store at scale, each figure on a private server that waits for the disk."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks scale", description=main.__doc__)
    parser.add_argument("names", nargs="*", help=f"what to measure, of {', '.join(FIGURES)}; without names all")
    parser.add_argument("--rounds", type=int, default=2, help="how often each is measured (2)")
    parser.add_argument("--full", action="store_true", help="the full sizes, which take most of an hour")
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.names if name not in FIGURES]:
        parser.error(f"nothing is called {unknown[0]}; there are {', '.join(FIGURES)}")
    for name in given.names or FIGURES:
        print(f"{name}:", flush=True)
        with PostgresServer(durable=True) as server:
            print(
                f"  {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, PostgreSQL {server.version}",
                file=sys.stderr,
            )
            for figure in FIGURES[name](server, Size(rounds=given.rounds, full=given.full)):
                print(f"  {figure}", flush=True)
