"""`overhaul run` and the two programs it starts: however it ends, nothing is left behind."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 20.0


class Run:
    """An `overhaul` whose programs are stand-ins that leave notes of what they did."""

    def __init__(self, notes: Path) -> None:
        self.notes = notes
        self._started: list[subprocess.Popen[str]] = []

    def start(
        self, *arguments: str, stdout: int = subprocess.PIPE, stderr: int = subprocess.PIPE
    ) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.client_doubles.overhaul_with_stand_ins", *arguments],
            cwd=ROOT,
            env=os.environ | {"STAND_IN_NOTES": str(self.notes)},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            text=True,
        )
        self._started.append(process)
        return process

    def to_the_end(self, *arguments: str) -> tuple[int, str, str]:
        process = self.start(*arguments)
        stdout, stderr = process.communicate(timeout=PATIENCE)
        return process.returncode, stdout, stderr

    def note(self, name: str) -> str | None:
        path = self.notes / name
        return path.read_text() if path.exists() else None

    def noted(self, name: str) -> None:
        """Wait for a note."""
        until(lambda: self.note(name) is not None)

    def nothing_is_left(self) -> bool:
        directory = self.note("manager.directory")
        pids = [self.note("manager.pid"), self.note("worker.pid")]
        return not any(alive(int(pid)) for pid in pids if pid) and not (directory and Path(directory).exists())

    def kill_all(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.communicate(timeout=PATIENCE)
        for name in ("manager.pid", "worker.pid"):
            pid = self.note(name)
            if pid and alive(int(pid)):
                os.kill(int(pid), signal.SIGKILL)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A child of a killed process is adopted by a process that may not wait for it.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    running = Run(tmp_path)
    yield running
    running.kill_all()


class TestCompleted:
    def test_the_table_is_on_stdout_and_the_talk_on_stderr(self, run: Run) -> None:
        code, stdout, stderr = run.to_the_end("run", "quick")

        assert code == 0, stderr
        assert "completed" in stdout
        assert "4.0 MB -> 1.0 MB" in stdout
        assert "vacuum quick: freed 3 MB" in stdout
        assert "vacuum quick: running" in stderr
        assert run.nothing_is_left()

    def test_json_is_one_object(self, run: Run) -> None:
        code, stdout, _ = run.to_the_end("run", "quick", "--output", "json")

        whole = json.loads(stdout)
        assert code == 0
        assert set(whole) == {"parent_job", "child_jobs"}
        assert whole["parent_job"]["state"] == "completed"
        assert whole["child_jobs"][0]["verdict"] == "effective"

    def test_what_was_asked_reaches_the_programs(self, run: Run) -> None:
        code, _, stderr = run.to_the_end(
            *("run", "quick", "--slots", "3", "--operation", "vacuum", "--operation", "analyze:limit=9"),
            *("--timeout", "90s", "--store", "sqlite:///kept.db"),
        )

        created = run.note("created") or ""
        assert code == 0, stderr
        assert json.loads(run.note("manager.argv") or "") == [
            *("serve", "--listen", "127.0.0.1:0", "--store", "sqlite:///kept.db", "--stdin-lifeline"),
            *("--log-level", "warning"),
        ]
        assert json.loads(run.note("worker.argv") or "") == [
            *("--manager", "-", "--stdin-lifeline", "--distinct-targets", "--log-level", "warning"),
            *("--slots", "3", "--max-parallel", "3", "--target", "quick"),
        ]
        assert created.count("operations {") == 2
        assert "seconds: 90" in created
        assert "kept in sqlite:///kept.db" in stderr

    def test_a_terminal_shows_it_live(self, run: Run) -> None:
        master, slave = pty.openpty()
        process = run.start("run", "quick", stdout=slave, stderr=slave)
        os.close(slave)
        screen = b""
        try:
            while chunk := os.read(master, 65_536):
                screen += chunk
        except OSError:
            pass  # how Linux says that the other side is closed
        os.close(master)

        assert process.wait(PATIENCE) == 0
        assert b"\x1b[?25l" in screen, "the live view hides the cursor"
        assert b"\x1b[?25h" in screen, "and gives it back"
        assert b"4.0 MB -> 1.0 MB" in screen or b"4.0 MB ->" in screen

    def test_a_reader_that_went_away_leaves_nothing(self, run: Run) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        process = run.start("run", "quick", "--output", "json", stdout=writing)
        os.close(writing)

        assert process.wait(PATIENCE) == 1
        assert run.nothing_is_left()


class TestRefused:
    def test_the_workers_sentence_is_passed_on(self, run: Run) -> None:
        code, stdout, stderr = run.to_the_end("run", "missing")

        assert code == 2
        assert stdout == ""
        assert stderr == "overhaul: missing: there is no such file; name an existing database\n"
        assert run.nothing_is_left()

    def test_no_store_is_made_for_it(self, run: Run) -> None:
        code, _, stderr = run.to_the_end("run", "missing", "--store", "sqlite:///kept.db")

        assert code == 2
        assert "no such file" in stderr
        assert run.note("manager.pid") is None

    def test_a_refused_call_exits_2(self, run: Run) -> None:
        code, _, stderr = run.to_the_end("run", "refusing")

        assert code == 2
        assert "no such job" in stderr
        assert run.nothing_is_left()


class TestInterrupted:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_once_cancels_and_tells_what_happened(self, run: Run, number: signal.Signals) -> None:
        process = run.start("run", "slow", "--output", "json")
        run.noted("watched")
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=PATIENCE)

        assert process.returncode == 130
        assert run.note("cancelled") == "interrupted by the user of overhaul run"
        assert json.loads(stdout)["parent_job"]["state"] == "cancelled"
        assert "Ctrl-C again" in stderr
        assert run.nothing_is_left()

    def test_twice_stops_at_once(self, run: Run) -> None:
        process = run.start("run", "deaf")
        run.noted("watched")
        process.send_signal(signal.SIGINT)
        run.noted("cancelled")
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=PATIENCE)

        assert process.returncode == 130
        assert stderr.endswith("stopped\n")
        assert run.nothing_is_left()

    def test_while_it_starts_it_stops(self, run: Run) -> None:
        process = run.start("run", "quick")
        run.noted("worker.pid")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)

        assert process.returncode == 130
        assert run.nothing_is_left()

    def test_before_the_store_is_made_it_stops(self, run: Run) -> None:
        process = run.start("run", "worker-slow", "--store", "sqlite:///kept.db")
        run.noted("worker.pid")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)

        assert process.returncode == 130
        assert run.note("manager.pid") is None
        assert run.nothing_is_left()

    def test_a_cancel_that_comes_too_late_is_told(self, run: Run) -> None:
        process = run.start("run", "late")
        run.noted("watched")
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=PATIENCE)

        assert process.returncode == 130
        assert "could not be cancelled: it is completed" in stderr
        assert run.nothing_is_left()

    def test_killed_its_programs_end_by_themselves(self, run: Run) -> None:
        process = run.start("run", "slow")
        run.noted("watched")
        process.kill()
        process.communicate(timeout=PATIENCE)

        until(run.nothing_is_left)


class TestDeath:
    @pytest.mark.parametrize(
        ("target", "words"),
        [
            ("dies", ["overhaul: overhaul-manager ended with exit code 7; its last words:", "  the store burns"]),
            ("killed", ["overhaul: overhaul-manager ended by SIGKILL"]),
            (
                "worker-dies",
                [
                    "overhaul: overhaul-worker ended with exit code 4; its last words:",
                    "  first word",
                    "  last word",
                ],
            ),
        ],
    )
    def test_of_either_is_told_with_its_last_words(self, run: Run, target: str, words: list[str]) -> None:
        code, stdout, stderr = run.to_the_end("run", target)

        assert code == 1
        assert stdout == ""
        assert stderr.splitlines()[-len(words) :] == words
        assert run.nothing_is_left()


class TestDryRun:
    def test_the_statements_are_told_and_nothing_is_started(self, run: Run) -> None:
        code, stdout, _ = run.to_the_end(
            *("run", "app", "--dry-run", "--operation", "vacuum", "--operation", "analyze:limit=9")
        )

        assert code == 0
        assert stdout.splitlines() == [
            *("-- vacuum app (sqlite)", "VACUUM;"),
            *("-- analyze:limit=9 app (sqlite)", "ANALYZE:LIMIT=9;"),
        ]
        assert run.note("manager.pid") is None

    def test_json_is_what_the_worker_tells(self, run: Run) -> None:
        code, stdout, _ = run.to_the_end("run", "app", "--dry-run", "--output", "json")

        assert code == 0
        assert json.loads(stdout)["targets"][0]["operations"][0]["statements"] == ["VACUUM;"]

    @pytest.mark.parametrize(("target", "exit_code"), [("missing", 2), ("worker-garbled", 1)])
    def test_a_refusal_is_passed_on(self, run: Run, target: str, exit_code: int) -> None:
        code, stdout, stderr = run.to_the_end("run", target, "--dry-run")

        assert code == exit_code
        assert stdout == ""
        assert stderr.startswith("overhaul: ")
