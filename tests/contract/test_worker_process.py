import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from asyncio.subprocess import PIPE, Process
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from overhaul.v1 import job_pb2 as job
from overhaul.v1 import lease_service_pb2 as wire
from tests.worker_doubles.lease_server import Context, LeaseServer, serving

PLUGINS = str(Path(__file__).parents[1] / "plugin")
PROGRAM = (sys.executable, "-m", "worker_service")
PATIENCE = 20


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", f"{Path.cwd()}:{Path.cwd() / 'protos'}:{PLUGINS}")
    monkeypatch.chdir(tmp_path)
    with sqlite3.connect("app.db") as connection:
        connection.execute("CREATE TABLE t (x)")
    connection.close()
    return tmp_path


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False, **options
    )


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "word"),
        [
            (("--target", "none.db"), "none"),
            (("--target", "."), "folder"),
            (("--target", "oracle://h/d"), "oracle"),
            (("--target", "a=app.db", "--target", "a=other.db"), "twice"),
            (("--target", "mysql://u:hush@h/d"), "password"),
            ((), "--target"),
            (("--manager", "host:port", "--target", "app.db"), "HOST:PORT"),
            (("--manager", "http://127.0.0.1:7420", "--target", "app.db"), "HOST:PORT"),
            (("--manager", "-", "--stdin-lifeline", "--target", "none.db"), "none"),
            (("--label", "x", "--target", "app.db"), "KEY=VALUE"),
            (("plan", "--target", "app.db", "--operation", "vacum"), "vacuum"),
            (("plan", "--target", "none.db"), "none"),
        ],
    )
    def test_they_are_one_sentence_and_change_nothing(
        self, folder: Path, arguments: tuple[str, ...], word: str
    ) -> None:
        done = run(*arguments)

        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1
        assert word in done.stderr
        assert "hush" not in done.stderr
        assert [path.name for path in folder.iterdir()] == ["app.db"]

    def test_a_misspelt_key_of_the_file_is_refused(self, folder: Path) -> None:
        (folder / "w.toml").write_text("slotss = 3\n")
        done = run("--config", "w.toml")

        assert (done.returncode, done.stdout) == (2, "")
        assert "did you mean 'slots'?" in done.stderr

    def test_no_manager_is_exit_code_3(self, folder: Path) -> None:
        done = run("--manager", "127.0.0.1:1", "--target", "app.db", "--connect-timeout", "0.2")

        assert done.returncode == 3


class TestPlan:
    def test_it_prints_the_statements_and_needs_no_manager(self, folder: Path) -> None:
        before = (folder / "app.db").read_bytes()
        done = run("plan", "--target", "app.db", "--output", "json")
        [target] = json.loads(done.stdout)["targets"]

        assert done.returncode == 0
        assert (target["name"], target["engine"]) == ("app", "sqlite")
        assert [one["operation"] for one in target["operations"]] == ["vacuum", "analyze", "reindex"]
        assert target["operations"][0]["statements"] == ["VACUUM"]
        assert (folder / "app.db").read_bytes() == before

    def test_options_change_the_statements(self, folder: Path) -> None:
        done = run("plan", "--target", "app.db", "--operation", "analyze:analysis_limit=400", "--output", "json")

        [planned] = json.loads(done.stdout)["targets"][0]["operations"]
        assert any("400" in statement for statement in planned["statements"])

    @pytest.mark.parametrize("operation", ["analyze:", ":limit=1", "analyze:limit", "analyze:nonsense=1"])
    def test_options_that_cannot_be_are_refused(self, folder: Path, operation: str) -> None:
        done = run("plan", "--target", "app.db", "--operation", operation)

        assert done.returncode == 2
        assert len(done.stderr.strip().splitlines()) == 1

    def test_a_table_for_people_with_targets_of_the_file(self, folder: Path) -> None:
        (folder / "w.toml").write_text('[[targets]]\nname = "shop"\nurl = "app.db"\n')
        done = run("plan", "--config", "w.toml", "--operation", "vacuum")

        assert done.stdout == "shop (sqlite)\n  vacuum\n    VACUUM;\n"


def test_help_names_every_variable_and_version_is_told(folder: Path) -> None:
    words = run("--help").stdout

    for name in (
        "MANAGER",
        "TARGETS",
        "NAME",
        "SLOTS",
        "DRAIN_GRACE",
        "LABELS",
        "LOG_FORMAT",
        "LOG_LEVEL",
        "CONFIG",
    ):
        assert f"OVERHAUL_{name}" in words
    assert "lifeline" not in words
    assert run("--version").stdout.startswith("overhaul-worker ")


class PeerServer(LeaseServer):
    """Notes over which connections calls come."""

    def __init__(self) -> None:
        super().__init__()
        self.peers: dict[str, set[str]] = defaultdict(set)

    async def AcquireLeases(  # noqa: N802 - the name in the contract
        self, request: wire.AcquireLeasesRequest, context: Context
    ) -> wire.AcquireLeasesResponse:
        self.peers["AcquireLeases"].add(context.peer())
        return await super().AcquireLeases(request, context)

    async def Heartbeat(  # noqa: N802 - the name in the contract
        self, request: wire.HeartbeatRequest, context: Context
    ) -> wire.HeartbeatResponse:
        self.peers["Heartbeat"].add(context.peer())
        return await super().Heartbeat(request, context)


@asynccontextmanager
async def worker(*arguments: str) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        *PROGRAM, *arguments, "--log-format", "json", stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def ready(process: Process) -> dict[str, Any]:
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        announced: dict[str, Any] = json.loads(await process.stdout.readline())
    return announced


