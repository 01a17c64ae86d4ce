"""The options of VACUUM: how they are told, which exclude each other, and which releases know them."""

from worker_service.domain.errors import InvalidOperationError
from worker_service.domain.outcome import Failure, FailureCategory
from worker_service.operations.options import ChoiceOption, FlagOption, NumberOption
from worker_service.operations.postgresql.options import Options

FULL = FlagOption(
    name="full", description="Rewrite each table, which locks everybody out meanwhile (default false)."
)
FREEZE = FlagOption(
    name="freeze", description="Freeze every row, against transaction-id wraparound (default false)."
)
ANALYZE = FlagOption(name="analyze", description="Renew the statistics as well (default false).")
SKIP_LOCKED = FlagOption(name="skip_locked", description="Pass over tables that are locked (default false).")
TRUNCATE = FlagOption(
    name="truncate",
    description="Give empty pages at a table's end back (default: as the table is set).",
    default=None,
)
INDEX_CLEANUP = ChoiceOption(
    name="index_cleanup",
    description="Whether dead entries of indexes are removed: auto, on or off (default auto).",
    default="auto",
    choices=("auto", "on", "off"),
)
PARALLEL = NumberOption(
    name="parallel", description="Processes for one table's indexes (default: as the server chooses).", most=1024
)
NO_SKIPPING = FlagOption(
    name="disable_page_skipping",
    description="Read also the pages that need no work, where the visibility map is in doubt (default false).",
)
PROCESS_TOAST = FlagOption(
    name="process_toast", description="Vacuum a table's long values with it (default true).", default=True
)
PROCESS_MAIN = FlagOption(
    name="process_main",
    description="Vacuum the table itself; false leaves its long values alone to do (default true; false: 16+).",
    default=True,
)
BUFFER_LIMIT = NumberOption(
    name="buffer_usage_limit_kb",
    description="How many kB of shared buffers it may use, 0 or from 128 on; 0: no limit (default: as the server "
    "is set; 16+).",
    most=16_777_216,
)
OPTIONS = (
    FULL,
    FREEZE,
    ANALYZE,
    SKIP_LOCKED,
    TRUNCATE,
    INDEX_CLEANUP,
    PARALLEL,
    NO_SKIPPING,
    PROCESS_TOAST,
    PROCESS_MAIN,
    BUFFER_LIMIT,
)
_LEAST_BUFFERS = 128
_SINCE = {PROCESS_MAIN.name: 16, BUFFER_LIMIT.name: 16}
"""The first release that knows an option."""
_VERSION_16 = 160_000


def refuse_together(options: Options) -> None:
    """Refuse what the server would refuse for every table; raise ``InvalidOperationError``."""
    flags, numbers = options.flags, options.numbers
    if 0 < (numbers[BUFFER_LIMIT.name] or 0) < _LEAST_BUFFERS:
        raise InvalidOperationError(
            f"The option {BUFFER_LIMIT.name!r} takes 0 or {_LEAST_BUFFERS} to {BUFFER_LIMIT.most}, and "
            f"{numbers[BUFFER_LIMIT.name]} is outside."
        )
    if not flags[PROCESS_MAIN.name] and not flags[PROCESS_TOAST.name]:
        raise InvalidOperationError(
            f"The options {PROCESS_MAIN.name!r} and {PROCESS_TOAST.name!r} are both false, which leaves nothing "
            "to vacuum: leave one out."
        )
    if flags[FULL.name]:
        _refuse_with_full(options)


def too_new(options: Options, version: int) -> Failure | None:
    """Tell which option the server's release does not know, and which release does."""
    asked = {
        PROCESS_MAIN.name: not options.flags[PROCESS_MAIN.name],
        BUFFER_LIMIT.name: options.numbers[BUFFER_LIMIT.name] is not None,
    }
    own = version // 10_000
    for name, since in _SINCE.items():
        if asked[name] and own < since:
            return Failure(
                reason="NOT_SUPPORTED",
                message=f"The option {name!r} needs PostgreSQL {since} or later, and this server is {own}: "
                "leave it out.",
                category=FailureCategory.INVALID,
                retryable=False,
            )
    return None


def words(options: Options, version: int) -> list[str]:
    """Word the options for a server of that release; what is as the server has it is not said."""
    flags, numbers = options.flags, options.numbers
    given = [
        (flags[FULL.name], "FULL"),
        (flags[FREEZE.name], "FREEZE"),
        (flags[ANALYZE.name], "ANALYZE"),
        (flags[SKIP_LOCKED.name], "SKIP_LOCKED"),
        (flags[NO_SKIPPING.name], "DISABLE_PAGE_SKIPPING"),
        (flags[TRUNCATE.name] is not None, f"TRUNCATE {str(flags[TRUNCATE.name]).lower()}"),
        (options.words[INDEX_CLEANUP.name] != "auto", f"INDEX_CLEANUP {options.words[INDEX_CLEANUP.name]}"),
        (numbers[PARALLEL.name] is not None, f"PARALLEL {numbers[PARALLEL.name]}"),
        (not flags[PROCESS_TOAST.name], "PROCESS_TOAST false"),
        (not flags[PROCESS_MAIN.name], "PROCESS_MAIN false"),
        (numbers[BUFFER_LIMIT.name] is not None, f"BUFFER_USAGE_LIMIT {numbers[BUFFER_LIMIT.name]}"),
        (version >= _VERSION_16, "SKIP_DATABASE_STATS"),
    ]
    return ["VERBOSE", *(word for is_given, word in given if is_given)]


def _refuse_with_full(options: Options) -> None:
    flags, numbers = options.flags, options.numbers
    for name, excluded in (
        (PARALLEL.name, bool(numbers[PARALLEL.name])),
        (NO_SKIPPING.name, flags[NO_SKIPPING.name]),
        (PROCESS_TOAST.name, not flags[PROCESS_TOAST.name]),
    ):
        if excluded:
            raise InvalidOperationError(f"The option {name!r} does not go with full: leave one out.")
    if numbers[BUFFER_LIMIT.name] is not None and not flags[ANALYZE.name]:
        raise InvalidOperationError(
            f"The option {BUFFER_LIMIT.name!r} does not go with full unless analyze is on: leave one out."
        )
