"""Run the named benchmarks, or all of them, and print each figure's median, minimum and maximum.

`peers` is a command of its own, with options: it measures others beside Overhaul, and installs them from PyPI.
"""

import sys
from collections.abc import Callable, Mapping

from benchmarks import (
    big_parent,
    blocked,
    foreground,
    latency,
    lifecycle,
    one_database,
    startup,
    thousand_databases,
)
from benchmarks.figures import Figure
from benchmarks.peers import command

BENCHMARKS: Mapping[str, Callable[[], list[Figure]]] = {
    "startup": startup.measure,
    "latency": latency.measure,
    "one_database": one_database.measure,
    "lifecycle": lifecycle.measure,
    "big_parent": big_parent.measure,
    "blocked": blocked.measure,
    "foreground": foreground.measure,
    "thousand_databases": thousand_databases.measure,
}


def main(names: list[str]) -> int:
    if names[:1] == ["peers"]:
        command.main(names[1:])
        return 0
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"no benchmark is called {unknown[0]}; there are {', '.join(BENCHMARKS)}, peers", file=sys.stderr)
        return 2
    for name in names or BENCHMARKS:
        print(f"{name}:", flush=True)
        for figure in BENCHMARKS[name]():
            print(f"  {figure}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
