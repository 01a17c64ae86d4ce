"""The console script `overhaul`."""

import sys

from manager_service.client.cli import PROGRAM, app


def main() -> None:
    """Run the program; typer ends it quietly with 1 when the reader of stdout went away."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            # A name that the terminal's encoding lacks is escaped, not an error.
            reconfigure(errors="backslashreplace")
    app(prog_name=PROGRAM)


if __name__ == "__main__":
    main()
