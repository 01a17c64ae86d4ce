"""One transaction: the statements of its commands, and what it owes to parent jobs and listeners at its end."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import bindparam, insert, literal_column, select, update

from manager_service.domain.errors import ParentJobNotFoundError
from manager_service.domain.fleet import Timing
from manager_service.domain.model import Instant
from manager_service.domain.ports import Hints, IdSource
from manager_service.store.exclusion import Exclusion
from manager_service.store.parents import (
    SELECT_PARENTS,
    UPDATE_COUNTS,
    UPDATE_PARENT,
    ParentInWork,
    parent_in_work,
)
from manager_service.store.statements import Among, Connection, Statement
from manager_service.store.tables import events, is_ready, queue, targets, turns

_INSERT_EVENT = Statement(insert(events))
_TURN = Statement(select(turns.c.turn).where(turns.c.rank == bindparam("rank")))
# A hint of where newcomers join: while another transaction sets it, that is good enough.
_SET_TURN = Statement(
    update(turns)
    .where(
        turns.c.rank.in_(
            select(turns.c.rank)
            .where(turns.c.rank == bindparam("of"), turns.c.turn < bindparam("turn"))
            .with_for_update(skip_locked=True)
        )
    )
    .values(turn=bindparam("turn"))
)
_INSERT_TURN = Statement(insert(turns))
# One seek for each target, however many heads it has.
TARGETS_READY = Statement(
    select(targets.c.name)
    .with_hint(targets, "INDEXED BY ix_targets_room")
    .where(
        Among(targets.c.name, "targets"),
        select(queue.c.child_id)
        .with_hint(queue, "INDEXED BY ix_queue_ready_target")
        .where(queue.c.target == targets.c.name, queue.c.hold == literal_column("0"))
        .correlate(targets)
        .exists(),
    )
)
_PARENT_READY = Statement(
    select(queue.c.target)
    .with_hint(queue, "INDEXED BY ix_queue_parent_id")
    .where(queue.c.parent_id == bindparam("parent_id"), is_ready)
    .limit(1)
)


class UnitOfWork:
    """What the commands of one transaction share.

    Changes of children are collected per parent job: its counts, its state and its events are written once, at the
    end, in the order of the ids. ``now`` is the same for all that the transaction does.
    """

    def __init__(
        self, connection: Connection, exclusion: Exclusion, *, now: Instant, ids: IdSource, timing: Timing
    ) -> None:
        self._connection = connection
        self.exclusion = exclusion
        self.now = now
        self.ids = ids
        self.timing = timing
        self._parents: dict[str, ParentInWork] = {}
        self._shared: set[str] = set()
        self._owned: set[str] = set()
        self._notes = [0]
        self._turns: dict[int, int] = {}
        self._granted_ranks: set[int] = set()
        self._ready: dict[str, str] = {}
        self._freed_targets: set[str] = set()
        self._freed_parents: set[str] = set()
        self._ended_children: set[str] = set()
        self._told_parents: set[str] = set()
        self._sessions: set[str] = set()
        self._renewed: set[str] = set()
        self._ending: set[str] = set()
        self._ready_targets: Counter[str] = Counter()
        self._contended: set[str] = set()
        self.rows = connection.rows
        self.batches = connection.batches
        self.run = connection.run
        self.run_many = connection.run_many
        self.copy_many = connection.copy_many
        self.post = connection.post
        self.post_many = connection.post_many

    @property
    def marks(self) -> int:
        """How much was noted in memory; a command that was refused must not have noted anything."""
        return (
            self._notes[0] + len(self._ready) + len(self._sessions) + len(self._ending) + len(self._ready_targets)
        )

    def row(self, statement: Statement, **given: Any) -> Any | None:
        """Run a statement and return its first row."""
        found = self.rows(statement, **given)
        return found[0] if found else None

    # Parent jobs.

    def parents(self, ids: Iterable[str]) -> dict[str, ParentInWork]:
        """Return parent jobs by id; the unknown ones are left out."""
        wanted = set(ids)
        missing = sorted(wanted - self._parents.keys())
        if missing:
            for row in self.rows(SELECT_PARENTS, ids=missing):
                self.adopt(parent_in_work(row))
        return {parent_id: self._parents[parent_id] for parent_id in wanted if parent_id in self._parents}

    def parent(self, parent_id: str) -> ParentInWork:
        """Return a parent job with its state decided; raise ``ParentJobNotFoundError``."""
        parent = self._parents.get(parent_id) or self.parents([parent_id]).get(parent_id)
        if parent is None:
            raise ParentJobNotFoundError(parent_id)
        self._decide(parent)
        return parent

    def share(self, ids: Iterable[str]) -> None:
        """Keep others from having these parent jobs for themselves; what was read of them before is read anew."""
        if not self.exclusion.alone and (new := set(ids) - self._shared - self._owned):
            self.exclusion.share_parents(sorted(new))
            self._forget_read(new)
            self._shared |= new

    def try_share(self, ids: Iterable[str]) -> set[str]:
        """Share those of these parent jobs that nobody has for itself; return all that are shared."""
        wanted = set(ids)
        if not self.exclusion.alone and (new := wanted - self._shared - self._owned):
            got = self.exclusion.try_share_parents(sorted(new))
            self._forget_read(got)
            self._shared |= got
            return wanted - new | got
        return wanted

    def own(self, parent_id: str) -> None:
        """Have a parent job for this transaction alone, so that what is read of it from now on stands."""
        if not self.exclusion.alone and parent_id not in self._owned:
            self.exclusion.own_parent(parent_id)
            self._now_owned(parent_id)

    def try_own(self, parent_id: str) -> bool:
        """Have a parent job for this transaction alone, unless others share it now."""
        if not self.exclusion.alone and parent_id not in self._owned:
            if not self.exclusion.try_own_parent(parent_id):
                return False
            self._now_owned(parent_id)
        return True

    def _now_owned(self, parent_id: str) -> None:
        if (read := self._parents.get(parent_id)) is not None and read.touched:
            raise AssertionError(parent_id)  # what was done to it as a shared one would be lost
        self._forget_read([parent_id])
        self._owned.add(parent_id)

    def _forget_read(self, ids: Iterable[str]) -> None:
        for parent_id in ids:
            self._parents.pop(parent_id, None)

    def adopt(self, parent: ParentInWork, *, made: bool = False) -> None:
        """Take in a parent job that this transaction read or makes."""
        parent.exact = made or self.exclusion.alone or parent.id in self._owned
        parent.notes = self._notes
        self._parents[parent.id] = parent

    def forget(self, parent_id: str) -> None:
        """Drop a parent job that this transaction deletes; watchers look, and find it gone."""
        self._parents.pop(parent_id, None)
        self._told_parents.add(parent_id)

    def settle(self) -> None:
        """Decide the state of every parent job that was touched so far."""
        for parent in self._parents.values():
            self._decide(parent)

    def _decide(self, parent: ParentInWork) -> None:
        if parent.decide(self.now):
            self._ending.add(parent.id)

    # The queue.

    def turn(self, rank: int) -> int:
        """Return the turn of the last grant of a rank."""
        if rank not in self._turns:
            row = self.row(_TURN, rank=rank)
            self._turns[rank] = row.turn if row else 0
        return self._turns[rank]

    def granted(self, child_id: str, rank: int, turn: int) -> None:
        """Note that a head left the queue with a lease."""
        self._ready.pop(child_id, None)
        if turn > self.turn(rank):
            self._turns[rank] = turn
            self._granted_ranks.add(rank)

    # Hints.

    def ready(self, child_id: str, target: str) -> None:
        """Note a head that became claimable."""
        self._ready[child_id] = target

    def ready_many(self, target: str, number: int = 1) -> None:
        """Note heads that became claimable, unless the same transaction grants them."""
        self._ready_targets[target] += number

    def freed(self, parent: ParentInWork, child_id: str, target: str) -> None:
        """Note the end of a lease: what waited for its target or its parent job's limit may go on."""
        self._ended_children.add(child_id)
        self._freed_targets.add(target)
        if parent.spec.max_parallel:
            self._freed_parents.add(parent.id)

    def to_sweep(self, parent: ParentInWork) -> None:
        """Note a parent job with pending children that will not start any more."""
        self._ending.add(parent.id)

    def tell_session(self, session_id: str) -> None:
        """Note that a session has a new directive or a lease to stop."""
        self._sessions.add(session_id)

    def renewed(self, session_id: str) -> None:
        """Note that a session registered anew."""
        self._renewed.add(session_id)

    def tell_log(self, child_id: str) -> None:
        """Note new log entries."""
        self._ended_children.add(child_id)

    def contended(self, targets: Iterable[str]) -> None:
        """Note targets with heads that a claim wanted while another transaction had them."""
        self._contended.update(targets)

    # The end.

    def flush(self) -> None:
        """Write what is owed to parent jobs and to the dispatch order."""
        self.settle()
        self._settle_shared()
        self._write_parents([self._parents[parent_id] for parent_id in sorted(self._parents)])
        for rank in sorted(self._granted_ranks):
            turn = self._turns[rank]
            if not self.run(_SET_TURN, of=rank, turn=turn) and self.row(_TURN, rank=rank) is None:
                self.run(_INSERT_TURN, rank=rank, turn=turn)
        self._granted_ranks.clear()

    def _settle_shared(self) -> None:
        """Decide the state of parent jobs that other transactions change too, from what these committed."""
        shared = sorted(p.id for p in self._parents.values() if not p.exact and (p.touched or p.rewritten))
        if not shared:
            return
        for row in self.exclusion.counts(shared):
            parent = self._parents[row.id]
            parent.catch_up(row)
            self._decide(parent)

    def _write_parents(self, parents: Sequence[ParentInWork]) -> None:
        touched = [parent for parent in parents if parent.touched]
        rewritten = [parent for parent in parents if parent.rewritten]
        if touched:
            self._told_parents.update(parent.id for parent in touched)
            numbered = [event for parent in touched for event in parent.numbered_events(self.now)]
            self.post_many(_INSERT_EVENT, numbered)
            self.post_many(UPDATE_COUNTS, [parent.counts_row() for parent in touched])
        if rewritten:
            self.post_many(UPDATE_PARENT, [parent.row() for parent in rewritten])
        for parent in parents:
            parent.touched = parent.rewritten = False

    def hints(self) -> Hints:
        """Return what listeners are to look at. Called after ``flush``, before the commit."""
        ready = self._ready_targets + Counter(self._ready.values())
        for target in self._waiting_targets(ready):
            ready[target] = 1
        return Hints(
            parents=frozenset(self._told_parents),
            ready=dict(ready),
            contended=frozenset(self._contended.difference(ready)),
            sessions=frozenset(self._sessions),
            renewed=frozenset(self._renewed),
            logs=frozenset(self._ended_children),
            ending=frozenset(self._ending),
        )

    def _waiting_targets(self, hinted: Collection[str]) -> set[str]:
        """Return the targets with heads that waited for what was freed, but for those that are hinted already."""
        waiting: set[str] = set()
        if freed := sorted(self._freed_targets.difference(hinted)):
            waiting.update(row.name for row in self.rows(TARGETS_READY, targets=freed))
        for parent_id in sorted(self._freed_parents):
            waiting.update(row.target for row in self.rows(_PARENT_READY, parent_id=parent_id))
        return waiting.difference(hinted)
