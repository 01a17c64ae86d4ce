"""Which threshold counts for an operation on an object, and whether the operation is worth its while."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from manager_service.domain.conditions import Condition, ConditionError, condition
from manager_service.domain.model import Threshold

_ASKED = "only_if"
_OWN = "only_if of the target in its worker's file"
_PART = re.compile(r'"(?:[^"]|"")*"|[^."]+')


class PlanError(Exception):
    """What was found cannot become children; the message says what to do about the request."""


@dataclass(frozen=True, slots=True)
class _Ranked:
    threshold: Threshold
    source: str


class Thresholds:
    """The thresholds that may count on a target: a parent job's before those that the target's worker is set to.

    Args:
        asked: those of the parent job.
        own: those of the target; a parent job's, however general, goes before them.
        target: the target's name.
        known: the names that there are measures by.

    Raises:
        PlanError: one that was asked for has a name of which there is no measure.
    """

    def __init__(
        self, asked: Sequence[Threshold], own: Sequence[Threshold], *, target: str, known: frozenset[str]
    ) -> None:
        self._known = known
        here = [_Ranked(item, _ASKED) for item in _by_rank(asked) if item.target in ("", target)]
        self._ranked = (*here, *(_Ranked(item, _OWN) for item in _by_rank(own)))
        for ranked in here:
            self._refuse_unknown(ranked)
        # Those of a target are set once for all kinds of jobs: one is looked at when it counts for something.
        self._checked = set(here)

    def judge(self, name: str | None, measures: Mapping[str, float], operation: str) -> tuple[bool, str]:
        """Tell whether an operation is worth its while, and why; where no measure counts there is no reason.

        Raises:
            PlanError: one of the target's own is no condition, or has a name of which there is no measure.
        """
        ranked = self._of(name, operation)
        if ranked is None:
            return True, ""
        if ranked not in self._checked:
            self._refuse_unknown(ranked)
            self._checked.add(ranked)
        asked = condition(ranked.threshold.condition)
        origin = " (as the target's worker is set)" if ranked.source is _OWN else ""
        told = ": ".join(part for part in (f"only if {asked.text}{origin}", asked.told(measures)) if part)
        if not asked.holds(measures):
            return False, f"not worth its while, {told}"
        return True, told if asked.names else ""

    def _refuse_unknown(self, ranked: _Ranked) -> None:
        for name in _read(ranked).names:
            if name not in self._known:
                near = difflib.get_close_matches(name, sorted(self._known), n=1)
                hint = f"did you mean {near[0]}? There" if near else "there"
                raise PlanError(
                    f"{ranked.source} asks for {name!r}, which no object has a measure of; {hint} are: "
                    f"{', '.join(sorted(self._known)) or 'none'}"
                )

    def _of(self, name: str | None, operation: str) -> _Ranked | None:
        fitting = (
            ranked
            for ranked in self._ranked
            if ranked.threshold.operation in ("", operation) and fits(ranked.threshold.object, name)
        )
        return next(fitting, None)


def _by_rank(thresholds: Sequence[Threshold]) -> Iterator[Threshold]:
    """Yield the most specific first, and of equals the last."""
    order = sorted(
        enumerate(thresholds),
        key=lambda of: (bool(of[1].object), bool(of[1].target), bool(of[1].operation), of[0]),
        reverse=True,
    )
    return (item for _, item in order)


def _read(ranked: _Ranked) -> Condition:
    try:
        return condition(ranked.threshold.condition)
    except ConditionError as error:
        raise PlanError(f"{ranked.source} {error}") from error


def fits(pattern: str, name: str | None) -> bool:
    """Tell whether an object has a name that fits a pattern: the whole of it, or its last part, quoted or not."""
    if not pattern:
        return True
    return name is not None and any(fnmatchcase(text, pattern) for text in _spellings(name))


def _spellings(name: str) -> tuple[str, ...]:
    parts = [_unquoted(part) for part in _PART.findall(name)] or [name]
    return name, parts[-1], ".".join(parts)


def _unquoted(part: str) -> str:
    return part[1:-1].replace('""', '"') if part.startswith('"') else part
