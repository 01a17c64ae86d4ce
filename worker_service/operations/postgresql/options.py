from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from worker_service.operations.options import (
    FORMER_ATTEMPT,
    WAIT,
    ChoiceOption,
    FlagOption,
    NumberOption,
    Option,
    refuse_unknown,
)

ENGINE = "PostgreSQL"


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

MAINTENANCE_MEMORY = NumberOption(
    name="maintenance_work_mem_mb",
    description="Memory for dead rows or for building an index, in MB (default: as the server is set).",
    least=1,
    most=2_097_151,
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

    @property
    def waits_for_former_attempt(self) -> bool:
        """Whether what an earlier attempt left running may come to its end."""
        return self.words.get(FORMER_ATTEMPT.name) == WAIT


def read_options(known: Sequence[Option], given: Mapping[str, str]) -> Options:
    """Read the given texts against the known options; raise ``InvalidOperationError``."""
    refuse_unknown(ENGINE, known, given)
    flags: dict[str, bool | None] = {}
    numbers: dict[str, int | None] = {}
    words: dict[str, str] = {}
    for option in known:
        match option:
            case FlagOption():
                flags[option.name] = option.of(given)
            case NumberOption():
                numbers[option.name] = option.of(given)
            case ChoiceOption():
                words[option.name] = option.of(given)
    return Options(flags=flags, numbers=numbers, words=words)
