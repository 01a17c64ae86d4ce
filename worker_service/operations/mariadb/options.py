import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from worker_service.domain.errors import InvalidOperationError
from worker_service.domain.operation import OptionSpec, OptionType

_TRUE, _FALSE = frozenset({"true", "yes", "on", "1"}), frozenset({"false", "no", "off", "0"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """An option that is true or false."""

    name: str
    description: str
    default: bool = False

    @property
    def spec(self) -> OptionSpec:
        """What the manager is told of it."""
        return OptionSpec(name=self.name, type=OptionType.BOOLEAN, description=self.description)

    def read(self, text: str) -> int:
        """Read the value as 1 or 0; raise ``InvalidOperationError`` when it is neither true nor false."""
        word = text.strip().lower()
        if word not in _TRUE | _FALSE:
            raise InvalidOperationError(f"The option {self.name!r} takes true or false, not {text!r}.")
        return int(word in _TRUE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """An option whose value is a whole number from ``least`` to ``most``."""

    name: str
    description: str
    default: int
    least: int
    most: int

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
class Choice:
    """An option whose value is one of a few words; it is read as the word's place among them."""

    name: str
    description: str
    words: tuple[str, ...]
    default: int = 0

    @property
    def spec(self) -> OptionSpec:
        """What the manager is told of it."""
        return OptionSpec(name=self.name, type=OptionType.STRING, description=self.description, values=self.words)

    def read(self, text: str) -> int:
        """Read the value, in any case; raise ``InvalidOperationError`` when it is not among the words."""
        word = text.strip().lower()
        if word not in self.words:
            raise InvalidOperationError(f"The option {self.name!r} takes {', '.join(self.words)}, not {text!r}.")
        return self.words.index(word)


Option = Flag | Number | Choice
Options = Mapping[str, int]
"""The values of an operation's options by name, defaults filled in."""

LOCK_TIMEOUT = Number(
    name="lock_timeout_s",
    description="How long to wait for another connection's lock on a table, in seconds (default 5).",
    default=5,
    least=1,
    most=86_400,
)
BINLOG = Flag(
    name="binlog",
    description="Write the statement to the binary log, so that replicas run it too (default true).",
    default=True,
)
REBUILD = Flag(
    name="rebuild",
    description="Rebuild by ALTER TABLE ... FORCE, which needs ALTER, instead of OPTIMIZE TABLE (default false).",
)
ONLINE = Flag(
    name="online",
    description="Fail rather than keep writers waiting during a rebuild (default false).",
)


def read_options(known: Sequence[Option], given: Mapping[str, str]) -> Options:
    """Read the given texts against the known options.

    Raises:
        InvalidOperationError: an option is unknown, or its value is.
    """
    for name in given:
        if name not in {option.name for option in known}:
            raise InvalidOperationError(unknown("option", name, [option.name for option in known]))
    return {
        option.name: int(option.default) if option.name not in given else option.read(given[option.name])
        for option in known
    }


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Word the refusal of an unknown name, with the nearest known one."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}."
    return f"MariaDB has no {kind} {name!r}: {hint}"
