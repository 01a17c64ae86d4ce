import re
from dataclasses import dataclass
from typing import Self

from worker_service.domain.errors import InvalidOperationError
from worker_service.operations.postgresql.wording import quoted

_PART = r'"(?:[^"\0]|"")+"|[^".\0]+'
_QUALIFIED = re.compile(rf"(?P<schema>{_PART})\.(?P<name>{_PART})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """A table's or index's name, with its schema."""

    schema: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``schema.name``; either part may stand in double quotes, and has to when it contains a dot.

        The parts are taken as they are written: PostgreSQL folds names to lower case, and whoever names an
        object here has mostly read the name from a catalogue.

        Raises:
            InvalidOperationError: it is of another form.
        """
        match = _QUALIFIED.fullmatch(text)
        if match is None:
            raise InvalidOperationError(f'{text!r} is no object: write schema.name, or "schema"."name".')
        return cls(schema=_plain(match["schema"]), name=_plain(match["name"]))

    def __str__(self) -> str:
        return f"{quoted(self.schema)}.{quoted(self.name)}"

    @property
    def shown(self) -> str:
        """The name for people."""
        return f"{self.schema}.{self.name}"

    @property
    def written(self) -> str:
        """The name as ``parse`` reads it, with quotes only where it needs them."""
        return f"{_written(self.schema)}.{_written(self.name)}"


def _plain(part: str) -> str:
    return part[1:-1].replace('""', '"') if part.startswith('"') else part


def _written(part: str) -> str:
    return quoted(part) if "." in part or '"' in part else part
