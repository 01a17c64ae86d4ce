"""Which statements of maintenance met in a database, by what its server wrote down of them."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A statement of one attempt of a child job, from its beginning to its end in the server.

    ``tables`` are those that it works on, with the parts of a partitioned one; ``None`` is the whole database.
    The times are seconds of the server's clock. ``well`` tells whether it ended without an error.
    """

    child: str
    attempt: int
    database: str
    tables: frozenset[str] | None
    text: str
    begin: float
    end: float
    well: bool = True

    def __str__(self) -> str:
        return f"{self.begin:.6f} to {self.end:.6f}: {self.child} attempt {self.attempt}: {self.text}"


def overlaps(works: Iterable[Work], whole: Collection[str] = ()) -> list[tuple[Work, Work]]:
    """Find what two attempts did to one table at the same time, the earlier first.

    Args:
        works: the statements.
        whole: the child jobs that are done to a whole database: nobody may do anything there from the first of
            their statements to the last.
    """
    spans = _spans(work for work in works if work.child in whole)
    parts = [work for work in works if work.child not in whole]
    ordered = sorted([*spans, *parts], key=lambda work: work.begin)
    return [(one, other) for one, other in combinations(ordered, 2) if _meet(one, other)]


def _spans(works: Iterable[Work]) -> Iterator[Work]:
    found: dict[tuple[str, int], Work] = {}
    for work in works:
        key = (work.child, work.attempt)
        known = found.get(key, work)
        begin, end = min(known.begin, work.begin), max(known.end, work.end)
        found[key] = replace(known, tables=None, begin=begin, end=end)
    yield from found.values()


def _meet(one: Work, other: Work) -> bool:
    if one.database != other.database or (one.child, one.attempt) == (other.child, other.attempt):
        return False
    if other.begin >= one.end:
        return False
    return one.tables is None or other.tables is None or bool(one.tables & other.tables)
