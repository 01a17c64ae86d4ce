import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Self

from benchmarks.figures import tree_cpu_seconds
from benchmarks.peers.contender import WORKERS, Lifecycle, measured, new_database
from benchmarks.peers.environments import PROJECT, python_of
from tests.postgres import PostgresServer

# Eight bytes for each job that a process may have begun.
_MARKS = 8 * 100_000


class Peer:
    """A job system from PyPI, driven in an environment of its own.

    Args:
        name: Its name, its environment's and its driver's.
        width: What it calls the number of jobs that a worker takes at a time.
        jobs: How many jobs to measure, by that number.
        server: Where it gets a database for each measurement.
    """

    def __init__(self, name: str, width: str, jobs: Mapping[int, int], server: PostgresServer) -> None:
        self.name = name
        self.width = width
        self._jobs = jobs
        self._server = server
        self._python = python_of(name)

    def lifecycle(self, wide: int) -> Lifecycle:
        """Enqueue in bulk, after a tenth as many to warm up."""
        jobs = self._jobs[wide]
        with self._running(wide) as (client, *workers):
            client.ask("lifecycle", jobs // 10)
            spenders = {
                "client": client.cpu_seconds,
                "workers": lambda: sum(worker.cpu_seconds() for worker in workers),
                "database": lambda: tree_cpu_seconds(self._server.pid),
            }
            return measured(jobs, spenders, lambda: client.ask("lifecycle", jobs)["seconds"])

    def latencies(self, wide: int, samples: int) -> Sequence[float]:
        """Enqueue one at a time, after a tenth as many to warm up."""
        with self._running(wide) as (client, *_):
            client.ask("latencies", samples // 10)
            answer: list[float] = client.ask("latencies", samples)["milliseconds"]
            return answer

    @contextmanager
    def _running(self, wide: int) -> "Iterator[list[_Driver]]":
        """Run a client and the workers."""
        with new_database(self._server) as url, tempfile.NamedTemporaryFile() as marks, ExitStack() as stack:
            marks.truncate(_MARKS)
            drive = [str(self._python), "-m", f"benchmarks.peers.{self.name}"]
            client = stack.enter_context(_Driver([*drive, "client", url, marks.name]))
            work = [*drive, "work", url, marks.name, str(wide)]
            yield [client, *(stack.enter_context(_Driver(work)) for _ in range(WORKERS))]


class _Driver:
    """A process that answers each line with one of JSON, after a first one, and ends when its input does."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answer()

    def ask(self, *words: object) -> Any:
        """Send a line, and wait for the answer."""
        print(*words, file=self._process.stdin, flush=True)
        return self._answer()

    def cpu_seconds(self) -> float:
        """Return what it has used so far."""
        return tree_cpu_seconds(self._process.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def _answer(self) -> Any:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise AssertionError(f"{self._process.args!r} has ended")
        return json.loads(line)
