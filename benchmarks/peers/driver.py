"""What the drivers share, each of which runs in its peer's own environment, where nothing of Overhaul's is."""

import asyncio
import json
import mmap
import os
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any, Protocol

_AT_ONCE = 1_000
_LOOK_EVERY = 0.05
_MARK_EVERY = 0.005
# Long enough for a peer to be idle again after a job.
_REST = 0.05


class Client(Protocol):
    """What enqueues a peer's jobs, which do nothing but to mark their start."""

    async def enqueue(self, numbers: range) -> None:
        """Enqueue jobs of these numbers by the peer's own call, in bulk if there are many."""

    async def is_idle(self) -> bool:
        """Tell whether the store has the end of every job."""


class Marks:
    """When each job began, by the machine's monotonic clock, in memory that the processes share."""

    def __init__(self, file: str) -> None:
        with Path(file).open("r+b") as opened:
            self._memory = mmap.mmap(opened.fileno(), 0)
        self._slots = len(self._memory) // 8

    def set(self, number: int) -> None:
        """Mark the start of a job."""
        struct.pack_into("q", self._memory, number % self._slots * 8, time.monotonic_ns())

    def wait_for(self, number: int) -> int:
        """Return the start of a job in nanoseconds, as soon as it is there."""
        while not (start := struct.unpack_from("q", self._memory, number % self._slots * 8)[0]):
            time.sleep(_MARK_EVERY)
        return int(start)


def say(answer: dict[str, Any]) -> None:
    """Answer in one line."""
    print(json.dumps(answer), flush=True)


def end_with_the_owner() -> None:
    """End this worker as soon as its standard input ends."""

    def wait() -> None:
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


async def serve(client: Client, marks: Marks) -> None:
    """Do what each line on standard input says, until there are no more."""
    say({"ready": True})
    first = 0
    while words := (await asyncio.to_thread(sys.stdin.readline)).split():
        numbers = range(first, first + int(words[1]))
        first = numbers.stop
        match words[0]:
            case "lifecycle":
                say({"seconds": await _lifecycle(client, numbers)})
            case "latencies":
                say({"milliseconds": await _latencies(client, marks, numbers)})
            case unknown:
                raise ValueError(unknown)


async def _lifecycle(client: Client, numbers: range) -> float:
    """Return the seconds from the first call until the end of each job is in the store."""
    begun = time.perf_counter()
    for first in numbers[::_AT_ONCE]:
        await client.enqueue(range(first, min(first + _AT_ONCE, numbers.stop)))
    while True:
        if await client.is_idle():
            return time.perf_counter() - begun
        await asyncio.sleep(_LOOK_EVERY)


async def _latencies(client: Client, marks: Marks, numbers: range) -> list[float]:
    """Return for each job, alone in an idle system, the milliseconds from the call to its start."""
    latencies = []
    for number in numbers:
        await asyncio.sleep(_REST)
        sent = time.monotonic_ns()
        await client.enqueue(range(number, number + 1))
        latencies.append((await asyncio.to_thread(marks.wait_for, number) - sent) / 1e6)
    return latencies
