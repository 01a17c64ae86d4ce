"""PostgreSQL, MariaDB and SQLite in one parent job, as a user types it; what became of them is read elsewhere."""

import json
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.documents import text_of
from tests.acceptance.three_databases import ThreeDatabases
from tests.services import Service, address_of, start_manager

PATIENCE = 60.0
ALL = ("PGPASSWORD", "MYSQL_PWD")
FOUND = ("analyze", "reindex", "vacuum")
# The path of the modules is told to the interpreter, as an install would.
PYTHONPATH = os.pathsep.join(sys.path)


class Eyes:
    """Reads the command line of every process, again and again, as any user of the machine can."""

    def __init__(self) -> None:
        self.lines: set[bytes] = set()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._look)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Look for the length of the block."""
        self._thread.start()
        try:
            yield
        finally:
            self._closed.set()
            self._thread.join()

    def saw(self, module: str) -> bool:
        """Tell whether a module was run."""
        return any(f"-m\0{module}\0".encode() in line for line in self.lines)

    def _look(self) -> None:
        while not self._closed.wait(0.05):
            for process in Path("/proc").glob("[0-9]*"):
                try:
                    self.lines.add((process / "cmdline").read_bytes())
                except OSError:
                    continue  # it has ended


def call(
    three: ThreeDatabases, *arguments: str, passwords: tuple[str, ...] = ()
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "manager_service.client", *arguments],
        cwd=three.file.parent,
        env=three.environment(*passwords) | {"PYTHONPATH": PYTHONPATH, "COLUMNS": "200"},
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def by_target(job: dict[str, Any]) -> dict[str, list[tuple[str, str, str, str]]]:
    """Return what was done: operation, object, state and verdict, sorted, without the inspections."""
    found: dict[str, list[tuple[str, str, str, str]]] = {}
    for child in job["child_jobs"]:
        if child["operation"] != "inspect":
            told = (child["operation"], child["object"] or "", child["state"], child["verdict"] or "")
            found[child["target"]] = sorted([*found.get(child["target"], []), told])
    return found


def done_to(what: str) -> list[tuple[str, str, str, str]]:
    return [(operation, what, "completed", "effective") for operation in FOUND]


class TestRun:
    def test_one_job_maintains_them_all_and_tells_no_password(self, three: ThreeDatabases, tmp_path: Path) -> None:
        before, eyes = three.read(), Eyes()
        store = tmp_path / "store" / "history.db"
        store.parent.mkdir()
        shop = three.shop_url.rpartition("/")[2]

        with eyes.open():
            ran = call(
                three,
                *("run", three.shop_url, three.crm_url, "app.db", "--exclude", "public.customers"),
                *("--store", f"sqlite:///{store}", "--output", "json"),
                passwords=ALL,
            )

        after = three.read()
        kept = b"".join(path.read_bytes() for path in store.parent.iterdir())
        assert ran.returncode == 0, ran.stderr
        done = by_target(json.loads(ran.stdout))
        assert (done[shop], done["app"]) == (done_to("public.orders"), done_to(""))
        # InnoDB's reindex is the rebuild that its vacuum is already.
        assert [one for one in done["crm"] if one[0] != "reindex"] == [
            one for one in done_to("contact") if one[0] != "reindex"
        ]
        assert sorted(done) == sorted([shop, "crm", "app"])
        assert after.index_file != before.index_file
        assert (before.dead_rows, after.dead_rows) == (500, 0)
        assert after.space != before.space
        assert after.file_bytes < before.file_bytes
        assert eyes.saw("manager_service")
        assert eyes.saw("worker_service")
        assert b"public.orders" in kept
        assert b"://" not in kept
        assert three.leaks(ran.stdout, ran.stderr, kept, *eyes.lines) == []

    def test_a_dry_run_plans_for_all_and_changes_nothing(self, three: ThreeDatabases) -> None:
        before, bytes_before = three.read(), three.file.read_bytes()

        ran = call(three, "run", three.shop_url, three.crm_url, "app.db", "--dry-run", passwords=ALL)

        assert ran.returncode == 0, ran.stderr
        for statement in (
            'REINDEX INDEX CONCURRENTLY "public"."orders_pkey"',
            "OPTIMIZE TABLE `contact`",
            "VACUUM",
        ):
            assert statement in ran.stdout
        assert three.read() == before
        assert three.file.read_bytes() == bytes_before
        assert three.leaks(ran.stdout, ran.stderr) == []


class TestServices:
    CONFIG = """
