"""The commands of the documents, as a reader would copy them."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def text_of(document: str) -> str:
    """Return what a document says."""
    return (ROOT / document).read_text("utf-8")


def commands(document: str, program: str) -> list[str]:
    """Return the indented commands of a document that call a program."""
    pattern = rf"^    ({re.escape(program)}(?: [^\n]*[^\n#\s])?)\s*(?:#.*)?$"
    return re.findall(pattern, text_of(document), flags=re.MULTILINE)
