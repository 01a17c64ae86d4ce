"""A stand-in for `overhaul-worker`: keeps the contract with `overhaul run`; the target says what happens.

missing: refused. worker-dies: ends soon after it is ready. worker-garbled: its plan fails.
worker-slow: its plan takes a minute. Any other: waits for its end.
"""

# ruff: noqa: T201 - a program of its own, whose voice is stdout and stderr

import json
import os
import sys
import time
from pathlib import Path


def leave_note(name: str, text: str) -> None:
    """Write a file that the test looks at."""
    (Path(os.environ["STAND_IN_NOTES"]) / name).write_text(text)


def option(name: str) -> list[str]:
    """Return every value of an option on the command line."""
    return [sys.argv[place + 1] for place, word in enumerate(sys.argv) if word == name]


def main() -> int:
    targets = option("--target")
    if "missing" in targets:
        print("missing: there is no such file; name an existing database", file=sys.stderr)
        return 2
    if "plan" in sys.argv:
        return plan(targets)
    leave_note("worker.pid", str(os.getpid()))
    leave_note("worker.argv", json.dumps(sys.argv[1:]))
    address = sys.stdin.readline().strip()
    print(json.dumps({"event": "ready", "worker_name": "w", "targets": targets, "manager": address}), flush=True)
    if "worker-dies" in targets:
        time.sleep(0.2)
        print("first word\n\nlast word", file=sys.stderr, flush=True)
        return 4
    sys.stdin.read()
    return 0


def plan(targets: list[str]) -> int:
    if "worker-slow" in targets:
        leave_note("worker.pid", str(os.getpid()))
        time.sleep(60)
    if "worker-garbled" in targets:
        print("a defect", file=sys.stderr)
        return 1
    operations = [
        {"operation": name, "statements": [f"{name.upper()};"]} for name in option("--operation") or ["vacuum"]
    ]
    answer = {"targets": [{"name": name, "engine": "sqlite", "operations": operations} for name in targets]}
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
