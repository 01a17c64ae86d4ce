"""The console script `overhaul`."""

import os
import sys

from manager_service.client.cli import PROGRAM, app


def main() -> None:
    """Run the program; a reader of stdout that went away ends it quietly with 1."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            # A name that the terminal's encoding lacks is escaped, not an error.
            reconfigure(errors="backslashreplace")
    try:
        app(prog_name=PROGRAM)
    except BrokenPipeError:
        # Python flushes stdout once more at its end, which would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    main()
