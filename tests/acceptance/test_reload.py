"""A worker's targets change while it serves: real processes, a real file, SIGHUP."""

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from manager_service.client import JobRequest, ManagerClient, Operation
from overhaul.v1 import job_pb2
from tests.services import Service, address_of, start_manager

PATIENCE = 20.0
SOON = 0.9
"""Seconds: more than a wake takes on a busy machine, less than a poll waits that nothing woke."""

Entry = tuple[str, str]


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Service]:
    with start_manager(tmp_path / "jobs.db") as started:
        yield started


@pytest.fixture
async def client(manager: Service) -> AsyncIterator[ManagerClient]:
    async with ManagerClient(address_of(manager)) as opened:
        yield opened


class ReloadedWorker:
    """A worker process with a configuration file that tests write anew."""

    def __init__(self, folder: Path, manager: Service) -> None:
        self.audit = folder / "audit"
        self.file = folder / "worker.toml"
        self._manager = address_of(manager)

    def start(self, *targets: Entry) -> Service:
        self.write(*targets)
        options = ("--manager", self._manager, "--name", "w", "--log-format", "json")
        self.service = Service("worker_service", ["--config", str(self.file), *options])
        return self.service

    def write(self, *targets: Entry, options: str = "") -> None:
        tables = [f'[[targets]]\nname = "{name}"\nurl = "{url}"\n' for name, url in targets]
        self.file.write_text("\n".join([options, *tables]))

    def bed(self, name: str) -> Entry:
        return name, f"nap://{self.audit}-{name}"

    def hang_up(self) -> None:
        self.service.process.send_signal(signal.SIGHUP)

    async def said(self, event: str) -> dict[str, Any]:
        """Wait for a line of the log, and forget the lines up to it."""
        return await said(self.service, event)


async def said(service: Service, event: str) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        while service.lines:
            line: dict[str, Any] = json.loads(service.lines.popleft())
            if line["event"] == event:
                return line
        await asyncio.sleep(0.01)
    raise AssertionError(f"the worker never said {event!r}")


