"""A target that its owner holds back, as clients see it: real processes, a real file, `overhaul get`."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.services import Service, address_of, start_manager

PATIENCE = 30.0


class Stage:
    """A manager, a worker with a paused target, and the client's command line."""

    def __init__(self, folder: Path, manager: Service) -> None:
        self.pause = folder / "pause"
        self.pause.touch()
        self._address = address_of(manager)
        connection = apsw.Connection(str(folder / "orders.db"))
        connection.execute("CREATE TABLE cart (id INTEGER)")
        connection.close()
        self._file = folder / "worker.toml"
        self._file.write_text(
            f'[[targets]]\nname = "orders"\nurl = "{folder}/orders.db"\n'
            f'[targets.throttle]\npause_file = "{self.pause}"\nwhile_sql = "SELECT count(*) > 9 FROM cart"\n'
        )

    def worker(self) -> Service:
        options = ["--config", str(self._file), "--manager", self._address, "--name", "w", "--log-format", "json"]
        return Service("worker_service", options)

    def overhaul(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "manager_service.client", *arguments, "--manager", self._address]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout

    def get(self, job_id: str) -> dict[str, Any]:
        [child] = json.loads(self.overhaul("get", job_id, "--output", "json"))["child_jobs"]
        found: dict[str, Any] = child
        return found

    def until(self, job_id: str, **fields: Any) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE
        while not fields.items() <= (child := self.get(job_id)).items():
            assert time.monotonic() < deadline, f"it never came to {fields}: {child}"
        return child


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with start_manager(tmp_path / "jobs.db") as manager:
        yield Stage(tmp_path, manager)


def test_a_waiting_job_tells_why_and_is_done_when_it_is_let_go(stage: Stage) -> None:
    with stage.worker() as worker:
        made = stage.overhaul("create", "--target", "orders", "--operation", "vacuum", "--output", "json")
        job_id = json.loads(made)["parent_job"]["id"]

        held = stage.until(job_id, wait_reason="throttled", wait_detail="the pause file pause is there")
        shown = " ".join(stage.overhaul("get", job_id).split())
        stage.pause.unlink()
        done = stage.until(job_id, state="completed")

        assert (held["state"], held["attempts"]) == ("pending", 0)
        assert "throttled" in shown
        assert done["attempts"] == 1
        events = [json.loads(line)["event"] for line in worker.lines]
        assert events.count("target held back") == events.count("target let go") == 1
