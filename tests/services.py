"""Real managers and workers as processes of their own, for the tests that cross every seam."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Self

_PLUGINS = str(Path(__file__).parent / "plugin")
READY_SECONDS = 30.0
END_SECONDS = 30.0


class Service:
    """A program that announces itself with one JSON line on stdout and talks on stderr."""

    def __init__(self, module: str, arguments: Sequence[str]) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("OVERHAUL_")}
        environment["PYTHONPATH"] = os.pathsep.join([_PLUGINS, environment.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
        )
        self.lines: deque[str] = deque(maxlen=2_000)
        self._reader = threading.Thread(target=self._read, args=(self.process.stderr,), daemon=True)
        self._reader.start()
        self.ready = self._wait_until_ready()

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.wait()

    def terminate(self) -> int:
        """Ask it to end, and wait until it has."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Wait for its end and return its exit code."""
        code = self.process.wait(END_SECONDS)
        self._reader.join(END_SECONDS)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()
        elif self.process.stdout is not None and not self.process.stdout.closed:
            self.wait()

    def _read(self, stream: IO[str] | None) -> None:
        for line in stream or ():
            self.lines.append(line.rstrip())

    def _wait_until_ready(self) -> dict[str, object]:
        stdout = self.process.stdout
        guard = threading.Timer(READY_SECONDS, self.process.kill)
        guard.start()
        try:
            line = stdout.readline() if stdout else ""
        finally:
            guard.cancel()
        if not line:
            self.wait()
            raise AssertionError("never ready:\n" + "\n".join(self.lines))
        ready: dict[str, object] = json.loads(line)
        return ready


def start_manager(store: Path | str, *arguments: str, listen: str = "127.0.0.1:0") -> Service:
    """Start a manager on a store: a file, or a URL."""
    url = f"sqlite:///{store}" if isinstance(store, Path) else store
    command = ["serve", "--listen", listen, "--store", url, "--log-format", "json"]
    return Service("manager_service", [*command, "--log-level", "info", *arguments])


def start_worker(
    address: str, *targets: str, name: str = "worker", slots: int = 2, grace: str = "10", level: str = "info"
) -> Service:
    """Start a worker for some targets."""
    command = ["--manager", address, "--name", name, "--slots", str(slots), "--drain-grace", grace]
    command += [part for target in targets for part in ("--target", target)]
    return Service("worker_service", [*command, "--log-format", "json", "--log-level", level])


def address_of(manager: Service) -> str:
    """Return where a manager listens."""
    return str(manager.ready["address"])
