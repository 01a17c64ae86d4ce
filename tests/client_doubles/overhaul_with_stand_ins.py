"""`overhaul` with stand-ins for the two programs that `overhaul run` starts."""

import sys

from manager_service.client import running
from manager_service.client.__main__ import main
from manager_service.client.crew import Commands

running.COMMANDS = Commands(
    manager=(sys.executable, "-m", "tests.client_doubles.stand_in_manager"),
    worker=(sys.executable, "-m", "tests.client_doubles.stand_in_worker"),
)

if __name__ == "__main__":
    main()
