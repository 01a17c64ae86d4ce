"""Many children of one operation on one target, as one."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from manager_service.client.words import duration, spoken
from overhaul.v1 import job_pb2

MOST_SHOWN = 40
"""So many children are shown each by itself; of more only those that somebody has to look at."""

_REASONS = 3
_LOOKED_AT = frozenset({job_pb2.VERDICT_UNKNOWN, job_pb2.VERDICT_PARTIALLY_EFFECTIVE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The children of one operation on the objects of one target."""

    operation: str
    target: str
    children: Sequence[job_pb2.ChildJob]

    @property
    def result(self) -> str:
        """How many ended in which way, the most frequent first."""
        ways = Counter(
            ": ".join(part for part in (spoken(child, "state"), spoken(child, "verdict")) if part)
            for child in self.children
        )
        return ", ".join(f"{number} {way}" for way, number in ways.most_common())

    @property
    def reasons(self) -> Sequence[tuple[str, int]]:
        """Why several were left out, each reason with their number, the most frequent first."""
        skipped = (child.reason for child in self.children if child.state == job_pb2.CHILD_JOB_STATE_SKIPPED)
        return [(why, number) for why, number in Counter(skipped).most_common(_REASONS) if why and number > 1]

    @property
    def time(self) -> timedelta:
        """How long all of them took together."""
        return sum((duration(child) or timedelta() for child in self.children), timedelta())

    @property
    def sums(self) -> job_pb2.ChildJob:
        """The measures of all of them, added up: before and after of those that have both."""
        summed = job_pb2.ChildJob()
        for child in self.children:
            for name, value in child.after.items():
                summed.after[name] += value
                if name in child.before:
                    summed.before[name] += child.before[name]
        return summed


def gathered(children: Iterable[job_pb2.ChildJob]) -> tuple[Sequence[Group], Sequence[job_pb2.ChildJob]]:
    """Gather the children on objects, if there are many, and return the groups with those that are shown alone.

    Alone are shown what was done to no object, and the first of what failed or is not what it should be.
    """
    every = list(children)
    if len(every) <= MOST_SHOWN:
        return (), every
    members: dict[tuple[str, str], list[job_pb2.ChildJob]] = {}
    for child in every:
        if child.HasField("object"):
            members.setdefault((child.target, child.operation), []).append(child)
    groups = [
        Group(operation=operation, target=target, children=of_both)
        for (target, operation), of_both in members.items()
    ]
    whole = [child for child in every if not child.HasField("object")]
    looked_at = [child for child in every if child.HasField("object") and _is_looked_at(child)]
    return groups, [*whole, *looked_at[:MOST_SHOWN]]


def _is_looked_at(child: job_pb2.ChildJob) -> bool:
    return child.state == job_pb2.CHILD_JOB_STATE_FAILED or child.verdict in _LOOKED_AT
