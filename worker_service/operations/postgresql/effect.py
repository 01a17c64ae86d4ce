from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from worker_service.domain.outcome import Verdict
from worker_service.operations.postgresql.catalog import CATALOGUES, Table
from worker_service.operations.postgresql.holders import Holder
from worker_service.operations.postgresql.verbose import Heard, Rows
from worker_service.operations.wording import count, listed

_MUCH_YOUNGER = 10_000
"""A table whose oldest row is by so many transactions younger than before was frozen to some purpose."""
_STILL_THERE = "remain: newer, or kept for a transaction that it takes pg_read_all_stats to see"


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What a sweep changed in the tables that it vacuumed, and the dead rows that are still there.

    ``in_catalogues`` are those of them that are in the system's catalogues.
    """

    removed: int = 0
    remaining: int = 0
    in_catalogues: int = 0
    shrunk: int = 0
    visible: int = 0
    frozen: int = 0
    rewritten: int = 0

    @classmethod
    def of(cls, pairs: Sequence[tuple[Table, Table]], heard: Heard) -> Self:
        """Compare the tables before and after; of dead rows VACUUM's own word goes before the counters."""
        rows = [heard.rows.get(old.name) or _counted(old, new) for old, new in pairs]
        return cls(
            removed=sum(one.removed for one in rows),
            remaining=sum(one.remaining for one in rows),
            in_catalogues=sum(
                one.remaining for (old, _), one in zip(pairs, rows, strict=True) if old.name.schema == CATALOGUES
            ),
            shrunk=sum(max(0, old.pages - new.pages) for old, new in pairs),
            visible=sum(max(0, new.all_visible - old.all_visible) for old, new in pairs),
            frozen=sum(old.age - new.age >= _MUCH_YOUNGER for old, new in pairs),
            rewritten=sum(old.file != new.file for old, new in pairs),
        )

    def told(self) -> list[str]:
        """Word each change; nothing when nothing changed."""
        parts = (
            (self.removed, "removed {}", "dead row", None),
            (self.shrunk, "gave back {}", "page", None),
            (self.visible, "{} became all-visible", "page", None),
            (self.frozen, "{} frozen", "table", None),
            (self.rewritten, "{} rewritten", "table", None),
        )
        return [text.format(count(number, noun, plural)) for number, text, noun, plural in parts if number]


def judged(effect: Effect, holders: Sequence[Holder]) -> tuple[Verdict, str]:
    """Say what a vacuum did, and why not more where older transactions kept rows from being removed."""
    told = ", ".join(effect.told())
    if not effect.remaining:
        return (Verdict.EFFECTIVE, told) if told else (Verdict.NO_EFFECT, "there was nothing to remove")
    held, named = _held(effect, holders)
    newer = effect.remaining - held
    still_there = [f"{count(newer, 'dead row')} {_STILL_THERE}"] if newer else []
    if not held:
        verdict = Verdict.EFFECTIVE if told else Verdict.NO_EFFECT
        return verdict, "; ".join(part for part in (told, *still_there) if part)
    rows = count(held, "dead row")
    because = [f"{rows} cannot be removed while older transactions may see them: {named}", *still_there]
    if effect.removed or effect.shrunk or effect.rewritten:
        return Verdict.PARTIALLY_EFFECTIVE, "; ".join([told, *because])
    return Verdict.NO_EFFECT, "; ".join(because)


def _held(effect: Effect, holders: Sequence[Holder]) -> tuple[int, str]:
    """Tell how many of the dead rows are kept, and for whom."""
    keeping = [one for one in holders if effect.in_catalogues or not one.catalogues_only]
    if not keeping:
        return 0, ""
    rows = effect.in_catalogues if all(one.catalogues_only for one in keeping) else effect.remaining
    return rows, listed([str(holder) for holder in keeping], 3)


def _counted(old: Table, new: Table) -> Rows:
    if old.file != new.file:
        return Rows(removed=0, remaining=0)  # the counters are not told of a rewrite
    return Rows(removed=max(0, old.dead_rows - new.dead_rows), remaining=new.dead_rows)
