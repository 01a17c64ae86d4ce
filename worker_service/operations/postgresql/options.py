import difflib
from collections.abc import Iterable, Mapping, Sequence
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


Option = FlagOption | NumberOption | ChoiceOption


def lock_timeout(default: int) -> NumberOption:
    """Make the option that every operation has, with a default of its own."""
    return NumberOption(
        name="lock_timeout_ms",
        description=f"How long to wait for another session's lock, in ms; 0: for ever (default {default}).",
        default=default,
        most=86_400_000,
    )


COST_DELAY = NumberOption(
    name="cost_delay_ms",
    description="Rest so many milliseconds whenever a share of work is done (default: as the server is set).",
    most=100,
)
COST_LIMIT = NumberOption(
    name="cost_limit",
    description="How large that share is, in the server's own unit of cost (default: as the server is set).",
    least=1,
    most=10_000,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The values of an operation's options, defaults filled in."""

    flags: Mapping[str, bool | None]
    numbers: Mapping[str, int | None]
    words: Mapping[str, str]

    @property
    def lock_timeout_ms(self) -> int:
        """How long to wait for a lock; 0 is for ever."""
        return self.numbers.get("lock_timeout_ms") or 0


def read_options(known: Sequence[Option], given: Mapping[str, str]) -> Options:
    """Read the given texts against the known options.

    Raises:
        InvalidOperationError: an option is unknown, or its value is.
    """
    for name in given:
        if name not in {option.name for option in known}:
            raise InvalidOperationError(unknown("option", name, [option.name for option in known]))
    flags: dict[str, bool | None] = {}
    numbers: dict[str, int | None] = {}
    words: dict[str, str] = {}
    for option in known:
        text = given.get(option.name)
        match option:
            case FlagOption():
                flags[option.name] = option.default if text is None else option.read(text)
            case NumberOption():
                numbers[option.name] = option.default if text is None else option.read(text)
            case ChoiceOption():
                words[option.name] = option.default if text is None else option.read(text)
    return Options(flags=flags, numbers=numbers, words=words)


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Word the refusal of an unknown name, with the nearest known one."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}."
    return f"PostgreSQL has no {kind} {name!r}: {hint}"