[[targets]]
name = "orders"
url = "{shop}"
max_parallel = 4

[[targets]]
name = "crm"
url = "{crm}"

[[targets]]
name = "app"
url = "{app}"
"""

    @pytest.fixture
    def manager(self, tmp_path: Path) -> Iterator[Service]:
        with start_manager(tmp_path / "jobs.db") as manager:
            yield manager

    @pytest.fixture
    def worker(self, three: ThreeDatabases, manager: Service, tmp_path: Path) -> Iterator[Service]:
        """Run a worker whose file alone has the passwords."""
        file = tmp_path / "worker.toml"
        shop, crm = three.given(three.shop_url, "PGPASSWORD"), three.given(three.crm_url, "MYSQL_PWD")
        file.write_text(self.CONFIG.format(shop=shop, crm=crm, app=three.file))
        with Service("worker_service", ["--config", str(file), "--manager", address_of(manager)]) as worker:
            yield worker

    @pytest.fixture
    def told(self, three: ThreeDatabases, manager: Service, worker: Service) -> Iterator["Told"]:
        told = Told(three, address_of(manager))
        yield told
        assert three.leaks(*told.words, *worker.lines, *manager.lines) == []

    def test_what_is_worth_it_is_planned_and_done(self, three: ThreeDatabases, told: "Told") -> None:
        [plan] = re.findall(r"`overhaul (plan shop [^`]*)`", text_of("README.md"))
        planned = told.call(*shlex.split(plan.replace("shop", "orders")))

        told.call(
            *("create", "--target", "orders", "--operation", "vacuum", "--scope", "table"),
            *("--only-if", "dead_ratio>0.1", "--max-parallel", "4", "--watch"),
        )

        job, _ = told.jobs()
        assert "only if dead_ratio > 0.1: dead_ratio 0.5" in " ".join(planned.split())
        assert by_target(job) == {
            "orders": [
                ("vacuum", "public.customers", "skipped", ""),
                ("vacuum", "public.orders", "completed", "effective"),
            ]
        }
        assert three.read().dead_rows == 0

    def test_each_engine_has_its_own_threshold_in_one_job(self, three: ThreeDatabases, told: "Told") -> None:
        before = three.read()

        told.call(
            *("create", "--target", "orders", "--target", "crm", "--target", "app", "--operation", "vacuum"),
            *("--scope", "table", "--only-if", "@orders: dead_ratio>0.9", "--only-if", "@crm: size_bytes>1e4"),
            *("--only-if", "@app: free_ratio>0.1", "--max-parallel", "4", "--watch"),
        )

        [job] = told.jobs()
        after = three.read()
        assert by_target(job) == {
            "orders": [("vacuum", f"public.{name}", "skipped", "") for name in ("customers", "orders")],
            "crm": [("vacuum", "contact", "completed", "effective")],
            "app": [("vacuum", "", "completed", "effective")],
        }
        assert (after.dead_rows, after.index_file) == (before.dead_rows, before.index_file)
        assert after.space != before.space
        assert after.file_bytes < before.file_bytes


class Told:
    """The client's command line at a manager, and every word that it said."""

    def __init__(self, three: ThreeDatabases, address: str) -> None:
        self.words: list[str] = []
        self._three = three
        self._address = address

    def call(self, *arguments: str) -> str:
        """Run a command, which has to end well."""
        done = call(self._three, *arguments, "--manager", self._address)
        self.words += [done.stdout, done.stderr]
        assert done.returncode == 0, done.stderr
        return done.stdout

    def jobs(self) -> list[dict[str, Any]]:
        """Return every job with its children."""
        listed = json.loads(self.call("list", "--output", "json"))["parent_jobs"]
        return [json.loads(self.call("get", job["id"], "--output", "json")) for job in listed]
