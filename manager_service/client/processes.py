"""A program of Overhaul as a process of this one: started, awaited, and never left behind.

The child is in a session of its own, so that a terminal's Ctrl-C reaches this process alone, and its stdin is a
lifeline: it ends by itself when this process is gone, however that happened.
"""

import asyncio
import contextlib
import json
import os
import signal
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, NoReturn, Self

LAST_WORDS = 20
LAST_BYTES = 16 * 1024
REFUSED = 2
LINE_BYTES = 4 * 1024 * 1024
"""The ready line of a worker names all its targets."""

Announcement = dict[str, Any]


class ProgramEndedError(Exception):
    """A program ended before it should have."""

    def __init__(self, program: str, code: int, last_words: Sequence[str], *, was_ready: bool) -> None:
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        super().__init__(f"{program} ended {how}" + ("; its last words:" if last_words else ""))
        self.last_words = last_words
        """The last lines of its stderr; with `refusal` the last of them is the whole message."""
        self.refusal = last_words[-1] if code == REFUSED and last_words and not was_ready else None
        """The sentence of a program that refused what it was asked, otherwise ``None``."""


class ProgramNotStartedError(Exception):
    """The operating system did not let a program start; the text says why."""

    def __init__(self, program: str, error: OSError) -> None:
        where = f": {error.filename}" if error.filename else ""
        super().__init__(f"{program} cannot be started: {error.strerror or error}{where}")


@contextlib.contextmanager
def starting(program: str) -> Iterator[None]:
    """Tell what the operating system refuses in the block as ``ProgramNotStartedError``."""
    try:
        yield
    except OSError as error:
        raise ProgramNotStartedError(program, error) from error


class Program:
    """A running program that announces with one line of JSON that it is ready."""

    def __init__(self, name: str, process: Process, stderr: IO[bytes]) -> None:
        self.name = name
        self._process = process
        self._stderr = stderr
        self._ready: asyncio.Future[Announcement] = asyncio.get_running_loop().create_future()
        self._reader = asyncio.create_task(self._read_stdout())

    @classmethod
    async def start(cls, name: str, argv: Sequence[str], env: Mapping[str, str] | None = None) -> Self:
        """Start it, in this environment unless `env` is another; nothing is awaited but its existence.

        Raises:
            ProgramNotStartedError: the operating system did not let it start.
        """
        with starting(name):
            # A file without a name, not a pipe: when this process is killed, the program can still write what it
            # does until its own end, and no file stays behind.
            stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop
            try:
                process = await asyncio.create_subprocess_exec(
                    *argv,
                    stdin=PIPE,
                    stdout=PIPE,
                    stderr=stderr,
                    env=env,
                    start_new_session=True,
                    limit=LINE_BYTES,
                )
            except BaseException:
                stderr.close()
                raise
        return cls(name, process, stderr)

    @property
    def announcement(self) -> Announcement | None:
        """What it announced, if it did."""
        done = self._ready.done() and not self._ready.cancelled() and self._ready.exception() is None
        return self._ready.result() if done else None

    @property
    def exit_code(self) -> int | None:
        """Its exit code, negative for a signal; ``None`` while it runs."""
        return self._process.returncode

    async def ready(self) -> Announcement:
        """Wait for its announcement.

        Raises:
            ProgramEndedError: it ended without one.
        """
        ended: asyncio.Future[Any] = asyncio.ensure_future(self.ended())
        first: list[asyncio.Future[Any]] = [ended, self._ready]
        try:
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            return self._ready.result() if self._ready.done() else ended.result()
        finally:
            ended.cancel()

    async def ended(self) -> NoReturn:
        """Wait for its end, which nobody asked for: it never returns.

        Raises:
            ProgramEndedError: it ended.
        """
        code = await self._process.wait()
        # What it started may hold the pipe open; its own announcement is in it already.
        await asyncio.wait({self._reader}, timeout=1)
        raise ProgramEndedError(self.name, code, self._last_words(), was_ready=self.announcement is not None)

    def write_line(self, line: str) -> None:
        """Write a line to its stdin; a program that is gone is noticed by `ended`."""
        if self._process.stdin is not None:
            self._process.stdin.write(f"{line}\n".encode())

    async def stop(self, *, grace: float, kill_after: float) -> None:
        """End it: by end of file, then SIGTERM after `grace` seconds, then SIGKILL after `kill_after` more."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        for wait, number in ((grace, signal.SIGTERM), (kill_after, signal.SIGKILL)):
            if await self._gone_within(wait):
                break
            self._signal(number)
        await self._process.wait()
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        self._ready.cancel()
        self._stderr.close()

    async def _gone_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._process.wait(), timeout=seconds)
        except TimeoutError:
            return False
        return True

    def _signal(self, number: signal.Signals) -> None:
        # The session is its own, so this reaches what it started as well.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    async def _read_stdout(self) -> None:
        # Reads on after the announcement, so that a program that prints more is never held up.
        stream = self._process.stdout
        while stream is not None and (line := await stream.readline()):
            with contextlib.suppress(ValueError):
                said = json.loads(line)
                if not self._ready.done() and isinstance(said, dict) and said.get("event") == "ready":
                    self._ready.set_result(said)

    def _last_words(self) -> list[str]:
        end = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, end - LAST_BYTES))
        lines = self._stderr.read().decode(errors="replace").splitlines()
        return [line.strip() for line in lines if line.strip()][-LAST_WORDS:]
