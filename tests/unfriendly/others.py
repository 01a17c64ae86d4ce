"""The other processes: ``python -m tests.unfriendly.others WHAT PATH [OPERATION]``."""

# ruff: noqa: T201 - a program of its own, whose voice is stdout

import json
import os
import resource
import signal
import sys
from dataclasses import asdict

import apsw

LIMIT = 2_000


def hold(path: str, how: str) -> None:
    """Keep the file locked until a line comes."""
    connection = apsw.Connection(path)
    connection.execute(f"BEGIN {how}")
    print("ready", flush=True)
    sys.stdin.readline()
    connection.execute("ROLLBACK")
    connection.close()


def write_beside(path: str) -> None:
    """Commit rows that stay in the log until a line comes."""
    connection = apsw.Connection(path)
    connection.pragma("wal_autocheckpoint", 0)
    connection.execute("UPDATE item SET name = 'new ' || id WHERE id % 7 = 0")
    print("ready", flush=True)
    sys.stdin.readline()
    connection.execute("UPDATE item SET name = 'newer ' || id WHERE id % 11 = 0")
    connection.close()


def die(path: str) -> None:
    """End by SIGKILL when a part of a change is in the file and its journal is on the disk."""
    connection = apsw.Connection(path)
    connection.pragma("cache_size", 1)
    connection.pragma("synchronous", 2)
    connection.execute(
        "BEGIN; UPDATE item SET body = zeroblob(100) WHERE id % 2 = 0; DELETE FROM item WHERE id % 5 = 0"
    )
    connection.cache_flush()
    os.kill(os.getpid(), signal.SIGKILL)


def limited(path: str, name: str) -> None:
    """Run an operation that may write no file beyond a few bytes, and print how it ended."""
    from tests.integration.operations.doubles import run

    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, hard))
    result = run(path, name)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    print(json.dumps(asdict(result)))


def main() -> None:
    what, path, *more = sys.argv[1:]
    match what:
        case "lock for reading too":
            hold(path, "EXCLUSIVE")
        case "lock for writing":
            hold(path, "IMMEDIATE")
        case "write beside":
            write_beside(path)
        case "die":
            die(path)
        case "limited":
            limited(path, *more)
        case _:
            sys.exit(f"{what} is not known here")


if __name__ == "__main__":
    main()