async def until(true: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110 - processes decide
            await asyncio.sleep(0.01)


@pytest.fixture
def worker(tmp_path: Path, manager: Service) -> Iterator[ReloadedWorker]:
    reloaded = ReloadedWorker(tmp_path, manager)
    try:
        yield reloaded
    finally:
        if hasattr(reloaded, "service"):
            with reloaded.service:
                pass


async def served(client: ManagerClient) -> list[str]:
    return [target for worker in [one async for one in client.list_workers()] for target in worker.targets]


async def nap(client: ManagerClient, target: str, milliseconds: int = 1) -> str:
    """Create a nap; return its parent job's id."""
    request = JobRequest(
        targets=[target],
        operations=[Operation(name="nap", options={"milliseconds": str(milliseconds)})],
        allow_unknown_targets=True,
    )
    return (await client.create_parent_job(request)).id


async def ended(client: ManagerClient, parent_job_id: str) -> job_pb2.ParentJob:
    async with asyncio.timeout(PATIENCE):
        async for _ in client.watch_parent_job(parent_job_id):
            pass
    return await client.get_parent_job(parent_job_id)


class TestSighup:
    async def test_a_target_that_was_added_is_worked_on_at_once(
        self, worker: ReloadedWorker, client: ManagerClient
    ) -> None:
        worker.start(worker.bed("a"))
        waiting = await nap(client, "b")

        worker.write(worker.bed("a"), worker.bed("b"))
        worker.hang_up()
        told = await worker.said("targets reloaded")
        began = time.monotonic()
        parent = await ended(client, waiting)

        assert parent.state == job_pb2.PARENT_JOB_STATE_COMPLETED
        assert time.monotonic() - began < SOON
        assert (told["added"], told["removed"], told["changed"]) == (["b"], [], [])

    async def test_one_that_was_removed_finishes_what_runs_and_is_granted_no_more(
        self, worker: ReloadedWorker, client: ManagerClient
    ) -> None:
        worker.start(worker.bed("a"), worker.bed("b"))
        running = await nap(client, "b", 1_500)
        await until(Path(f"{worker.audit}-b").exists)

        worker.write(worker.bed("a"))
        worker.hang_up()
        await worker.said("targets reloaded")
        waiting = await nap(client, "b")
        parent = await ended(client, running)
        other = await ended(client, await nap(client, "a"))

        assert parent.state == other.state == job_pb2.PARENT_JOB_STATE_COMPLETED
        [child] = [child async for child in client.list_child_jobs(running)]
        assert child.attempts == 1
        assert (await client.get_parent_job(waiting)).counts.pending == 1
        assert await served(client) == ["a"]

    @pytest.mark.parametrize(
        ("content", "word"),
        [
            ("[[targets]", "cannot be read"),
            ('slotss = 3\n[[targets]]\nurl = "nap:///b"', "did you mean 'slots'"),
            ("", "Name a target"),
            ('[[targets]]\nname = "b"', "needs a url"),
            ('[[targets]]\nname = "b"\nurl = "/nowhere/b.db"', "/nowhere"),
            ('[[targets]]\nname = "a"\nurl = "nap:///another"', "another database"),
            ('[[targets]]\nname = "b"\nurl = "oracle://u:hush@h/d"', "oracle"),
        ],
    )
    async def test_a_file_that_cannot_be_served_changes_nothing_and_says_why(
        self, worker: ReloadedWorker, client: ManagerClient, content: str, word: str
    ) -> None:
        worker.start(worker.bed("a"))
        worker.write(options=content)
        worker.hang_up()
        told = await worker.said("targets not reloaded; those before are served on")

        assert word in told["error"]
        assert told["level"] == "error"
        assert "hush" not in told["error"]
        assert await served(client) == ["a"]
        assert (await ended(client, await nap(client, "a"))).state == job_pb2.PARENT_JOB_STATE_COMPLETED

    async def test_options_that_need_a_restart_are_named(
        self, worker: ReloadedWorker, client: ManagerClient
    ) -> None:
        worker.start(worker.bed("a"))
        worker.write(worker.bed("a"), options="slots = 7")
        worker.hang_up()

        assert (await worker.said("other options need a restart"))["options"] == ["slots"]
        assert [one.slots async for one in client.list_workers()] == [2]

    async def test_an_outage_of_the_manager_is_outlasted(
        self, worker: ReloadedWorker, manager: Service, client: ManagerClient, tmp_path: Path
    ) -> None:
        worker.start(worker.bed("a"))
        manager.kill()
        worker.write(worker.bed("b"))
        worker.hang_up()
        await worker.said("signal received")
        await asyncio.sleep(0.3)
        with start_manager(tmp_path / "jobs.db", listen=address_of(manager)):
            await worker.said("targets reloaded")

            assert await served(client) == ["b"]

    async def test_one_that_comes_before_the_worker_is_ready_is_kept(
        self, worker: ReloadedWorker, client: ManagerClient, manager: Service
    ) -> None:
        worker.write(worker.bed("a"))
        command = ["-m", "worker_service", "--config", str(worker.file), "--manager", "-"]
        with python(*command, stdin=subprocess.PIPE) as early:
            await until(lambda: blocks_sighup(early.pid))
            worker.write(worker.bed("b"))
            early.send_signal(signal.SIGHUP)
            await asyncio.sleep(0.2)
            assert early.stdin is not None
            early.stdin.write(f"{address_of(manager)}\n".encode())
            early.stdin.flush()
            async with asyncio.timeout(PATIENCE):
                while await served(client) != ["b"]:  # noqa: ASYNC110 - processes decide
                    await asyncio.sleep(0.01)
            early.terminate()

            assert await asyncio.to_thread(early.wait, PATIENCE) == 0


@contextmanager
def python(*arguments: str, stdin: int) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a Python that knows the engines of the tests."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "plugin")},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def blocks_sighup(pid: int) -> bool:
    [mask] = [line.split()[1] for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "SigBlk" in line]
    return bool(int(mask, 16) & 1)


# Makes stdin the terminal of its session, as a shell's is, and becomes a worker.
START_AT_A_TERMINAL = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
# The tests may have been started with nohup themselves.
signal.signal(signal.SIGHUP, signal.SIG_IGN if sys.argv[1] == "nohup" else signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, "-m", "worker_service", *sys.argv[2:]])
"""


class TestATerminalThatIsClosed:
    @pytest.mark.parametrize("how", ["plain", "nohup"])
    async def test_its_worker_drains_unless_it_was_to_outlive_it(
        self, worker: ReloadedWorker, client: ManagerClient, manager: Service, how: str
    ) -> None:
        options = ["--manager", address_of(manager), "--target", "=".join(worker.bed("a"))]
        ours, theirs = pty.openpty()
        with python("-c", START_AT_A_TERMINAL, how, *options, stdin=theirs) as process:
            os.close(theirs)
            assert process.stdout is not None
            assert await asyncio.to_thread(process.stdout.readline)
            os.close(ours)
            if how == "nohup":
                await asyncio.sleep(0.5)
                assert (await ended(client, await nap(client, "a"))).state == job_pb2.PARENT_JOB_STATE_COMPLETED
                process.terminate()
            code = await asyncio.to_thread(process.wait, PATIENCE)

        assert code == 0
        assert await served(client) == []
