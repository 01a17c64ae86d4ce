"""The options of the operations: what the manager is told of them, and how their texts are read."""

import difflib
from collections.abc import Iterable, Mapping

from worker_service.domain.errors import InvalidOperationError
from worker_service.domain.operation import OptionSpec, OptionType

LEVEL = OptionSpec(
    name="level",
    type=OptionType.INTEGER,
    description="How hard to compress, from 1 (fast) to 9 (small); 6 by default.",
    minimum=1,
    maximum=9,
)
MIN_AGE = OptionSpec(
    name="min_age_s",
    type=OptionType.INTEGER,
    description="Leave files alone that were written to within so many seconds (default 3600).",
    minimum=0,
    maximum=10**9,
)
DEFAULTS = {LEVEL.name: 6, MIN_AGE.name: 3_600}


def read_options(known: Iterable[OptionSpec], given: Mapping[str, str]) -> Mapping[str, int]:
    """Read the texts of a request; raise ``InvalidOperationError``.

    The manager refuses them when a job is created, but may know another release of this engine.
    """
    specs = {spec.name: spec for spec in known}
    for name in given:
        if name not in specs:
            raise InvalidOperationError(unknown("option", name, specs))
    return {name: _read(spec, given[name]) if name in given else DEFAULTS[name] for name, spec in specs.items()}


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Word the refusal of a name, with the nearest known one."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names) or 'none'}."
    return f"The engine logfiles has no {kind} {name!r} here; {hint}"


def _read(spec: OptionSpec, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise InvalidOperationError(f"The option {spec.name!r} takes a whole number, not {text!r}.") from None
    if not (spec.minimum or 0) <= value <= (spec.maximum or value):
        raise InvalidOperationError(
            f"The option {spec.name!r} takes {spec.minimum} to {spec.maximum}, not {value}."
        )
    return value
