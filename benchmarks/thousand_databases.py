"""A thousand small databases: one parent job of 4,000 children beside a shell loop such as cron runs."""

import asyncio
import filecmp
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc

from benchmarks.figures import RUNS, Figure, cpu_seconds
from benchmarks.small_databases import digest, is_sound, make
from overhaul.v1 import job_pb2 as job
from overhaul.v1 import job_service_pb2 as jobs
from overhaul.v1 import job_service_pb2_grpc as jobs_grpc
from tests.services import Service, address_of, start_manager

_DATABASES = 1_000
_SLOTS = 2
_OPERATIONS = ("vacuum", "analyze", "reindex", "optimize")
_WHOLE = ("VACUUM", "ANALYZE", "REINDEX", "PRAGMA optimize")
_SAMPLE = 10
_RAW = """
import json, sys, apsw
for path, statements in json.load(sys.stdin):
    connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE)
    for statement in statements:
        list(connection.execute(statement))
    connection.close()
"""

Plan = dict[str, list[str]]
"""The statements for each file's name, in their order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """What one run took, in seconds."""

    shell: float
    short_shell: float
    library: float
    ours: float
    whole: float
    manager_cpu: float
    worker_cpu: float


def measure() -> list[Figure]:
    if shutil.which("sqlite3") is None or shutil.which("xargs") is None:
        sys.exit(
            "thousand_databases needs the programs sqlite3 and xargs. On Debian: apt-get install sqlite3 findutils"
        )
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        make(source, _DATABASES)
        sizes = [path.stat().st_size / 1000 for path in source.iterdir()]
        plan = _plan(source)
        runs = [_run(source, plan) for _ in range(RUNS)]
    programs = sum(map(len, plan.values()))
    return [
        Figure(name=f"size of each of {_DATABASES} databases", values=sizes, unit="kB"),
        Figure(
            name=f"shell loop, {programs} programs: the planned statements",
            values=[r.shell for r in runs],
            unit="s",
        ),
        Figure(
            name="shell loop, 4,000 programs: one per operation", values=[r.short_shell for r in runs], unit="s"
        ),
        Figure(name="the library alone, two processes", values=[r.library for r in runs], unit="s"),
        Figure(name="one parent job, from its creation to its end", values=[r.ours for r in runs], unit="s"),
        Figure(
            name="parent job / shell loop of planned statements",
            values=[r.ours / r.shell for r in runs],
            unit="x",
            aim="at most 2, better 1",
        ),
        Figure(name="parent job / shell loop of 4,000", values=[r.ours / r.short_shell for r in runs], unit="x"),
        Figure(name="with start, registration and end of both programs", values=[r.whole for r in runs], unit="s"),
        Figure(name="  CPU of the manager", values=[r.manager_cpu for r in runs], unit="s"),
        Figure(name="  CPU of the worker", values=[r.worker_cpu for r in runs], unit="s"),
    ]


def _plan(folder: Path) -> Plan:
    config = _configuration(folder)
    command = [sys.executable, "-m", "worker_service", "plan", "--config", str(config), "--output", "json"]
    command += [part for name in _OPERATIONS for part in ("--operation", name)]
    plan = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {
        f"{target['name']}.db": [line for operation in target["operations"] for line in operation["statements"]]
        for target in plan["targets"]
    }


def _configuration(folder: Path) -> Path:
    """Write the worker's configuration file beside the folder of its databases."""
    tables = [f'[[targets]]\nname = "{path.stem}"\nurl = "{path}"\n' for path in sorted(folder.iterdir())]
    file = folder.with_suffix(".toml")
    file.write_text(f"slots = {_SLOTS}\n\n" + "\n".join(tables))
    return file


def _run(source: Path, plan: Plan) -> _Run:
    """Maintain fresh copies in each way, one after the other, and compare what came out."""
    folders = {name: source.with_name(name) for name in ("shell", "short", "library", "ours")}
    try:
        for folder in folders.values():
            shutil.copytree(source, folder)
        shell = _time_shell(folders["shell"], plan)
        short = _time_shell(folders["short"], {name: list(_WHOLE) for name in plan})
        library = _time_library(folders["library"], plan)
        ours, whole, *cpu = _time_ours(folders["ours"])
        _verify(source, folders)
    finally:
        for folder in folders.values():
            shutil.rmtree(folder, ignore_errors=True)
    return _Run(
        shell=shell,
        short_shell=short,
        library=library,
        ours=ours,
        whole=whole,
        manager_cpu=cpu[0],
        worker_cpu=cpu[1],
    )


