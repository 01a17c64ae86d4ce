"""Where commands write: data to stdout, talk to stderr."""

import sys

from manager_service.client.words import safe


def tell(text: str) -> None:
    """Write a line of talk to stderr; nothing in it can steer the terminal."""
    print(safe(text), file=sys.stderr, flush=True)  # noqa: T201 - the program's voice


def complain(text: str) -> None:
    """Write why a command did not do what it was asked."""
    tell(f"overhaul: {text}")


def put(text: str) -> None:
    """Write a line of data to stdout, as it is."""
    print(text, flush=True)  # noqa: T201 - the program's output
