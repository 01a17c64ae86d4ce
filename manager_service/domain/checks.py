"""How fields of a request are checked: everything that is wrong is found before anything is refused."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from manager_service.domain.errors import FieldViolation, InvalidRequestError
from manager_service.domain.model import SECOND, Span

MAX_LABELS = 64
MAX_TEXT = 256
MAX_NAME = 128
MAX_VIOLATIONS = 100
LONGEST_SPAN: Span = 10 * 366 * 86_400 * SECOND

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def is_uuid(text: str) -> bool:
    """Tell whether the text is a UUID in its canonical form."""
    return _UUID.fullmatch(text) is not None


class Violations:
    """Collects what is wrong with a request; beyond a hundred findings it only counts."""

    def __init__(self) -> None:
        self._found: list[FieldViolation] = []
        self._more = 0

    def add(self, field: str, description: str) -> None:
        """Note that a field is wrong."""
        if len(self._found) < MAX_VIOLATIONS:
            self._found.append(FieldViolation(field, description))
        else:
            self._more += 1

    def found(self) -> tuple[FieldViolation, ...]:
        """Return what was noted."""
        if not self._more:
            return tuple(self._found)
        return (*self._found, FieldViolation("request", f"{self._more} more fields are wrong"))

    def refuse(self) -> None:
        """Raise ``InvalidRequestError`` if anything was noted."""
        if self._found:
            raise InvalidRequestError(self.found())

    def name(self, field: str, value: str, *, longest: int = MAX_NAME) -> bool:
        """Check a text that must be there; tell whether it is right."""
        if not value.strip():
            self.add(field, "must not be empty")
            return False
        return self.text(field, value, longest=longest)

    def text(self, field: str, value: str, *, longest: int = MAX_TEXT) -> bool:
        """Check a text that may be empty; tell whether it is right."""
        if len(value) > longest:
            self.add(field, f"has {len(value)} characters; at most {longest} are allowed")
            return False
        if not value.isprintable():
            self.add(field, "has characters that cannot be printed; leave them out")
            return False
        return True

    def number(self, field: str, value: float, low: float, high: float) -> bool:
        """Check that a number lies within bounds; tell whether it does."""
        if low <= value <= high:
            return True
        self.add(field, f"is {value:g}; it must be from {low:g} to {high:g}")
        return False

    def span(self, field: str, value: Span | None, *, least: Span = 0) -> bool:
        """Check a span that may be unset; tell whether it is right."""
        if value is None or least <= value <= LONGEST_SPAN:
            return True
        least_text = f"{least / SECOND:g} s" if least else "0"
        self.add(field, f"is {value / SECOND:g} s; it must be from {least_text} to ten years")
        return False

    def labels(self, field: str, labels: Mapping[str, str]) -> None:
        """Check labels: how many, and the length of keys and values."""
        if len(labels) > MAX_LABELS:
            self.add(field, f"has {len(labels)} labels; at most {MAX_LABELS} are allowed")
            return
        for key, value in labels.items():
            if self.name(f"{field}[{key[:MAX_TEXT]}]", key, longest=MAX_TEXT):
                self.text(f"{field}[{key}]", value)

    def count(self, field: str, values: Iterable[Any], most: int) -> bool:
        """Check how many values there are; tell whether they are few enough."""
        size = len(tuple(values))
        if size <= most:
            return True
        self.add(field, f"has {size} entries; at most {most} are allowed")
        return False

    def once(self, field: str, values: Iterable[str], *, part: str = "") -> None:
        """Check that no value is there twice; ``part`` is what follows the index in the field's path."""
        first: dict[str, int] = {}
        for index, value in enumerate(values):
            if first.setdefault(value, index) != index:
                self.add(f"{field}[{index}]{part}", f"{value[:MAX_TEXT]!r} is there twice; leave one out")
