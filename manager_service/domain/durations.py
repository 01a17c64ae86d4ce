"""How long operations took, and what that says of the next one. Spans are microseconds, sizes bytes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median_high

from manager_service.domain.model import PlannedChild, Span

# How many durations are kept of an operation on an object: enough that one that was out of the ordinary does not
# count, and few enough that the third one of a kind does.
KEPT = 5

# An operation, and the object of a target that it is done to; ``None`` is the whole database.
Doing = tuple[str, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A child that completed, and how long it took from the grant of its lease to the report."""

    child_job_id: str
    span: Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What an operation on an object is expected to take.

    Attributes:
        span: the median of the last durations.
        longest: the longest of them, for who has to be sure.
        completions: how many there ever were.
    """

    span: Span
    longest: Span
    completions: int


def learned(known: Sequence[Span], new: Iterable[Span]) -> tuple[Span, ...]:
    """Return the durations to be kept of an operation on an object, the newest last."""
    return (*known, *new)[-KEPT:]


def expectation(kept: Sequence[Span], completions: int) -> Expectation:
    """Return what is to be expected after these durations, of which there is at least one."""
    return Expectation(span=median_high(kept), longest=max(kept), completions=completions)


def weights(sizes: Mapping[Doing, int], expected: Mapping[Doing, Span]) -> dict[Doing, int]:
    """Return how much there is to do, on one scale, so that the largest can go first.

    That is what it is expected to take. Where nothing was learned of an object, each of its bytes is expected to
    take as long as those of the others do, by the same operation if possible. Where nothing was learned of any, it
    is the size.

    Args:
        sizes: what is to be done, and how large the objects are; 0 is unknown.
        expected: what was learned of some of it, and perhaps of more.
    """
    known = [key for key in sizes if key in expected]
    if not known:
        return dict(sizes)
    by_operation: dict[str, list[Doing]] = {}
    for key in known:
        by_operation.setdefault(key[0], []).append(key)
    pace = _pace(known, sizes, expected)
    paces = {operation: _pace(keys, sizes, expected) or pace for operation, keys in by_operation.items()}
    return {key: expected.get(key, round(size * paces.get(key[0], pace))) for key, size in sizes.items()}


def _pace(keys: Iterable[Doing], sizes: Mapping[Doing, int], expected: Mapping[Doing, Span]) -> float:
    """Return how long a byte takes; 0 where no size is known."""
    measured = [key for key in keys if sizes[key]]
    return sum(expected[key] for key in measured) / sum(sizes[key] for key in measured) if measured else 0.0


def largest_first(children: Sequence[PlannedChild]) -> tuple[PlannedChild, ...]:
    """Put the children of the largest lanes first; those of one lane keep their order, and run in it."""
    lanes: dict[str, int] = {}
    for child in children:
        lanes[child.lane] = lanes.get(child.lane, 0) + child.size
    return tuple(sorted(children, key=lambda child: -lanes[child.lane]))
