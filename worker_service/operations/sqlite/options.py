import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from worker_service.domain.errors import InvalidOperationError
from worker_service.domain.operation import OptionSpec, OptionType


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegerOption:
    """An option whose value is a whole number from ``least`` to ``most``."""

    name: str
    description: str
    default: int
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

    def read(self, text: str) -> str:
        """Read the value, in any case; raise ``InvalidOperationError`` when it is not among the choices."""
        value = text.strip().lower()
        if value not in self.choices:
            raise InvalidOperationError(f"The option {self.name!r} takes {', '.join(self.choices)}, not {text!r}.")
        return value


Option = IntegerOption | ChoiceOption

BUSY_TIMEOUT = IntegerOption(
    name="busy_timeout_ms",
    description="How long to wait for another application's lock, in milliseconds (default 5000).",
    default=5_000,
    most=3_600_000,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The values of an operation's options, defaults filled in, and the object it is done to, if it is one."""

    numbers: Mapping[str, int]
    words: Mapping[str, str]
    object: str | None = None


def read_options(known: Sequence[Option], given: Mapping[str, str]) -> Options:
    """Read the given texts against the known options.

    Raises:
        InvalidOperationError: an option is unknown, or its value is.
    """
    for name in given:
        if name not in {option.name for option in known}:
            raise InvalidOperationError(unknown("option", name, [option.name for option in known]))
    numbers: dict[str, int] = {}
    words: dict[str, str] = {}
    for option in known:
        text = given.get(option.name)
        match option:
            case IntegerOption():
                numbers[option.name] = option.default if text is None else option.read(text)
            case ChoiceOption():
                words[option.name] = option.default if text is None else option.read(text)
    return Options(numbers=numbers, words=words)


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Word the refusal of an unknown name, with the nearest known one."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}."
    return f"SQLite has no {kind} {name!r}: {hint}"
