"""The kinds of options that operations have, whatever the engine, and how their texts are read."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from worker_service.domain.errors import InvalidOperationError
from worker_service.domain.operation import OptionSpec, OptionType


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagOption:
    """An option that is on or off; ``None`` leaves it to the server."""

    name: str
    description: str
    default: bool | None = False

    @property
    def spec(self) -> OptionSpec:
        """What the manager is told of it."""
        return OptionSpec(name=self.name, type=OptionType.BOOLEAN, description=self.description)

    def of(self, given: Mapping[str, str]) -> bool | None:
        """Return the value that a request gives it, or the default; raise ``InvalidOperationError``."""
        return self.read(given[self.name]) if self.name in given else self.default

    def read(self, text: str) -> bool:
        """Read the value; raise ``InvalidOperationError`` when it is neither true nor false."""
        value = text.strip().lower()
        if value not in {"true", "false"}:
            raise InvalidOperationError(f"The option {self.name!r} takes true or false, not {text!r}.")
        return value == "true"


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberOption:
    """An option whose value is a whole number from ``least`` to ``most``; ``None`` leaves it to the server."""

    name: str
    description: str
    default: int | None = None
    least: int = 0
    most: int = 2**31 - 1

    @property
    def spec(self) -> OptionSpec:
        """What the manager is told of it."""
        return OptionSpec(
            name=self.name,
            type=OptionType.INTEGER,
            description=self.description,
            minimum=self.least,
            maximum=self.most,
        )

    def of(self, given: Mapping[str, str]) -> int | None:
        """Return the value that a request gives it, or the default; raise ``InvalidOperationError``."""
        return self.read(given[self.name]) if self.name in given else self.default

    def read(self, text: str) -> int:
        """Read the value; raise ``InvalidOperationError`` when it is none or out of range."""
        digits = text.strip()
        if not (digits.isascii() and digits.removeprefix("-").isdigit()):
            raise InvalidOperationError(f"The option {self.name!r} takes a whole number, not {text!r}.")
        value = int(digits)
        if not self.least <= value <= self.most:
            raise InvalidOperationError(
                f"The option {self.name!r} takes {self.least} to {self.most}, and {value} is outside."
            )
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceOption:
    """An option whose value is one of a few words."""

    name: str
    description: str
    default: str
    choices: tuple[str, ...]

    @property
    def spec(self) -> OptionSpec:
        """What the manager is told of it."""
        return OptionSpec(
            name=self.name, type=OptionType.STRING, description=self.description, values=self.choices
        )

    def of(self, given: Mapping[str, str]) -> str:
        """Return the value that a request gives it, or the default; raise ``InvalidOperationError``."""
        return self.read(given[self.name]) if self.name in given else self.default

    def read(self, text: str) -> str:
        """Read the value, in any case; raise ``InvalidOperationError`` when it is not among the choices."""
        value = text.strip().lower()
        if value not in self.choices:
            raise InvalidOperationError(f"The option {self.name!r} takes {', '.join(self.choices)}, not {text!r}.")
        return value


WAIT = "wait"
FORMER_ATTEMPT = ChoiceOption(
    name="former_attempt",
    description="What to do with a statement that an earlier attempt left running in the server: cancel it, or "
    "wait for its end (default cancel).",
    default="cancel",
    choices=("cancel", WAIT),
)

Option = FlagOption | NumberOption | ChoiceOption


def refuse_unknown(engine: str, known: Iterable[Option], given: Iterable[str]) -> None:
    """Refuse names of options that there are not; raise ``InvalidOperationError``."""
    names = [option.name for option in known]
    for name in given:
        if name not in names:
            raise InvalidOperationError(unknown(engine, "option", name, names))


def unknown(engine: str, kind: str, name: str, known: Iterable[str]) -> str:
    """Word the refusal of an unknown name, with the nearest known one."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}."
    return f"{engine} has no {kind} {name!r}: {hint}"
