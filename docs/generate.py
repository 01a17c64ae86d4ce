"""Write docs/cli.md from the programs themselves, so that the reference cannot be out of date."""

import subprocess
import sys
from pathlib import Path

_PROGRAMS = ("overhaul", "overhaul-manager", "overhaul-worker")
_HEAD = """# Command line and settings

Made by `make docs` from the programs' own help. Each option names its environment variable; for the manager and
the worker, a TOML file given by `--config` holds the same names with underscores. The command line wins over the
environment, the environment over the file.
"""


def main(path: Path) -> None:
    """Write the reference."""
    parts = [_HEAD]
    for program in _PROGRAMS:
        parts += [f"## {program}\n", _block(program)]
        parts += [f"### {program} {name}\n\n{_block(program, name)}" for name in _commands(program)]
    path.write_text("\n".join(parts))


def _help(program: str, *command: str) -> str:
    arguments = [str(Path(sys.executable).with_name(program)), *command, "--help"]
    environment = {"COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1", "PATH": ""}
    return subprocess.run(arguments, check=True, capture_output=True, text=True, env=environment).stdout


def _block(program: str, *command: str) -> str:
    lines = (line.rstrip() for line in _help(program, *command).strip().splitlines())
    return "```\n" + "\n".join(lines) + "\n```\n"


def _commands(program: str) -> list[str]:
    """Return the program's commands, read from its help."""
    _, found, after = _help(program).partition("Commands")
    lines = after.splitlines()[1:] if found else []
    words = (line.strip("│ ").split() for line in lines if line.strip("│╰╯─ "))
    return [first for first, *_ in words if first[0].isalpha() and _is_command(program, first)]


def _is_command(program: str, name: str) -> bool:
    arguments = [str(Path(sys.executable).with_name(program)), name, "--help"]
    return subprocess.run(arguments, check=False, capture_output=True).returncode == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("cli.md"))
