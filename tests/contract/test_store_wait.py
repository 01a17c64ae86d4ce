"""A manager that starts while its PostgreSQL store is away, or will never be its own."""

import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest

from overhaul.v1 import job_service_pb2 as jobs
from overhaul.v1 import job_service_pb2_grpc as jobs_grpc
from tests.contract.test_manager_process import command, environment
from tests.postgres import PostgresServer
from tests.services import address_of, start_manager
from tests.stores import PostgresStores

# Nobody's own passwords.
NO_FILE = "/nonexistent"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """Lend a server that lets some roles in with a password alone."""
    with PostgresServer() as server:
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("CREATE ROLE keeper LOGIN PASSWORD 'right'")
            connection.execute("CREATE ROLE locked NOLOGIN")
            row = connection.execute("SHOW hba_file").fetchone()
            assert row is not None
            rules = Path(row[0])
            rules.write_text(f"host all keeper 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
            connection.execute("SELECT pg_reload_conf()")
        yield server


@pytest.fixture
def url(server: PostgresServer) -> str:
    return PostgresStores(server).new_url()


def serve(*arguments: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command("serve", "--listen", "127.0.0.1:0", "--log-format", "json", *arguments),
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


async def test_it_waits_for_a_server_that_starts_late(server: PostgresServer, url: str) -> None:
    server.stop()
    late = threading.Timer(3, server.start)
    late.start()
    try:
        with start_manager(url) as manager:
            async with grpc.aio.insecure_channel(address_of(manager)) as channel:
                await jobs_grpc.JobServiceStub(channel).ListParentJobs(jobs.ListParentJobsRequest(), timeout=10)
            assert manager.terminate() == 0
            told: list[dict[str, Any]] = [json.loads(line) for line in manager.lines]
    finally:
        late.join()

    waited = [line for line in told if line["event"] == "waiting for the job store"]
    assert "Connection refused" in waited[0]["why"]
    assert len(waited) == len({line["why"] for line in waited}), "each reason once"
    assert [line["event"] for line in told if line not in waited] == ["ready", "shutting down", "stopped"]


def test_it_gives_up_with_the_reason() -> None:
    begun = time.monotonic()
    process = serve("--store", "postgresql://nobody@127.0.0.1:1/overhaul", "--store-wait", "1s")
    stdout, stderr = process.communicate(timeout=20)

    assert (process.returncode, stdout) == (1, "")
    assert time.monotonic() - begun > 1
    *_, last = stderr.splitlines()
    assert "the job store is not available: " in last
    assert "Connection refused; it was waited for 1s (--store-wait)" in last
    assert "Traceback" not in stderr


def test_it_ends_at_once_when_it_is_told_to_though_nobody_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        process = serve("--store", f"postgresql://nobody@127.0.0.1:{silent.getsockname()[1]}/overhaul")
        silent.settimeout(20)
        connection, _ = silent.accept()
        with connection:
            begun = time.monotonic()
            process.send_signal(signal.SIGTERM)
            stdout, stderr = process.communicate(timeout=20)

    assert time.monotonic() - begun < 2
    assert (process.returncode, stdout) == (0, "")
    assert [json.loads(line)["event"] for line in stderr.splitlines()] == ["stopped"]


def test_it_ends_at_once_between_two_attempts() -> None:
    process = serve("--store", "postgresql://nobody@127.0.0.1:1/overhaul")
    assert process.stderr is not None
    assert json.loads(process.stderr.readline())["event"] == "waiting for the job store"
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)

    assert time.monotonic() - begun < 2
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("role", "database", "password", "says"),
    [
        ("keeper", "postgres", "wrong", "password authentication failed"),
        ("keeper", "postgres", "", "no password supplied"),
        ("locked", "postgres", "", "not permitted to log in"),
        ("stranger", "postgres", "", 'role "stranger" does not exist'),
        ("postgres", "elsewhere", "", 'database "elsewhere" does not exist'),
        ("postgres", "postgres", "", "run: overhaul-manager migrate"),
    ],
)
def test_who_is_never_let_in_is_refused_at_once(
    server: PostgresServer, role: str, database: str, password: str, says: str
) -> None:
    given = {"PGPASSWORD": password} if password else {}
    begun = time.monotonic()
    process = serve(
        "--store", f"postgresql://{role}@127.0.0.1:{server.port}/{database}", PGPASSFILE=NO_FILE, **given
    )
    stdout, stderr = process.communicate(timeout=20)

    assert (process.returncode, stdout) == (2, "")
    assert says in stderr
    assert stderr.count("\n") == 1, stderr
    assert "wrong" not in stderr
    assert time.monotonic() - begun < 15


def test_a_role_without_rights_is_refused_at_once(server: PostgresServer, url: str) -> None:
    process = serve(
        "--store",
        url.replace("postgres@", "keeper@", 1),
        PGPASSWORD="right",
        PGPASSFILE=NO_FILE,
    )
    stdout, stderr = process.communicate(timeout=20)

    assert (process.returncode, stdout) == (2, "")
    assert "permission denied for table" in stderr
    assert "check the role of the store's URL, its password and its rights" in stderr
