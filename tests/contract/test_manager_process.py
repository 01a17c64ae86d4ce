import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
import pytest
from typer.testing import CliRunner

from manager_service.__main__ import program
from overhaul.v1 import job_service_pb2, job_service_pb2_grpc, lease_service_pb2, lease_service_pb2_grpc
from tests.contract.manager_harness import span

ROOT = Path(__file__).parents[2]


def environment(**changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OVERHAUL_")}
    return kept | {"PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}", "PYTHONUNBUFFERED": "1"} | changes


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "manager_service", *arguments]


@contextmanager
def started(*arguments: str, cwd: Path, **variables: str) -> Iterator[Any]:
    """Start a manager on a free port and wait until it is ready."""
    process = subprocess.Popen(
        command("serve", *arguments),
        cwd=cwd,
        env=environment(
            # Those that are killed leave their temporary stores here, not among everybody's files.
            TMPDIR=str(cwd),
            OVERHAUL_LISTEN="127.0.0.1:0",
            OVERHAUL_SYNCHRONOUS="normal",
            **variables,
        ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline() if process.stdout else ""
        process.ready = json.loads(line) if line else {}  # type: ignore[attr-defined]  # handed to the test
        yield process
    finally:
        process.kill()
        process.communicate()


def refused(*arguments: str, cwd: Path, **variables: str) -> str:
    """Run a manager that is to be refused, and return what it says."""
    done = subprocess.run(
        command("serve", *arguments),
        cwd=cwd,
        env=environment(TMPDIR=str(cwd), **variables),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    return done.stderr


def refused_early(*arguments: str) -> str:
    """Ask in this process for a manager that is refused before it opens anything, and return what is said."""
    result = CliRunner().invoke(program, ["serve", *arguments], env={"COLUMNS": "200"})
    assert (result.exit_code, result.stdout) == (2, "")
    return result.stderr


def test_it_says_once_on_stdout_that_it_is_ready(tmp_path: Path) -> None:
    begin = time.monotonic()
    with started("--store", "sqlite:///jobs.db", cwd=tmp_path) as process:
        took = time.monotonic() - begin
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=10)

    assert process.returncode == 0
    assert process.ready == {
        "event": "ready",
        "program": "overhaul-manager",
        "version": version("overhaul"),
        "address": process.ready["address"],
        "pid": process.pid,
        "store": "sqlite:///jobs.db",
        "temporary_directory": None,
    }
    assert stdout == ""
    assert "shutting down" in stderr
    assert (tmp_path / "jobs.db").exists()
    # Under a second where nothing else runs; here others may.
    assert took < 5


@pytest.mark.parametrize("end", ["sigterm", "sigint", "sighup", "stdin"])
def test_a_temporary_store_ends_with_the_process(tmp_path: Path, end: str) -> None:
    with started("--store", "temporary", "--stdin-lifeline", cwd=tmp_path) as process:
        folder = Path(process.ready["temporary_directory"])
        assert folder.is_dir()

        if end == "stdin":
            process.stdin.close()
            process.stdin = None
        else:
            process.send_signal(signal.Signals[end.upper()])
        process.communicate(timeout=10)

    assert process.returncode == 0
    assert not folder.exists()
    assert process.ready["store"] == f"sqlite:///{folder}/jobs.db"
    assert list(tmp_path.iterdir()) == []


def test_a_second_manager_on_a_store_is_refused(tmp_path: Path) -> None:
    with started("--store", "sqlite:///jobs.db", cwd=tmp_path):
        said = refused("--store", "sqlite:///jobs.db", "--listen", "127.0.0.1:0", cwd=tmp_path)

    assert "in use by another manager" in said


def test_a_port_that_is_taken_is_refused(tmp_path: Path) -> None:
    with started("--store", "temporary", cwd=tmp_path) as process:
        said = refused("--store", "temporary", "--listen", process.ready["address"], cwd=tmp_path)

    assert "cannot listen on" in said


@pytest.mark.parametrize("host", ["127.0.0.1", "192.0.2.1", "none.invalid"])
def test_an_address_that_cannot_be_bound_makes_no_store(tmp_path: Path, host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"{host}:{other.getsockname()[1]}"
        said = refused("--store", "sqlite:///jobs.db", "--insecure", "--listen", address, cwd=tmp_path)

    assert f"cannot listen on {address}" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "manager.example:0"])
def test_plaintext_beyond_loopback_is_refused(address: str) -> None:
    assert "--insecure" in refused_early("--store", "temporary", "--listen", address)


def test_plaintext_beyond_loopback_can_be_allowed(tmp_path: Path) -> None:
    with started("--store", "temporary", "--insecure", "--listen", "0.0.0.0:0", cwd=tmp_path) as process:
        process.terminate()
        _, stderr = process.communicate(timeout=10)

    assert process.ready["address"].startswith("0.0.0.0:")
    assert "beyond loopback" in stderr


@pytest.mark.parametrize("url", ["nonsense", "sqlite:///no/such/folder/jobs.db", "mysql://x"])
def test_a_wrong_store_is_refused(tmp_path: Path, url: str) -> None:
    assert "overhaul-manager: " in refused("--store", url, "--listen", "127.0.0.1:0", cwd=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--listen", "nonsense"], "HOST:PORT"),
        (["--retention", "soon"], "not a span"),
        (["--lease-duration", "1s"], "lease-duration is 1s"),
        (["--config", "missing.toml"], "cannot be read"),
        (["--synchronous", "off"], "off"),
    ],
)
def test_wrong_settings_are_refused(arguments: list[str], says: str) -> None:
    assert says in refused_early("--store", "temporary", *arguments)


