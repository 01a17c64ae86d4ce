"""Let thousands of workers live through each scenario: ``python -m tests.simulation.fleet --seed N``."""

import argparse
import sys
import time

from tests.simulation.fleet.figures import table
from tests.simulation.fleet.scenarios import SCENARIOS
from tests.simulation.invariants import ViolationError
from tests.simulation.machine import product_in_simulation


def main() -> int:
    """Print the figures of each scenario; return 1 when a promise is broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.fleet", description=__doc__)
    parser.add_argument("--seed", type=int, required=True, help="all chance comes from it")
    parser.add_argument("--scenario", choices=SCENARIOS, action="append", help="only this one; may be repeated")
    parser.add_argument("--quick", action="store_true", help="hundreds of workers, as in CI")
    given = parser.parse_args()
    broken = 0
    for name in given.scenario or SCENARIOS:
        begin = time.process_time()
        scenario = SCENARIOS[name]
        try:
            with product_in_simulation():
                shown = table(scenario.run(given.seed, scenario.quick if given.quick else scenario.full))
        except ViolationError as violation:
            shown, broken = f"  {violation}", broken + 1
        sys.stdout.write(f"{name}, seed {given.seed} ({time.process_time() - begin:.0f} CPU s)\n{shown}\n")
        sys.stdout.flush()
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
