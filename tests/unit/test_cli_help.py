"""What `overhaul --help` promises."""

import subprocess
import sys
from importlib.metadata import version
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from manager_service.client import __main__ as program
from manager_service.client.cli import app

COMMANDS: dict[str, Any] = getattr(get_command(app), "commands")  # noqa: B009 - a group's, typed as a command


def shown(*arguments: str) -> str:
    result = CliRunner().invoke(app, [*arguments, "--help"])
    assert result.exit_code == 0
    return " ".join(result.output.split())


def test_every_command_is_there() -> None:
    assert list(COMMANDS) == [
        *("run", "create", "plan", "get", "list", "watch", "cancel", "pause", "resume", "retry", "delete", "logs"),
        *("workers", "targets", "drain", "forget"),
    ]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_names_its_variable(command: str) -> None:
    text = shown(command)

    for option in COMMANDS[command].params:
        if option.param_type_name == "option" and option.name != "help":
            automatic = f"OVERHAUL_{command}_{option.name}".upper()
            assert f"env var: {option.envvar or automatic}" in text, option.name


@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "run"])
def test_every_command_takes_the_manager_and_the_output(command: str) -> None:
    text = shown(command)

    assert "env var: OVERHAUL_MANAGER; default: 127.0.0.1:7420" in text
    assert "--output <table|json>" in text or "--output [table|json]" in text


def test_help_loads_neither_grpc_nor_rich() -> None:
    code = (
        "import sys; from manager_service.client.cli import app; app(['--help'], standalone_mode=False);"
        "print([name for name in ('grpc', 'rich', 'google.protobuf') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["list", "--help"]])
def test_an_answer_that_cannot_be_written_is_told_in_one_sentence(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        code = [sys.executable, "-m", "manager_service.client", *arguments]
        result = subprocess.run(code, stdout=full, stderr=subprocess.PIPE, text=True, check=False)

    assert result.returncode == 1
    assert result.stderr == "overhaul: the answer cannot be written: No space left on device\n"


def test_a_closed_stdout_is_refused_before_anything_is_done() -> None:
    command = f"exec {sys.executable} -m manager_service.client run missing.db >&-"
    result = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, check=False)

    assert result.returncode == 2
    assert result.stderr.startswith("overhaul: stdout is closed")


def test_the_version_ignores_a_variable_of_its_name() -> None:
    result = CliRunner().invoke(app, ["--version"], env={"OVERHAUL_VERSION": "1.2.3"})
    other = CliRunner().invoke(app, ["list", "--help"], env={"OVERHAUL_VERSION": "1.2.3"})

    assert result.output == f"overhaul {version('overhaul')}\n"
    assert other.exit_code == 0


def test_completion_knows_the_commands() -> None:
    result = CliRunner().invoke(
        app,
        [],
        prog_name="overhaul",
        env={"_OVERHAUL_COMPLETE": "complete_bash", "COMP_WORDS": "overhaul w", "COMP_CWORD": "1"},
    )

    assert result.output.split() == ["watch", "workers"]


def test_the_program_runs_under_its_own_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["__main__.py", "get"])

    with pytest.raises(SystemExit) as caught:
        program.main()

    assert caught.value.code == 2
    assert "Usage: overhaul get" in capsys.readouterr().err


def test_a_name_that_the_terminal_lacks_is_escaped() -> None:
    code = "from manager_service.client.talk import put; import manager_service.client.__main__ as p, sys;"
    code += "sys.argv = ['overhaul', '--version']; p.app = lambda **_: put('Évora'); p.main()"
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=True,
        env={"PYTHONIOENCODING": "ascii", "PYTHONPATH": ".:protos"},
    )

    assert result.stdout == b"\\xc9vora\n"
