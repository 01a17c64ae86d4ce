"""`overhaul run` with the real manager, the real worker and real SQLite files."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 60.0
ROWS = 20_000


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A database with free pages, an index on an expression, and statistics from before its rows."""
    path = tmp_path / "app.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(
        "CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT UNIQUE, name TEXT);"
        "CREATE INDEX users_by_lower_name ON users (lower(name)); ANALYZE;"
    )
    connection.execute("BEGIN")
    connection.executemany(
        "INSERT INTO users VALUES (?, ?, ?)", ((i, f"{i}@example.org", f"Name {i}") for i in range(ROWS))
    )
    connection.execute("DELETE FROM users WHERE id < ?", (ROWS // 2,))
    connection.execute("COMMIT")
    connection.close()
    return path


def environment(temporary: Path) -> dict[str, str]:
    """Return an environment whose temporary files can be counted."""
    temporary.mkdir(exist_ok=True)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OVERHAUL_")}
    return clean | {"TMPDIR": str(temporary)}


def start(folder: Path, *arguments: str, **variables: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "manager_service.client", "run", *arguments],
        cwd=folder,
        env=environment(folder / "tmp") | {"PYTHONPATH": os.pathsep.join(sys.path)} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def overhaul_run(folder: Path, *arguments: str, **variables: str) -> tuple[int, str, str]:
    process = start(folder, *arguments, **variables)
    stdout, stderr = process.communicate(timeout=PATIENCE)
    return process.returncode, stdout, stderr


def left_behind(folder: Path, *known: str) -> list[str]:
    """Return what is in the folder and its temporary one beside the known files."""
    names = {path.name for path in folder.iterdir()} | {path.name for path in (folder / "tmp").iterdir()}
    return sorted(names - {"tmp", *known})


def programs_of(folder: Path) -> dict[int, str]:
    """Return the command lines of processes that work in the folder, by their ids."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == folder:
                found[int(process.name)] = (process / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue  # it ended, or belongs to somebody else
    return {number: line for number, line in found.items() if line}


def program_of(folder: Path, module: str) -> int:
    """Return the id of the process in the folder that runs a module."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        for number, line in programs_of(folder).items():
            if f"-m {module} " in line:
                return number
    raise AssertionError(f"{module} was not started")


def children_of(whole: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {child["operation"]: child for child in whole["child_jobs"]}


def test_it_maintains_a_database_and_tells_before_and_after(tmp_path: Path, database: Path) -> None:
    size = database.stat().st_size

    code, stdout, stderr = overhaul_run(tmp_path, str(database), "--output", "json")

    whole = json.loads(stdout)
    children = children_of(whole)
    assert code == 0, stderr
    assert whole["parent_job"]["state"] == "completed"
    assert whole["parent_job"]["counts"]["completed"] == 3
    assert list(children) == ["vacuum", "analyze", "reindex"]
    assert {child["target"] for child in children.values()} == {"app"}
    assert children["vacuum"]["verdict"] == "effective"
    assert children["vacuum"]["before"]["free_pages"] > 0
    assert children["vacuum"]["after"]["free_pages"] == 0
    assert database.stat().st_size < size
    assert children["analyze"]["after"]["stat_rows"] > children["analyze"]["before"]["stat_rows"]
    assert left_behind(tmp_path, "app.db") == []
    assert not programs_of(tmp_path)


def test_the_table_names_what_was_done(tmp_path: Path, database: Path) -> None:
    code, stdout, stderr = overhaul_run(tmp_path, f"shop={database}", "--operation", "vacuum")

    assert code == 0, stderr
    assert "vacuum" in stdout
    assert "shop" in stdout
    assert "completed: effective" in stdout
    assert " -> 0 " in stdout
    assert "vacuum shop: completed" in stderr


def test_two_targets_are_one_job(tmp_path: Path, database: Path) -> None:
    other = tmp_path / "other.db"
    other.write_bytes(database.read_bytes())

    code, stdout, stderr = overhaul_run(
        tmp_path, *map(str, (database, other)), "--operation", "analyze", "--output", "json"
    )

    whole = json.loads(stdout)
    assert code == 0, stderr
    assert [child["target"] for child in whole["child_jobs"]] == ["app", "other"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("missing.db",), "missing"),
        (("tmp",), "tmp"),
        (("app.db", "--operation", "polish"), "polish"),
        (("app.db", "--operation", "vacuum:busy_timeout_ms=-5"), "0 to 3600000"),
        (("app.db", "--operation", "wal_checkpoint:mode=some"), "passive, full, restart, truncate"),
        (("nosuch://host/db",), "nosuch"),
        (("postgresql://me:secret@host/db",), "password"),
    ],
)
@pytest.mark.parametrize("store", [(), ("--store", "sqlite:///store.db")])
def test_what_cannot_be_done_is_refused_in_one_sentence(
    tmp_path: Path, database: Path, arguments: tuple[str, ...], told: str, store: tuple[str, ...]
) -> None:
    code, stdout, stderr = overhaul_run(tmp_path, *arguments, *store)

    assert code == 2, stderr
    assert stdout == ""
    assert len(stderr.splitlines()) == 1
    assert told in stderr
    assert "secret" not in stderr
    assert left_behind(tmp_path, "app.db") == []


def test_a_store_that_was_named_is_kept(tmp_path: Path, database: Path) -> None:
    code, _, stderr = overhaul_run(tmp_path, str(database), "--store", "sqlite:///store.db")

    assert code == 0, stderr
    assert (tmp_path / "store.db").exists()
    assert not programs_of(tmp_path)


def test_a_dry_run_tells_the_statements_and_changes_nothing(tmp_path: Path, database: Path) -> None:
    before = database.read_bytes()

    code, stdout, stderr = overhaul_run(tmp_path, str(database), "--dry-run")

    assert code == 0, stderr
    assert "VACUUM" in stdout
    assert "REINDEX" in stdout
    assert database.read_bytes() == before


def test_it_is_done_where_it_is_worth_it(tmp_path: Path, database: Path) -> None:
    size = database.stat().st_size
    arguments = (str(database), "--operation", "vacuum", "--operation", "analyze", "--output", "json")

    _, stdout, _ = overhaul_run(tmp_path, *arguments, "--only-if", "vacuum: free_ratio > 1")
    code, again, stderr = overhaul_run(tmp_path, *arguments, "--scope", "table", "--only-if", "free_pages >= 0")

    first = children_of(json.loads(stdout))
    assert (first["vacuum"]["state"], first["analyze"]["state"]) == ("skipped", "completed")
    assert first["vacuum"]["reason"].startswith("not worth its while, only if free_ratio > 1: free_ratio 0.")
    assert code == 0, stderr
    vacuumed = children_of(json.loads(again))["vacuum"]
    assert (vacuumed["object"], vacuumed["verdict"]) == (None, "effective")
    assert database.stat().st_size < size


class TestWhileItWaits:
    """A reader holds the database, so that the vacuum cannot end by itself."""

    @pytest.fixture
    def held(self, database: Path) -> "sqlite3.Connection":
        connection = sqlite3.connect(database, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        return connection

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_ctrl_c_cancels_and_leaves_nothing(
        self, tmp_path: Path, database: Path, held: sqlite3.Connection, number: signal.Signals
    ) -> None:
        process = start(tmp_path, str(database), "--output", "json")
        wait_for_the_job(process)
        process.send_signal(number)
        stdout, _ = process.communicate(timeout=PATIENCE)
        held.close()

        assert process.returncode == 130
        assert json.loads(stdout)["parent_job"]["state"] == "cancelled"
        assert left_behind(tmp_path, "app.db") == []
        assert not programs_of(tmp_path)

    def test_a_second_ctrl_c_stops_at_once(self, tmp_path: Path, database: Path, held: sqlite3.Connection) -> None:
        process = start(tmp_path, str(database))
        wait_for_the_job(process)
        # A worker that stands still hears of no cancel, so that nothing but the second signal ends this soon.
        os.kill(program_of(tmp_path, "worker_service"), signal.SIGSTOP)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert any(line.startswith("cancelling") for line in process.stderr)
        process.send_signal(signal.SIGINT)
        started = time.monotonic()
        stdout, stderr = process.communicate(timeout=PATIENCE)
        held.close()

        assert process.returncode == 130
        assert time.monotonic() - started < 8
        assert stdout == ""
        assert stderr.endswith("stopped\n")
        assert left_behind(tmp_path, "app.db") == []
        assert not programs_of(tmp_path)

    def test_killed_it_leaves_no_process_and_no_file(
        self, tmp_path: Path, database: Path, held: sqlite3.Connection
    ) -> None:
        process = start(tmp_path, str(database))
        wait_for_the_job(process)
        process.kill()
        process.communicate(timeout=PATIENCE)
        end = time.monotonic() + PATIENCE
        while programs_of(tmp_path) and time.monotonic() < end:
            time.sleep(0.05)
        held.close()

        assert not programs_of(tmp_path)
        assert left_behind(tmp_path, "app.db") == []

    @pytest.mark.parametrize(
        ("module", "name"), [("manager_service", "overhaul-manager"), ("worker_service", "overhaul-worker")]
    )
    def test_the_death_of_either_program_is_told_and_leaves_nothing(
        self, tmp_path: Path, database: Path, held: sqlite3.Connection, module: str, name: str
    ) -> None:
        process = start(tmp_path, str(database))
        wait_for_the_job(process)
        os.kill(program_of(tmp_path, module), signal.SIGKILL)
        started = time.monotonic()
        stdout, stderr = process.communicate(timeout=PATIENCE)
        took = time.monotonic() - started
        held.close()

        assert process.returncode == 1
        assert stdout == ""
        assert f"overhaul: {name} ended by SIGKILL" in stderr
        assert took < 4.5
        assert left_behind(tmp_path, "app.db") == []
        assert not programs_of(tmp_path)


def test_a_manager_that_is_killed_while_it_starts_leaves_nothing(tmp_path: Path, database: Path) -> None:
    process = start(tmp_path, str(database))
    manager = program_of(tmp_path, "manager_service")
    end = time.monotonic() + PATIENCE
    # The store's folder comes before the store, and that before the manager says that it is ready.
    while not list((tmp_path / "tmp").glob("**/overhaul-manager-*")) and time.monotonic() < end:
        time.sleep(0.001)
    os.kill(manager, signal.SIGKILL)
    _, stderr = process.communicate(timeout=PATIENCE)

    assert process.returncode == 1
    assert "overhaul: overhaul-manager ended by SIGKILL" in stderr
    assert left_behind(tmp_path, "app.db") == []
    assert not programs_of(tmp_path)


@pytest.mark.parametrize("arguments", [(), ("--dry-run",)])
def test_settings_of_deployed_programs_mean_nothing_to_it(
    tmp_path: Path, database: Path, arguments: tuple[str, ...]
) -> None:
    code, _, stderr = overhaul_run(
        tmp_path,
        str(database),
        *arguments,
        OVERHAUL_CONFIG="/none.toml",
        OVERHAUL_MANAGER_CONFIG="/none.toml",
        OVERHAUL_HEARTBEAT_INTERVAL="20s",
        OVERHAUL_LOG_FORMAT="nonsense",
    )

    assert code == 0, stderr


def test_two_at_once_on_one_file_both_do_their_work_or_say_that_it_is_busy(tmp_path: Path, database: Path) -> None:
    both = [start(tmp_path, str(database), "--output", "json") for _ in range(2)]

    for process in both:
        stdout, stderr = process.communicate(timeout=PATIENCE)
        whole = json.loads(stdout)
        busy = [child for child in whole["child_jobs"] if child["state"] != "completed"]
        assert process.returncode == (1 if busy else 0), stderr
        assert all("locked" in json.dumps(child) or "busy" in json.dumps(child) for child in busy), busy
    assert left_behind(tmp_path, "app.db") == []
    assert not programs_of(tmp_path)


def wait_for_the_job(process: "subprocess.Popen[str]") -> None:
    """Wait until a run says that its job runs."""
    assert process.stderr is not None
    assert process.stderr.readline().startswith("job running")