async def end(process: Process) -> tuple[int | None, str]:
    async with asyncio.timeout(PATIENCE):
        out, err = await process.communicate()
    assert out == b""
    return process.returncode, err.decode()


class TestServing:
    async def test_it_announces_itself_works_and_ends_at_sigterm(self, folder: Path) -> None:
        server = LeaseServer()
        async with (
            serving(server) as address,
            worker("--manager", address, "--target", "b=app.db", "--target", "app.db", "--name", "w") as process,
        ):
            announced = await ready(process)
            [lease] = await server.offer("vacuum", target="app")
            await server.until(lambda: server.results)
            process.send_signal(signal.SIGTERM)
            code, logs = await end(process)

        assert announced.pop("instance_id") == server.calls["RegisterWorker"][0].instance_id
        assert announced.pop("version")
        assert announced == {
            "event": "ready",
            "program": "overhaul-worker",
            "worker_name": "w",
            "pid": process.pid,
            "manager": address,
            "targets": ["b", "app"],
        }
        assert code == 0
        assert server.results[lease].outcome == job.OUTCOME_COMPLETED
        lines = [json.loads(line) for line in logs.splitlines()]
        assert any(line.get("parent_job_id") == "parent-1" for line in lines)
        assert (lines[-1]["event"], lines[-1]["exit_code"]) == ("stopped", 0)
        assert len(server.calls["DeregisterWorker"]) == 1

    async def test_the_command_line_comes_before_the_environment_before_the_file(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (folder / "w.toml").write_text(
            'slots = 7\nname = "file"\nlog-level = "error"\nlabels = {a = "1"}\n[[targets]]\nurl = "none.db"\n'
        )
        monkeypatch.setenv("OVERHAUL_NAME", "environment")
        monkeypatch.setenv("OVERHAUL_TARGETS", "e=app.db")
        server = LeaseServer()
        async with serving(server) as address:
            monkeypatch.setenv("OVERHAUL_MANAGER", address)
            async with worker("--config", "w.toml", "--slots", "3") as process:
                announced = await ready(process)

        [request] = server.calls["RegisterWorker"]
        assert (request.slots, request.worker_name, dict(request.labels)) == (3, "environment", {"a": "1"})
        assert announced["targets"] == ["e"]

    async def test_a_stderr_that_nobody_reads_any_more_stops_nothing(self, folder: Path) -> None:
        server = LeaseServer()
        reader, writer = os.pipe()
        async with serving(server) as address:
            arguments = ("--manager", address, "--target", "app.db")
            process = await asyncio.create_subprocess_exec(*PROGRAM, *arguments, stdout=PIPE, stderr=writer)
            os.close(writer)
            os.close(reader)
            await ready(process)
            await server.offer("vacuum")
            await server.until(lambda: server.results)
            process.terminate()
            code = await asyncio.wait_for(process.wait(), PATIENCE)

        assert code == 0

    async def test_heartbeats_have_a_connection_of_their_own(self, folder: Path) -> None:
        server = PeerServer()
        async with serving(server) as address, worker("--manager", address, "--target", "app.db") as process:
            await ready(process)
            await server.until(lambda: server.peers["Heartbeat"] and server.peers["AcquireLeases"])

        assert server.peers["Heartbeat"].isdisjoint(server.peers["AcquireLeases"])

    async def test_a_second_sigterm_releases(self, folder: Path) -> None:
        server, draining = LeaseServer(), wire.WORKER_STATE_DRAINING
        target = f"bed=nap://{folder}/audit"
        async with serving(server) as address, worker("--manager", address, "--target", target) as process:
            await ready(process)
            [lease] = await server.offer("nap", target="bed", options={"milliseconds": "20000"})
            await server.until(lambda: server.live and (folder / "audit").exists())
            process.send_signal(signal.SIGTERM)
            await server.until(lambda: any(beat.state == draining for beat in server.calls["Heartbeat"]))
            process.send_signal(signal.SIGTERM)
            code, _ = await end(process)

        assert code == 0
        assert server.results[lease].released == wire.RELEASE_REASON_DRAIN

    async def test_as_a_child_it_reads_the_address_and_ends_with_its_parent(self, folder: Path) -> None:
        server = LeaseServer()
        async with (
            serving(server) as address,
            worker("--manager", "-", "--stdin-lifeline", "--target", "app.db") as process,
        ):
            assert process.stdin is not None
            process.stdin.write(f"{address}\n".encode())
            announced = await ready(process)
            process.stdin.close()
            code, _ = await end(process)

        assert announced["manager"] == address
        assert code == 0
        assert len(server.calls["DeregisterWorker"]) == 1

    def test_a_parent_that_dies_before_it_tells_the_address_ends_it(self, folder: Path) -> None:
        done = run("--manager", "-", "--stdin-lifeline", "--target", "app.db", stdin=subprocess.DEVNULL)

        assert (done.returncode, done.stdout) == (0, "")

    async def test_a_registration_refused_is_exit_code_2(self, folder: Path) -> None:
        import grpc

        from tests.worker_doubles.lease_server import Mischief

        server = LeaseServer()
        reason = Mischief(code=grpc.StatusCode.FAILED_PRECONDITION, reason="TARGET_IDENTITY_MISMATCH")
        server.mischief["RegisterWorker"].append(reason)
        async with serving(server) as address, worker("--manager", address, "--target", "app.db") as process:
            code, words = await end(process)

        assert code == 2
        assert words == "as scripted\n"
