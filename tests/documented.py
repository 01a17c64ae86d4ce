"""What the documentation recommends, for tests that hold it against real databases."""

import re
from pathlib import Path

_DOCS = Path(__file__).parents[1] / "docs"
_ROW = re.compile(r"^\| ((?:PostgreSQL|MariaDB|SQLite), [^|]+) \| `([^`]+)` \| [^|]+ \|$", re.MULTILINE)


def recommended() -> dict[str, str]:
    """Return the conditions to start with, by engine and operation as the page names them."""
    return dict(_ROW.findall((_DOCS / "objects.md").read_text()))


def named_measures() -> set[str]:
    """Return what the page on operations names as code, the measures among it."""
    return set(re.findall(r"`(\w+)`", (_DOCS / "operations.md").read_text()))
