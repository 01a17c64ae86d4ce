from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from worker_service.operations.options import ChoiceOption, NumberOption, refuse_unknown

ENGINE = "SQLite"
Option = NumberOption | ChoiceOption

BUSY_TIMEOUT = NumberOption(
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
    """Read the given texts against the known options; raise ``InvalidOperationError``."""
    refuse_unknown(ENGINE, known, given)
    numbers: dict[str, int] = {}
    words: dict[str, str] = {}
    for option in known:
        match option:
            case NumberOption():
                numbers[option.name] = option.of(given) or 0
            case ChoiceOption():
                words[option.name] = option.of(given)
    return Options(numbers=numbers, words=words)
