"""Every command line and configuration that the documents show is one that the programs take."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from manager_service import __main__ as manager
from manager_service.client.cli import app as client
from worker_service import __main__ as worker
from worker_service.config import Sources, read_file

ROOT = Path(__file__).parents[2]
# The reference is made of the programs' own help, and the measurements call other programs too.
NOT_MEANT = {"cli.md", "performance.md", "scaling.md"}
PAGES = [
    ROOT / "README.md",
    *sorted(path for path in (ROOT / "docs").glob("*.md") if path.name not in NOT_MEANT),
    *sorted((ROOT / "examples").glob("*/README.md")),
]
PROGRAMS: dict[str, Any] = {
    "overhaul": get_command(client),
    "overhaul-manager": get_command(manager.program),
    "overhaul-worker": get_command(worker.app),
}
NAMES = "|".join(PROGRAMS)
# This one would be carried out while it is read.
CARRIED_OUT = "--install-completion"


def commands(page: Path) -> Iterator[str]:
    """Return the commands of a page: whole lines, and those with an option within the text."""
    text = page.read_text("utf-8").replace("\\\n", " ")
    yield from re.findall(rf"^    (?:\$ )?((?:{NAMES}) [^\n#]*)", text, re.MULTILINE)
    for found in re.findall(rf"`((?:{NAMES})\s[^`]*--[^`]*)`", text):
        yield from (part for part in " ".join(found.split()).split("&&") if CARRIED_OUT not in part)


def parsed(words: list[str], file: Path) -> dict[str, Any]:
    """Have a program read its command line, without doing what it says; return the options."""
    program, *arguments = [str(file) if word.endswith(".toml") else word for word in words]
    context = PROGRAMS[program].make_context(program, arguments)
    rest = [*getattr(context, "_protected_args", []), *context.args]
    if not rest:
        return dict(context.params)
    command = PROGRAMS[program].get_command(context, rest[0])
    assert command is not None, rest[0]
    return dict(command.make_context(rest[0], rest[1:], parent=context).params)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file for `--config` that says nothing."""
    path = tmp_path / "some.toml"
    path.touch()
    return path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_its_commands_are_taken(page: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OVERHAUL_STORE", raising=False)

    for command in commands(page):
        parsed(shlex.split(command), file)


def test_there_are_commands_to_take() -> None:
    every = [command for page in PAGES for command in commands(page)]

    assert len(every) > 25
    assert any(command.startswith("overhaul-worker --config") for command in every)


@pytest.mark.parametrize(
    ("page", "content"),
    [
        pytest.param(page, content, id=f"{page.name}-{number}")
        for page in PAGES
        for number, content in enumerate(re.findall(r"```toml\n(.*?)```", page.read_text("utf-8"), re.DOTALL))
        if "[[targets]]" in content
    ],
)
def test_its_configurations_are_taken(page: Path, content: str, file: Path, tmp_path: Path) -> None:
    # The folder of a pause file has to be there.
    file.write_text(content.replace("/run/", f"{tmp_path}/"))

    targets = Sources(file=file, content=read_file(file)).targets()

    assert targets, page
    assert all(target.name for target in targets)
