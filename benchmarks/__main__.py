"""Run the named benchmarks, or all of them, and print each figure's median, minimum and maximum.

`peers`, `scale` and `servers` are commands of their own, with options, on private servers: the first measures
others beside Overhaul, and installs them from PyPI, the second what is large, shared or hindered, and the third
maintains databases beside the programs that servers bring along.
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
from benchmarks.peers import command as peers
from benchmarks.scale import command as scale
from benchmarks.servers import command as servers

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
COMMANDS: Mapping[str, Callable[[list[str]], None]] = {
    "peers": peers.main,
    "scale": scale.main,
    "servers": servers.main,
}


def main(names: list[str]) -> int:
    if names and (command := COMMANDS.get(names[0])):
        command(names[1:])
        return 0
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(
            f"no benchmark is called {unknown[0]}; there are {', '.join([*BENCHMARKS, *COMMANDS])}",
            file=sys.stderr,
        )
        return 2
    for name in names or BENCHMARKS:
        print(f"{name}:", flush=True)
        for figure in BENCHMARKS[name]():
            print(f"  {figure}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