def test_settings_come_from_a_file_too(tmp_path: Path) -> None:
    (tmp_path / "manager.toml").write_text(
        'store = "sqlite:///of-file.db"\nlog-format = "json"\ninsecure = false\n'
    )

    with started("--config", "manager.toml", cwd=tmp_path) as process:
        process.terminate()
        _, stderr = process.communicate(timeout=10)

    assert process.ready["store"] == "sqlite:///of-file.db"
    assert [json.loads(line)["event"] for line in stderr.splitlines()] == ["ready", "shutting down", "stopped"]


def test_the_environment_goes_before_the_file(tmp_path: Path) -> None:
    (tmp_path / "manager.toml").write_text('store = "sqlite:///of-file.db"\n')

    with started("--config", "manager.toml", cwd=tmp_path, OVERHAUL_STORE="temporary") as process:
        assert process.ready["temporary_directory"]


def test_a_misspelt_key_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manager.toml").write_text('stoer = "x"\n')

    assert "unknown key 'stoer'" in refused_early("--config", str(tmp_path / "manager.toml"))


def test_the_version_is_shown(tmp_path: Path) -> None:
    done = subprocess.run(
        command("--version"), env=environment(), capture_output=True, text=True, cwd=tmp_path, check=True
    )

    assert done.stdout == f"overhaul-manager {version('overhaul')}\n"


def test_each_option_names_its_variable(tmp_path: Path) -> None:
    done = subprocess.run(
        command("serve", "--help"),
        env=environment(COLUMNS="240", NO_COLOR="1"),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )

    assert done.stdout.count("[env var:") == 15
    assert "stdin-lifeline" not in done.stdout


def test_a_second_signal_ends_it_faster(tmp_path: Path) -> None:
    with started("--store", "temporary", "--shutdown-grace", "60s", cwd=tmp_path) as process:
        folder = Path(process.ready["temporary_directory"])
        process.terminate()
        process.terminate()
        process.communicate(timeout=10)

    assert process.returncode == 0
    assert not folder.exists()


async def test_it_ends_while_workers_hang(tmp_path: Path) -> None:
    with started("--store", "temporary", cwd=tmp_path) as process:
        async with grpc.aio.insecure_channel(process.ready["address"]) as channel:
            leases = lease_service_pb2_grpc.LeaseServiceStub(channel)
            session = await leases.RegisterWorker(
                lease_service_pb2.RegisterWorkerRequest(
                    worker_name="w",
                    instance_id="0190b5a0-0000-7000-8000-00000000000a",
                    protocol_version=1,
                    slots=1,
                )
            )
            hanging = leases.AcquireLeases(
                lease_service_pb2.AcquireLeasesRequest(
                    session_id=session.session_id, poll_sequence=1, max_leases=1, wait=span(40)
                )
            )
            await job_service_pb2_grpc.JobServiceStub(channel).ListParentJobs(
                job_service_pb2.ListParentJobsRequest()
            )

            begin = time.monotonic()
            process.terminate()

            assert not (await hanging).leases
            assert process.wait(10) == 0
            assert time.monotonic() - begin < 3


def test_it_runs_as_an_installed_program() -> None:
    program = shutil.which("overhaul-manager", path=str(Path(sys.executable).parent))

    assert program
