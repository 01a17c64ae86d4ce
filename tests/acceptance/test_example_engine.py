"""The example of an engine plugin, built and installed as a third party's, serves a manager over loopback."""

import asyncio
import gzip
import os
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import grpc
import pytest

from manager_service.client import ClientError, JobRequest, ManagerClient, Operation
from manager_service.client.options import Scope
from overhaul.v1 import job_pb2 as job
from tests.services import Service, address_of, start_manager

_EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "overhaul-logfiles"
_TEXT = b"2026-01-31 04:05:06 GET /orders 200\n" * 20_000
_OLD = 1_700_000_000
_PATIENCE = 30
_FILE = """
manager = "{manager}"

[[targets]]
name = "logs"
url = "logfiles://{folder}"
only_if = ["compress/kept*: age_seconds > 1e12"]
"""

_Found = TypeVar("_Found")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the wheel of the example installed in it, as pip unpacks one, and with nothing else."""
    wheels, site = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(wheels)]
    subprocess.run(build, cwd=_EXAMPLE, check=True, capture_output=True)
    [wheel] = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        content.extractall(site)
    return site


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def services(site: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Run a manager that knows nothing of the plugin, and a worker that has it on its path."""
    store = tmp_path_factory.mktemp("store") / "store.db"
    with pytest.MonkeyPatch.context() as patch, start_manager(store) as manager:
        patch.setenv("PYTHONPATH", str(site))
        file = tmp_path_factory.mktemp("worker") / "worker.toml"
        file.write_text(_FILE.format(manager=address_of(manager), folder=folder))
        with Service("worker_service", ["--config", str(file), "--log-format", "json"]):
            yield manager


@pytest.fixture
async def client(services: Service) -> AsyncIterator[ManagerClient]:
    async with ManagerClient(address_of(services)) as client:
        yield client


async def until(ask: Callable[[], Awaitable[_Found | None]]) -> _Found:
    async with asyncio.timeout(_PATIENCE):
        while (found := await ask()) is None:  # noqa: ASYNC110 - what is waited for rings nothing
            await asyncio.sleep(0.05)
    return found


async def created(client: ManagerClient, request: JobRequest) -> str:
    """Create a job once the worker is known; return its id."""

    async def ask() -> str | None:
        try:
            return (await client.create_parent_job(request)).id
        except ClientError as error:
            if error.code is not grpc.StatusCode.NOT_FOUND:
                raise
            return None

    return await until(ask)


async def ended(client: ManagerClient, parent_id: str) -> dict[tuple[str, str], job.ChildJob]:
    """Wait for a job's end; return its children by operation and object."""

    async def ask() -> job.ParentJob | None:
        parent = await client.get_parent_job(parent_id)
        return parent if parent.HasField("end_time") else None

    await until(ask)
    return {(child.operation, child.object): child async for child in client.list_child_jobs(parent_id)}


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    os.utime(path, (_OLD, _OLD))
    return path


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def by_file(*operations: str | Operation, only_if: str = "") -> JobRequest:
    return JobRequest(
        targets=["logs"], operations=operations, scope=Scope.TABLE, only_if=[only_if] if only_if else []
    )


def state(child: job.ChildJob) -> tuple[str, str]:
    return (
        job.ChildJobState.Name(child.state).removeprefix("CHILD_JOB_STATE_"),
        job.Verdict.Name(child.verdict).removeprefix("VERDICT_"),
    )


class TestInstalledExample:
    async def test_a_job_by_file_does_what_is_worth_its_while_and_says_why(
        self, client: ManagerClient, folder: Path
    ) -> None:
        written(folder / "app.log.1", _TEXT)
        written(folder / "small.log.1", b"hello\n")
        (folder / "app.log").write_bytes(_TEXT)
        written(folder / "old.log.2.gz", gzip.compress(os.urandom(10_000))[:-20])
        operations = Operation(name="compress", options={"level": "9"}), "integrity_check"

        parent_id = await created(client, by_file(*operations, only_if="size_bytes > 1000"))
        children = await ended(client, parent_id)

        assert state(children["compress", "app.log.1"]) == ("COMPLETED", "EFFECTIVE")
        assert gzip.decompress((folder / "app.log.1.gz").read_bytes()) == _TEXT
        assert not (folder / "app.log.1").exists()
        assert children["compress", "app.log.1"].after["size_bytes"] < len(_TEXT) / 10
        assert "size_bytes 6" in children["compress", "small.log.1"].reason
        assert "min_age_s is 3600" in children["compress", "app.log"].reason
        assert (folder / "app.log").read_bytes() == _TEXT
        assert state(children["integrity_check", "old.log.2.gz"]) == ("FAILED", "UNSPECIFIED")
        assert children["integrity_check", "old.log.2.gz"].failure.reason == "DAMAGED"

    async def test_what_the_workers_file_says_counts_unless_the_job_says_otherwise(
        self, client: ManagerClient, folder: Path
    ) -> None:
        written(folder / "kept.log.1", _TEXT)

        left = await ended(client, await created(client, by_file("compress")))
        kept = "kept.log.1" in names(folder)
        done = await ended(client, await created(client, by_file("compress", only_if="1")))

        assert state(left["compress", "kept.log.1"])[0] == "SKIPPED"
        assert "age_seconds > 1e12 (as the target's worker is set)" in left["compress", "kept.log.1"].reason
        assert kept
        assert state(done["compress", "kept.log.1"]) == ("COMPLETED", "EFFECTIVE")

    async def test_a_cancel_stops_it_within_a_file_which_stays_as_it_was(
        self, client: ManagerClient, folder: Path
    ) -> None:
        with (folder / "huge.log.1").open("wb") as huge:
            huge.truncate(8 * 2**30)
        os.utime(folder / "huge.log.1", (_OLD, _OLD))
        request = JobRequest(targets=["logs"], operations=["compress"], scope=Scope.TABLE, include=["huge*"])
        parent_id = await created(client, request)

        async def running() -> job.ChildJob | None:
            children = [child async for child in client.list_child_jobs(parent_id, operation="compress")]
            return next((child for child in children if child.progress.done > 0), None)

        begun = await until(running)
        await client.cancel_parent_job(parent_id, reason="enough")
        children = await ended(client, parent_id)

        assert (begun.progress.unit, begun.progress.total) == ("bytes", 3 * 8 * 2**30)
        assert state(children["compress", "huge.log.1"]) == ("CANCELLED", "UNSPECIFIED")
        assert (folder / "huge.log.1").stat().st_size == 8 * 2**30
        assert ".huge.log.1.gz.part" not in names(folder)
        (folder / "huge.log.1").unlink()

    async def test_the_manager_refuses_options_that_the_plugin_does_not_offer(self, client: ManagerClient) -> None:
        hard = Operation(name="compress", options={"level": "11"})

        with pytest.raises(ClientError, match="level"):
            await created(client, JobRequest(targets=["logs"], operations=[hard]))
