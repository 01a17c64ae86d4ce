"""A selection that takes nothing: most often a name that was mistyped, and then no maintenance at all."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice

from worker_service.domain.inspection import Inspection, Selection
from worker_service.domain.operation import Operation
from worker_service.domain.outcome import Outcome, Result

_NAMED = 3
_COMPARED = 1_000
"""So many names are looked at for one that is near: each comparison takes some ten microseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedSelection(Selection):
    """A selection that keeps the names of each object that it was asked about, and of those that it took."""

    asked: list[tuple[str, ...]] = field(default_factory=list, compare=False)
    taken: list[str] = field(default_factory=list, compare=False)

    def takes(self, *names: str) -> bool:
        """Tell whether an object is meant that has these names."""
        # The class is named because a dataclass with slots is not the one that `super` was compiled for.
        taken = Selection.takes(self, *names)
        self.asked.append(names)
        if taken:
            self.taken.append(names[0])
        return taken


def watched(operation: Operation) -> Operation:
    """Return an operation whose inspection, if it has one that chooses by name, keeps what it chose among."""
    inspection = operation.inspection
    if inspection is None or not inspection.selection.include:
        return operation
    chosen = inspection.selection
    selection = WatchedSelection(include=chosen.include, exclude=chosen.exclude)
    return replace(operation, inspection=replace(inspection, selection=selection))


def unless_nothing_fits(result: Result, inspection: Inspection | None) -> Result:
    """Return a result, as one of an inspection that is skipped where its selection takes nothing.

    Of several patterns those that fit nothing are told with what was found. A selection that was asked about no
    object says nothing, unless there is none: it does not apply to a database as a whole.
    """
    selection = None if inspection is None else inspection.selection
    if not isinstance(selection, WatchedSelection) or result.inspection is None:
        return result
    if selection.taken:
        unfit = tuple(pattern for pattern in selection.include if not _fits_some(pattern, selection))
        return replace(result, reason=f"{result.reason}; nothing fits {_quoted(unfit)}") if unfit else result
    if not selection.asked and result.inspection.objects:
        return result
    return replace(result, outcome=Outcome.SKIPPED, verdict=None, reason=_reason(selection), inspection=None)


def _fits_some(pattern: str, selection: WatchedSelection) -> bool:
    one = Selection(include=(pattern,))
    return any(one.takes(*names) for names in selection.asked)


def _reason(selection: WatchedSelection) -> str:
    included = Selection(include=selection.include)
    dropped = [names[0] for names in selection.asked if included.takes(*names)]
    patterns = _quoted(selection.include)
    if dropped:
        return f"all that fits {patterns} is excluded by {_quoted(selection.exclude)}: {_some(dropped)}"
    if not selection.asked:
        return f"nothing fits {patterns}, for there is nothing to choose from"
    if near := list(islice(_near(selection), _NAMED)):
        return f"nothing fits {patterns}; names like it are {', '.join(near)}"
    return f"nothing fits {patterns}; there are {_some(sorted(names[0] for names in selection.asked))}"


def _near(selection: WatchedSelection) -> Iterator[str]:
    """Yield the whole names of objects that look like what the first patterns are for, each once."""
    spelled = {name.lower(): names[0] for names in selection.asked[:_COMPARED] for name in reversed(names)}
    told: set[str] = set()
    for pattern in selection.include[:_NAMED]:
        for name in difflib.get_close_matches(pattern.lower().strip("*?"), spelled, n=_NAMED):
            if spelled[name] not in told:
                told.add(spelled[name])
                yield spelled[name]


def _quoted(patterns: tuple[str, ...]) -> str:
    return _some([repr(pattern) for pattern in patterns])


def _some(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")
