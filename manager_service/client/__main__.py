"""The console script `overhaul`."""

import atexit
import gc
import os
import sys

from manager_service.client.cli import PROGRAM, app
from manager_service.client.exits import ExitCode
from manager_service.client.talk import complain


def main() -> None:
    """Run the program; typer ends it quietly with 1 when the reader of stdout went away."""
    if sys.stdout is None:
        complain("stdout is closed, so the answer could go nowhere; send it to /dev/null if nobody reads it")
        sys.exit(ExitCode.REFUSED)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            # A name that the terminal's encoding lacks is escaped, not an error.
            reconfigure(errors="backslashreplace")
    # What is loaded stays to the end, so nobody need look for garbage in it: not while it is loaded, nor when the
    # process ends.
    gc.disable()
    atexit.register(gc.freeze)
    try:
        app(prog_name=PROGRAM)
    except OSError as error:
        complain(f"the answer cannot be written: {error.strerror}")
        # What is still buffered would fail once more at the end of the process.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.OTHERWISE)


if __name__ == "__main__":
    main()
