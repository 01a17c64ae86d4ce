"""The page of hazards names tests, and each of them is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "hazards.md").read_text("utf-8")
SOURCES = [path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py")]


def test_every_test_that_is_named_is_there() -> None:
    defined = {name for source in SOURCES for name in re.findall(r"def (test_\w+)", source)}
    named = set(re.findall(r"`(test_\w+)`", PAGE))

    assert named
    assert named - defined == set()
    assert [path for path in re.findall(r"`(tests/[\w/]+\.py)`", PAGE) if not (ROOT / path).exists()] == []


def test_every_hazard_has_its_line() -> None:
    assert re.findall(r"^\| H(\d+) ", PAGE, re.MULTILINE) == [str(number) for number in range(1, 45)]
