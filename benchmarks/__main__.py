"""Run the named benchmarks, or all of them, and print each figure's median, minimum and maximum."""

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
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"no benchmark is called {unknown[0]}; there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    for name in names or BENCHMARKS:
        print(f"{name}:", flush=True)
        for figure in BENCHMARKS[name]():
            print(f"  {figure}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
