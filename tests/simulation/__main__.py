"""Replay one seed: ``python -m tests.simulation --seed N [--steps M]``."""

import argparse
import sys

from tests.simulation.machine import product_in_simulation
from tests.simulation.seeds import live


def main() -> int:
    """Print the trace of a seed; return 1 when an invariant does not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, required=True, help="the seed, as a failing test printed it")
    parser.add_argument("--steps", type=int, help="stop after so many steps")
    parser.add_argument("--quiet", action="store_true", help="print the end only")
    given = parser.parse_args()
    with product_in_simulation():
        violation = live(given.seed, most_steps=given.steps, trace=None if given.quiet else print)
    sys.stdout.write(f"{violation or 'every invariant held'}\n")
    return 1 if violation else 0


if __name__ == "__main__":
    sys.exit(main())
