"""Connections that come and go by the thousand, and readers that do not read."""

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from overhaul.v1 import job_service_pb2 as jobs
from tests.battery.remote import Latency, footprint, remote
from tests.contract.manager_harness import Worker
from tests.services import Service, address_of, start_manager

MEGABYTE = 1024 * 1024
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
ROUNDS = 16
AT_ONCE = 250
KINDS = (
    b"",
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64,
    b"\x00" * 4_096,
    PREFACE,
    PREFACE + SETTINGS,
    PREFACE + SETTINGS + b"\xff" * 512,
    PREFACE + SETTINGS + b"\x00\x40\x00\x01\x05\x00\x00\x00\x01" + b"\x82" * 100,
)


async def until(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.05)


async def visit(host: str, port: int, number: int) -> None:
    """Connect, say something that is no call, and go: politely, or by a reset."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(KINDS[number % len(KINDS)])
        await writer.drain()
        if number % 3 == 0:
            end: socket.socket = writer.get_extra_info("socket")
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif number % 3 == 1:
            await asyncio.wait_for(reader.read(1), 1)
    except (ConnectionError, TimeoutError):
        pass
    finally:
        writer.close()


class TestConnections:
    async def test_opened_and_dropped_by_the_thousand_they_leave_nothing(self, manager: Service) -> None:
        host, _, port = address_of(manager).rpartition(":")
        await Latency(manager).of(5)
        before = footprint(manager)
        took: list[float] = []

        async with Latency(manager).meanwhile(took):
            for _ in range(ROUNDS):
                async with asyncio.TaskGroup() as visits:
                    for number in range(AT_ONCE):
                        visits.create_task(visit(host, int(port), number))

        await until(lambda: footprint(manager).files <= before.files + 10, "connections stay open")
        after = footprint(manager)
        assert after.threads <= before.threads + 10
        assert after.memory <= before.memory + 64 * MEGABYTE
        assert took
        assert max(took) < 30


class TestCallsThatAreDropped:
    async def test_by_the_thousand_leave_nothing(self, manager: Service) -> None:
        async with remote(manager) as caller:
            worker = await caller.worker("dropped", name="dropper")
            await Latency(manager).of(5)
            before = footprint(manager)
            for _ in range(ROUNDS):
                calls = [worker.poll(wait=5) for _ in range(AT_ONCE)]
                await asyncio.sleep(0.05)
                for call in calls:
                    call.cancel()
                await asyncio.gather(*(self._ended(call) for call in calls))
            answered = await worker.acquire()
        await until(lambda: footprint(manager).files <= before.files + 10, "connections stay open")

        assert answered == []
        assert footprint(manager).memory <= before.memory + 64 * MEGABYTE

    async def _ended(self, call: Any) -> None:
        try:
            await call
        except asyncio.CancelledError:
            return


TARGETS = tuple(f"slow{number}" for number in range(300))
READERS = 50


class TestReadersThatDoNotRead:
    @pytest.fixture
    async def service(self, tmp_path: Path) -> AsyncIterator[Service]:
        with await asyncio.to_thread(start_manager, tmp_path / "jobs.db", "--synchronous", "normal") as service:
            yield service

    @pytest.mark.timeout(300)
    async def test_hold_up_nobody_and_miss_nothing(self, service: Service) -> None:
        async with remote(service) as manager:
            worker = await manager.worker(*TARGETS, slots=1_000)
            parent = (await manager.create(*TARGETS, operations=("vacuum", "analyze", "reindex"))).id
            slow = [aiter(manager.watch(parent, after=0, timeout=200)) for _ in range(READERS)]
            first = [await anext(stream) for stream in slow]
            before = footprint(service)
            fast = asyncio.create_task(self._sequences(manager.watch(parent, after=0, timeout=200)))
            await self._complete(worker, len(TARGETS) * 3)
            seen = await asyncio.wait_for(fast, 100)
            latency = await Latency(service).of(20)
            memory = footprint(service).memory
            last = (await manager.get(parent)).sequence
            rest = await asyncio.gather(*(self._sequences(stream) for stream in slow))

        assert seen == list(range(1, last + 1))
        assert {message.event.sequence for message in first} == {1}
        assert all(numbers == list(range(2, last + 1)) for numbers in rest)
        assert memory <= before.memory + 128 * MEGABYTE
        assert latency < 5

    async def _complete(self, worker: Worker, children: int) -> None:
        done = 0
        while done < children:
            leases = await worker.acquire(most=1_000)
            await worker.complete(*leases)
            done += len(leases)

    async def _sequences(self, stream: Any) -> list[int]:
        updates: list[jobs.WatchParentJobResponse] = [update async for update in stream]
        return [update.event.sequence for update in updates if update.HasField("event")]
