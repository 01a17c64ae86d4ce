from collections.abc import Mapping, Sequence

from worker_service.operations.options import (
    FORMER_ATTEMPT,
    WAIT,
    ChoiceOption,
    FlagOption,
    NumberOption,
    Option,
    refuse_unknown,
)

ENGINE = "MariaDB"
Options = Mapping[str, int]
"""The values of an operation's options by name, defaults filled in: of a word its place among the choices."""

LOCK_TIMEOUT = NumberOption(
    name="lock_timeout_s",
    description="How long to wait for another connection's lock on a table, in seconds (default 5).",
    default=5,
    least=1,
    most=86_400,
)
BINLOG = FlagOption(
    name="binlog",
    description="Write the statement to the binary log, so that replicas run it too (default true).",
    default=True,
)
REBUILD = FlagOption(
    name="rebuild",
    description="Rebuild by ALTER TABLE ... FORCE, which needs ALTER, instead of OPTIMIZE TABLE (default false).",
)
ONLINE = FlagOption(
    name="online",
    description="Fail rather than keep writers waiting during a rebuild (default false).",
)


def waits_for_former_attempt(options: Options) -> bool:
    """Tell whether what an earlier attempt left running may come to its end."""
    return options.get(FORMER_ATTEMPT.name) == FORMER_ATTEMPT.choices.index(WAIT)


def read_options(known: Sequence[Option], given: Mapping[str, str]) -> Options:
    """Read the given texts against the known options; raise ``InvalidOperationError``."""
    refuse_unknown(ENGINE, known, given)
    return {option.name: _number(option, given) for option in known}


def _number(option: Option, given: Mapping[str, str]) -> int:
    match option:
        case ChoiceOption():
            return option.choices.index(option.of(given))
        case FlagOption() | NumberOption():
            return int(option.of(given) or 0)
