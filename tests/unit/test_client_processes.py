"""Programs that are started, awaited, and ended whatever they do about it."""

import asyncio
import errno
import signal
import sys
import tempfile
import time
from typing import NoReturn

import pytest
from typer.testing import CliRunner

from manager_service.client import running
from manager_service.client.cli import app
from manager_service.client.crew import Commands, both, first_of
from manager_service.client.interrupts import Interrupts
from manager_service.client.processes import Program, ProgramEndedError

READY = 'print(\'{"event": "ready", "n": 1}\', flush=True)'
STUBBORN = "import signal, time, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + READY + ";time.sleep(60)"


async def python(code: str) -> Program:
    return await Program.start("stand-in", [sys.executable, "-c", code])


class TestStart:
    @pytest.mark.parametrize(("arguments", "program"), [((), "manager"), (("--dry-run",), "worker")])
    def test_a_program_that_cannot_be_started_is_told_as_that(
        self, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], program: str
    ) -> None:
        nowhere = ("/no/such/python",)
        monkeypatch.setattr(running, "COMMANDS", Commands(manager=nowhere, worker=nowhere))

        result = CliRunner().invoke(app, ["run", "app.db", *arguments])

        said = f"overhaul: overhaul-{program} cannot be started: No such file or directory: /no/such/python\n"
        assert (result.exit_code, result.stdout, result.stderr) == (1, "", said)

    def test_no_folder_for_its_files_is_told_as_that(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(**_: str) -> NoReturn:
            raise OSError(errno.ENOSPC, "No space left on device", "/tmp/overhaul-run-1")

        monkeypatch.setattr(tempfile, "mkdtemp", full)

        result = CliRunner().invoke(app, ["run", "app.db"])

        assert result.exit_code == 1
        assert "overhaul-manager cannot be started: No space left on device: /tmp/overhaul-run-1" in result.stderr


class TestProgram:
    async def test_its_announcement_is_awaited(self) -> None:
        program = await python(f"import sys; print('noise'); print('[1]'); {READY}; {READY}; sys.stdin.read()")
        assert program.announcement is None

        ready = await program.ready()
        await program.stop(grace=5, kill_after=5)

        assert ready == program.announcement == {"event": "ready", "n": 1}

    async def test_one_that_ends_before_it_is_told_with_its_last_words(self) -> None:
        program = await python("import sys; print('no disk', file=sys.stderr); sys.exit(9)")

        with pytest.raises(ProgramEndedError, match="exit code 9; its last words:") as caught:
            await program.ready()
        await program.stop(grace=1, kill_after=1)

        assert caught.value.refusal is None
        assert caught.value.last_words == ["no disk"]

    async def test_exit_code_2_before_it_is_ready_is_a_refusal(self) -> None:
        program = await python("import sys; print('no such file', file=sys.stderr); sys.exit(2)")

        with pytest.raises(ProgramEndedError) as caught:
            await program.ready()
        await program.stop(grace=1, kill_after=1)

        assert caught.value.refusal == "no such file"

    async def test_exit_code_2_later_is_a_death(self) -> None:
        program = await python(f"import sys; {READY}; sys.exit(2)")
        await program.ready()

        with pytest.raises(ProgramEndedError) as caught:
            await program.ended()
        await program.stop(grace=1, kill_after=1)

        assert caught.value.refusal is None

    async def test_one_that_ignores_everything_is_killed(self) -> None:
        program = await python(STUBBORN)
        await program.ready()
        started = time.monotonic()

        await program.stop(grace=0.1, kill_after=0.1)

        assert time.monotonic() - started < 5
        assert program.exit_code == -signal.SIGKILL

    async def test_the_terminals_ctrl_c_does_not_reach_it(self) -> None:
        program = await python(f"import os; assert os.getsid(0) == os.getpid(); {READY}; input()")

        assert await program.ready()
        program.write_line("go")
        with pytest.raises(ProgramEndedError, match="exit code 0"):
            await program.ended()
        await program.stop(grace=1, kill_after=1)


class TestBoth:
    async def test_the_first_failure_stops_the_others(self) -> None:
        async def fail() -> None:
            raise ValueError("no")

        other = asyncio.create_task(asyncio.sleep(60))

        with pytest.raises(ValueError, match="no"):
            await both(fail(), other)

        assert other.cancelled()

    async def test_all_results_in_order(self) -> None:
        assert await both(asyncio.sleep(0.01, 1), asyncio.sleep(0, 2)) == [1, 2]


class TestFirstOf:
    async def test_trouble_stops_the_work(self) -> None:
        async def trouble() -> NoReturn:
            raise ValueError("no")

        work = asyncio.create_task(asyncio.sleep(60, 1))

        with pytest.raises(ValueError, match="no"):
            await first_of(work, trouble())

        assert work.cancelled()


class TestInterrupts:
    async def test_the_first_and_the_second_are_told_apart(self) -> None:
        before = signal.getsignal(signal.SIGINT)
        # It may be ignored here: the tests may have been started with nohup.
        hang_up = signal.signal(signal.SIGHUP, signal.SIG_DFL)

        with Interrupts() as interrupts:
            signal.raise_signal(signal.SIGINT)
            await asyncio.wait_for(interrupts.first.wait(), 5)
            assert not interrupts.second.is_set()

            signal.raise_signal(signal.SIGHUP)
            await asyncio.wait_for(interrupts.second.wait(), 5)

        signal.signal(signal.SIGHUP, hang_up)
        assert signal.getsignal(signal.SIGINT) is before

    async def test_a_hang_up_that_is_ignored_stays_ignored(self) -> None:
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            with Interrupts():
                assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        finally:
            signal.signal(signal.SIGHUP, before)
