"""The commands of the README and the quickstart work as they are written."""

import json
import os
import re
import shlex
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.documents import commands

_ROOT = Path(__file__).resolve().parents[2]
_BIN = Path(sys.executable).parent
_PATIENCE = 60


def call(command: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run a command line with the programs of this environment."""
    # A make that may have started the tests would have the one that is called here speak otherwise.
    own = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}
    environment = own | {"PATH": f"{_BIN}{os.pathsep}{os.environ['PATH']}"} | changes
    return subprocess.run(
        shlex.split(command),
        cwd=_ROOT,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
    )


def shapes(text: str) -> set[str]:
    """Return the lines of what a run shows, without the numbers, ids and widths that differ from run to run."""
    masked = re.sub(r"\b[0-9a-f]{8}-[0-9a-f-]{27}\b", "ID", text)
    masked = re.sub(r"[\d.,]*\d", "N", masked)
    return {" ".join(re.sub("─+", "─", line).split()) for line in masked.splitlines() if line.strip()}


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "app.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)")
        connection.execute("CREATE INDEX t_b ON t (b)")
        connection.executemany("INSERT INTO t (b) VALUES (?)", [(f"row {n}",) for n in range(2_000)])
        connection.execute("DELETE FROM t WHERE a % 2")
    connection.close()
    return path


class TestReadme:
    def test_its_two_commands_are_made(self) -> None:
        targets = [command.split()[1] for command in commands("README.md", "make")]

        dry = [call(f"make --dry-run {target}").returncode for target in targets]

        assert targets == ["run", "test"]
        assert dry == [0, 0]

    def test_make_run_maintains_a_sample_and_shows_what_is_pictured(self) -> None:
        done = call("make run", COLUMNS="160")

        pictured = re.findall(r"```\n(.*?)```", (_ROOT / "README.md").read_text(), flags=re.DOTALL)[0]
        end = shapes(pictured[pictured.index("operation  target") :]) - {"job ID completed"}
        shown = shapes(done.stdout)
        assert done.returncode == 0, done.stderr
        assert shown - shapes(pictured) == set()
        # What comes before tells how it went on, and hangs on the moment.
        assert end - shown == set()

    def test_make_run_maintains_the_database_it_is_given(self, database: Path) -> None:
        before = database.stat().st_size

        done = call("make run", DATABASE=str(database))

        assert done.returncode == 0, done.stderr
        assert database.stat().st_size < before

    @pytest.mark.parametrize("document", ["README.md", *(f"docs/{p.name}" for p in (_ROOT / "docs").glob("*.md"))])
    def test_its_links_lead_somewhere(self, document: str) -> None:
        folder = (_ROOT / document).parent
        links = re.findall(r"\]\((?!https?:)([^)#]+)\)", (_ROOT / document).read_text())

        assert [link for link in links if not (folder / link).exists()] == []


class TestQuickstart:
    def test_the_services_work_as_written(self, database: Path, tmp_path: Path) -> None:
        [serve] = commands("docs/quickstart.md", "overhaul-manager")
        [work] = commands("docs/quickstart.md", "overhaul-worker")
        told = commands("docs/quickstart.md", "overhaul")
        plan, create, listing, get, cancel = [command for command in told if " run " not in command]
        other = tmp_path / "other.db"
        other.write_bytes(database.read_bytes())
        serve = serve.replace("127.0.0.1:7420", "127.0.0.1:0").replace("jobs.db", f"/{tmp_path}/jobs.db")
        with program(serve) as manager:
            address = str(announced(manager)["address"])
            work = work.replace("127.0.0.1:7420", address)
            work = work.replace("/data/app.db", str(database)).replace("/data/other.db", str(other))
            with program(work) as worker:
                targets = announced(worker)["targets"]
                planned = call(plan, OVERHAUL_MANAGER=address)
                created = call(create, OVERHAUL_MANAGER=address)
                listed = call(f"{listing} --output json", OVERHAUL_MANAGER=address)
                parent = json.loads(listed.stdout)["parent_jobs"][0]["id"]
                shown = call(get.replace("ID", parent), OVERHAUL_MANAGER=address)
                refused = call(cancel.replace("ID", parent), OVERHAUL_MANAGER=address)

        assert targets == ["app", "other"]
        assert planned.returncode == 0, planned.stderr
        assert "VACUUM" in planned.stdout
        assert created.returncode == 0, created.stderr
        assert shown.returncode == 0
        assert "vacuum" in shown.stdout
        assert refused.returncode == 2
        assert "completed" in refused.stderr


class program:  # noqa: N801 -- reads as a verb in a with statement
    """A program of the quickstart, ended with SIGTERM at the end of the block."""

    def __init__(self, command: str) -> None:
        words = shlex.split(command)
        self._process = subprocess.Popen(
            [str(_BIN / words[0]), *words[1:]], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def __enter__(self) -> "subprocess.Popen[str]":
        return self._process

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate(timeout=_PATIENCE)


def announced(process: "subprocess.Popen[str]") -> dict[str, object]:
    """Return what a program announces when it is ready."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.stderr.read() if process.stderr else ""
    found: dict[str, object] = json.loads(line)
    return found
