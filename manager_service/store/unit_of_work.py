"""One transaction: the statements of its commands, and what it owes to parent jobs and listeners at its end."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sqlalchemy import bindparam, insert, literal_column, select

from manager_service.domain.durations import Completion
from manager_service.domain.errors import ParentJobNotFoundError
from manager_service.domain.fleet import Timing
from manager_service.domain.model import Instant, Span
from manager_service.domain.ports import Hints, IdSource
from manager_service.store.errors import LostLeaseError
from manager_service.store.exclusion import Exclusion
from manager_service.store.parents import (
    PARENTS_OF_LEASES,
    SELECT_PARENTS,
    UPDATE_COUNTS,
    UPDATE_PARENT,
    ParentInWork,
    parent_in_work,
)
from manager_service.store.statements import Among, Changed, Connection, Rows, Statement
from manager_service.store.tables import events, is_ready, leases, queue, targets
from manager_service.store.turns import Turns

_INSERT_EVENT = Statement(insert(events))
LEASES_OF_CHILDREN = Statement(select(leases).where(Among(leases.c.child_id, "ids")))
# One seek for each target, however many heads it has.
TARGETS_READY = Statement(
    select(targets.c.name)
    .with_hint(targets, "INDEXED BY ix_targets_room")
    .where(
        Among(targets.c.name, "targets"),
        select(queue.c.child_id)
        .with_hint(queue, "INDEXED BY ix_queue_ready_operation")
        .where(queue.c.target == targets.c.name, queue.c.hold == literal_column("0"))
        # The order of one index: what only asks whether there is one is given any.
        .order_by(queue.c.operation, queue.c.rank)
        .limit(1)
        .correlate(targets)
        .scalar_subquery()
        .is_not(None),
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
    end, in the order of the ids. What is asked for is waited for when it is read, together with all that was asked
    for and posted meanwhile: where the database is far away, a verb asks first and reads then.

    Args:
        connection: runs the statements.
        exclusion: keeps other transactions apart.
        moment: tells the store's time; asked once.
        about: what that is about, where no waiting is worth its exactness.
        ids: where ids and chance come from.
        timing: the spans that leases live by.

    Attributes:
        alive: whether the mark of life is to be written with it.
    """

    def __init__(
        self,
        connection: Connection,
        exclusion: Exclusion,
        *,
        moment: Callable[[], Instant],
        about: Instant,
        ids: IdSource,
        timing: Timing,
    ) -> None:
        self.exclusion = exclusion
        self._moment = moment
        self._now: Instant | None = None
        self._about = about
        self.ids = ids
        self.timing = timing
        self._parents: dict[str, ParentInWork] = {}
        self._shared: set[str] = set()
        self._owned: set[str] = set()
        self._notes = [0]
        self._turns = Turns(connection)
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
        self._waiting: set[str] = set()
        self._completed: list[Completion] = []
        self._falls_due = False
        self._expected: list[tuple[Changed, Sequence[str]]] = []
        self.alive = False
        self.rows = connection.rows
        self.ask = connection.ask
        self.ask_many = connection.ask_many
        self.batches = connection.batches
        self.run = connection.run
        self.run_many = connection.run_many
        self.copy_many = connection.copy_many
        self.post = connection.post
        self.post_many = connection.post_many

    @property
    def now(self) -> Instant:
        """The store's time, the same for all that the transaction does."""
        if self._now is None:
            self._now = self._moment()
        return self._now

    @property
    def about_now(self) -> Instant:
        """What the store's time is about, where no waiting is worth its exactness; it, once it is known."""
        return self._about if self._now is None else self._now

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

    def ask_share(self, ids: Iterable[str]) -> Callable[[], set[str]]:
        """Share those of these parent jobs that nobody has for itself; return, when asked, all that are shared."""
        wanted = set(ids)
        new = set() if self.exclusion.alone else wanted - self._shared - self._owned
        if not new:
            return lambda: wanted
        got = self.exclusion.try_share_parents(sorted(new))
        read = self.ask(SELECT_PARENTS, ids=sorted(new))

        def shared() -> set[str]:
            self._now_shared(set(got()), read())
            return wanted - new | set(got())

        return shared

    def ask_leases(self, children: Sequence[str]) -> Rows:
        """Hold the live leases of children, with their parent jobs; return, when asked, what they are then."""
        if self.exclusion.alone:
            return self.ask(LEASES_OF_CHILDREN, ids=children)
        shared = self.exclusion.share_parents_of(children)
        held = self.exclusion.leases(children, wait=True)
        read = self.ask(PARENTS_OF_LEASES, ids=children)

        def leases_held() -> Sequence[Any]:
            parents = set(shared())
            self._now_shared(parents - self._shared - self._owned, read())
            # What was granted after the parent jobs were looked up is nobody's whom this transaction acts for.
            return [row for row in held() if row.parent_id in parents]

        return leases_held

    def _now_shared(self, ids: set[str], read: Sequence[Any]) -> None:
        """Take over what was read of parent jobs after they were shared."""
        self._forget_read(ids)
        self._shared |= ids
        for row in read:
            if row.id in ids:
                self.adopt(parent_in_work(row))

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

    def ask_turns(self) -> None:
        """Ask for the turns of the ranks, which are about to be needed."""
        self._turns.ask()

    def turn(self, rank: int) -> int:
        """Return the turn of the last grant of a rank."""
        return self._turns.of(rank)

    def fall_due(self) -> None:
        """Note that something falls due at a time of its own."""
        self._falls_due = True

    def granted(self, child_id: str, rank: int, turn: int) -> None:
        """Note that a head left the queue with a lease."""
        self._ready.pop(child_id, None)
        self._turns.granted(rank, turn)

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

    def completed(self, child_id: str, span: Span) -> None:
        """Note that a child completed, and how long its attempt took."""
        self._completed.append(Completion(child_job_id=child_id, span=span))

    def contended(self, targets: Iterable[str]) -> None:
        """Note targets with heads that a claim wanted while another transaction had them."""
        self._contended.update(targets)

    # The end.

    def expect(self, changed: Changed, leases: Sequence[str]) -> None:
        """Have the transaction fail if a statement did not end each of these leases."""
        self._expected.append((changed, leases))

    def flush(self) -> None:
        """Write what is owed to parent jobs and to the dispatch order.

        Raises:
            LostLeaseError: a lease was not there to be ended.
        """
        self.settle()
        waiting = self._ask_waiting()
        self._settle_shared()
        self._waiting = {target for rows in waiting for (target,) in rows()}
        for changed, ended in self._expected:
            if changed() != len(ended):
                raise LostLeaseError(ended)
        self._write_parents([self._parents[parent_id] for parent_id in sorted(self._parents)], self.now)
        self._turns.write()

    def _settle_shared(self) -> None:
        """Decide the state of parent jobs that other transactions change too, from what these committed."""
        shared = sorted(p.id for p in self._parents.values() if not p.exact and (p.touched or p.rewritten))
        if not shared:
            return
        for row in self.exclusion.counts(shared)():
            parent = self._parents[row.id]
            parent.catch_up(row)
            self._decide(parent)

    def _write_parents(self, parents: Sequence[ParentInWork], now: Instant) -> None:
        touched = [parent for parent in parents if parent.touched]
        rewritten = [parent for parent in parents if parent.rewritten]
        if touched:
            self._told_parents.update(parent.id for parent in touched)
            numbered = [event for parent in touched for event in parent.numbered_events(now)]
            self.post_many(_INSERT_EVENT, numbered)
            self.post_many(UPDATE_COUNTS, [parent.counts_row() for parent in touched])
        if rewritten:
            self.post_many(UPDATE_PARENT, [parent.row() for parent in rewritten])
        for parent in parents:
            parent.touched = parent.rewritten = False

    def hints(self) -> Hints:
        """Return what listeners are to look at. Called after ``flush``, before the commit."""
        ready = self._ready_targets + Counter(self._ready.values())
        for target in self._waiting.difference(ready):
            ready[target] = 1
        return Hints(
            parents=frozenset(self._told_parents),
            ready=dict(ready),
            contended=frozenset(self._contended.difference(ready)),
            sessions=frozenset(self._sessions),
            renewed=frozenset(self._renewed),
            logs=frozenset(self._ended_children),
            ending=frozenset(self._ending),
            due=self._falls_due,
            ended=tuple(
                parent_job
                for parent_id in sorted(self._told_parents & self._parents.keys())
                for parent_job in self._parents[parent_id].ends
            ),
            completed=tuple(self._completed),
        )

    def _ask_waiting(self) -> list[Rows]:
        """Ask for the targets with heads that waited for what was freed, but for those that are hinted already."""
        hinted = {*self._ready_targets, *self._ready.values()}
        asked = [self.ask(_PARENT_READY, parent_id=parent_id) for parent_id in sorted(self._freed_parents)]
        if freed := sorted(self._freed_targets.difference(hinted)):
            asked.append(self.ask(TARGETS_READY, targets=freed))
        return asked