def _time_shell(folder: Path, plan: Plan) -> float:
    """Start a program for each statement, two at a time: the leanest loop, without a shell between.

    All first statements come first, so that two programs never meet on one file.
    """
    rounds = range(max(map(len, plan.values())))
    pairs = [(name, lines[n]) for n in rounds for name, lines in plan.items() if n < len(lines)]
    arguments = "".join(f"{folder / name}\0{statement}\0" for name, statement in pairs)
    begun = _begin()
    loop = ["xargs", "--null", "--max-args=2", f"--max-procs={_SLOTS}", "sqlite3"]
    subprocess.run(loop, input=arguments, text=True, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def _time_library(folder: Path, plan: Plan) -> float:
    work = [(str(folder / name), statements) for name, statements in plan.items()]
    begun = _begin()
    processes = [_start_library(work[n::_SLOTS]) for n in range(_SLOTS)]
    if any(process.wait() for process in processes):
        raise AssertionError("the library alone failed")
    return time.perf_counter() - begun


def _start_library(work: Sequence[tuple[str, list[str]]]) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", _RAW], stdin=subprocess.PIPE, text=True)
    if process.stdin:
        with process.stdin as stdin:
            json.dump(work, stdin)
    return process


def _time_ours(folder: Path) -> tuple[float, float, float, float]:
    """Return the seconds of the parent job and of the whole, and the CPU seconds of manager and worker."""
    config = _configuration(folder)
    begun = _begin()
    with start_manager(folder.with_suffix(".store")) as manager, _start_worker(manager, config) as worker:
        names = [path.stem for path in sorted(folder.glob("*.db"))]
        processes = [manager.process.pid, worker.process.pid]
        before = [cpu_seconds(pid) for pid in processes]
        seconds = asyncio.run(_drive(address_of(manager), names))
        after = [cpu_seconds(pid) for pid in processes]
        worker.terminate()
        manager.terminate()
    whole = time.perf_counter() - begun
    for left in folder.parent.glob(f"{folder.name}.store*"):
        left.unlink()
    return seconds, whole, after[0] - before[0], after[1] - before[1]


def _start_worker(manager: Service, config: Path) -> Service:
    return Service(
        "worker_service", ["--config", str(config), "--manager", address_of(manager), "--name", "worker"]
    )


async def _drive(address: str, names: Sequence[str]) -> float:
    """Create the parent job, and return the seconds until it has ended with every child completed."""
    async with grpc.aio.insecure_channel(address) as channel:
        client = jobs_grpc.JobServiceStub(channel)
        operations = [job.OperationSpec(name=name) for name in _OPERATIONS]
        begun = time.perf_counter()
        created = await client.CreateParentJob(jobs.CreateParentJobRequest(targets=names, operations=operations))
        parent = created.parent_job.id
        await _ended(client, parent)
        seconds = time.perf_counter() - begun
        ends = Counter([child.state async for child in _children(client, parent)])
    if ends != {job.CHILD_JOB_STATE_COMPLETED: len(names) * len(_OPERATIONS)}:
        raise AssertionError(f"not every child completed: {ends}")
    return seconds


async def _ended(client: jobs_grpc.JobServiceStub, parent: str) -> None:
    while True:
        answer = await client.GetParentJob(jobs.GetParentJobRequest(parent_job_id=parent))
        if answer.parent_job.HasField("end_time"):
            return
        await asyncio.sleep(0.05)


async def _children(client: jobs_grpc.JobServiceStub, parent: str) -> AsyncIterator[job.ChildJob]:
    token = ""
    while True:
        request = jobs.ListChildJobsRequest(parent_job_id=parent, page_token=token, page_size=1_000)
        answer = await client.ListChildJobs(request)
        for child in answer.child_jobs:
            yield child
        if not (token := answer.next_page_token):
            return


def _begin() -> float:
    """Let what was copied reach the disk first, so that nobody pays for another's bytes."""
    os.sync()
    return time.perf_counter()


def _verify(source: Path, folders: dict[str, Path]) -> None:
    """Check that we left what the library alone leaves, byte for byte, and the same rows as the shell loops."""
    names = sorted(path.name for path in source.iterdir())
    ours, library = folders["ours"], folders["library"]
    _, different, missing = filecmp.cmpfiles(ours, library, names, shallow=False)
    if different or missing:
        raise AssertionError(f"{len(different + missing)} files differ from the library's, {different[:3]}")
    for name in names[::_SAMPLE]:
        rows = digest(source / name)
        for folder in folders.values():
            if digest(folder / name) != rows or not is_sound(folder / name):
                raise AssertionError(f"{folder.name}/{name} is not what it was")
