"""A manager that prunes twice a second and, on SIGUSR1, says on stderr how many tasks and objects it has."""

import asyncio
import gc
import json
import signal
import sys
from typing import Any

from manager_service import housekeeping
from manager_service.__main__ import main
from manager_service.domain.model import MILLISECOND


def count(*_: Any) -> None:
    gc.collect()
    inside = {"tasks": len(asyncio.all_tasks()), "objects": len(gc.get_objects())}
    sys.stderr.write(f"inside {json.dumps(inside)}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    housekeeping.RETAIN_EVERY = 500 * MILLISECOND
    signal.signal(signal.SIGUSR1, count)
    main()
