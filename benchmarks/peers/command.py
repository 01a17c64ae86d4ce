import argparse

from benchmarks.peers.contest import contest
from benchmarks.peers.report import report


def main(arguments: list[str]) -> None:
    """Compare Overhaul with its peers, on a private PostgreSQL, and print how it stands."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks peers", description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured (5)")
    parser.add_argument(
        "--store",
        choices=["postgresql", "sqlite"],
        default="postgresql",
        help="Overhaul's job store (postgresql); the peers are on PostgreSQL always",
    )
    given = parser.parse_args(arguments)
    for line in report(contest(given.rounds, given.store)):
        print(line, flush=True)
