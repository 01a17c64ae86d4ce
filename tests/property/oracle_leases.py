"""What workers may ask for, as the oracle understands it."""

from collections.abc import Mapping, Sequence

from manager_service.domain.attempts import Loss
from manager_service.domain.errors import (
    LogGapError,
    SessionSupersededError,
    TargetIdentityMismatchError,
)
from manager_service.domain.fleet import OfferedOperation, Registration, SessionState, WorkerDirective
from manager_service.domain.leases import (
    Heartbeat,
    HeartbeatAnswer,
    Lease,
    LeaseDirective,
    LogBatch,
    Poll,
    Report,
    ReportAnswer,
    ReportStatus,
)
from manager_service.domain.states import ChildJobState
from tests.property.ledger import OPEN_SESSION, Child, Held, Parent, Session
from tests.property.oracle_jobs import Jobs

STALE_KEPT = 8


class Leases(Jobs):
    """The verbs of ``LeaseVerbs``."""

    def register(self, registration: Registration, got: str) -> None:
        before = next((s for s in self.sessions.values() if s.instance_id == registration.instance_id), None)
        if before is not None and before.state is SessionState.SUPERSEDED:
            raise SessionSupersededError(before.worker_name)
        served = {target.name: target for target in registration.targets}
        for name in sorted(served.keys() & self.targets.keys()):
            known, given = self.targets[name].identity, served[name].identity
            if known != given:
                raise TargetIdentityMismatchError(name, known, given)
        for other in self.sessions.values():
            same_name = other.worker_name == registration.worker_name
            if same_name and other is not before and other.state in OPEN_SESSION:
                other.state, other.targets = SessionState.SUPERSEDED, {}
        self.targets.update(served)
        if before is not None and before.state in OPEN_SESSION:
            assert got == before.id
            before.slots, before.targets, before.heartbeat_time = registration.slots, served, self.now
            before.registration = registration
            return
        assert got not in self.sessions
        if before is not None:
            del self.sessions[before.id]
        self.sessions[got] = Session(
            id=got,
            worker_name=registration.worker_name,
            instance_id=registration.instance_id,
            slots=registration.slots,
            create_time=self.now,
            heartbeat_time=self.now,
            targets=served,
            registration=registration,
        )

    def deregister(self, session_id: str) -> None:
        session = self.sessions.get(session_id)
        if session is not None:
            self._lose([(child, Loss.CLOSED) for child in self.leases_of(session)])
            session.state, session.targets = SessionState.CLOSED, {}

    # Grants.

    def acquire(self, session_id: str, poll: Poll, got: Sequence[Lease]) -> None:
        session = self.open_session(session_id)
        if session.state is SessionState.SUPERSEDED:
            raise SessionSupersededError(session.worker_name)
        self._poll(session, poll, got)

    def _poll(self, session: Session, poll: Poll, got: Sequence[Lease]) -> None:
        if poll.sequence < max(session.seen, session.granted):
            self.seen["a lower poll"] += 1
            assert not got, f"a lower poll was granted {got}"
            return
        session.seen = poll.sequence
        if poll.sequence == session.granted:
            self.seen["a repeated poll"] += 1
            live = [c for c in self.leases_of(session) if self.held(c).poll_sequence == poll.sequence]
            assert {lease.lease_id for lease in got} == {self.held(child).lease_id for child in live}
            for lease in got:
                _check_lease(
                    self.children[lease.child_job_id], lease, self.held(self.children[lease.child_job_id])
                )
        elif session.state is not SessionState.READY:
            assert not got
        else:
            self._check_grants(session, poll, got)

    def _check_grants(self, session: Session, poll: Poll, got: Sequence[Lease]) -> None:
        """Show that each grant was admissible and the most urgent, and that no admissible one was held back."""
        wanted = min(poll.max_leases, session.slots - len(self.leases_of(session)))
        assert len(got) <= max(0, wanted)
        for lease in got:
            admissible = self.admissible(session)
            child = self.children[lease.child_job_id]
            assert child in admissible, f"{child} was granted to {session}"
            assert child.parent.spec.priority == max(head.parent.spec.priority for head in admissible)
            self._grant(session, poll, child, lease)
        left = self.admissible(session) if len(got) < wanted else []
        assert not left, f"{left} could have been granted to {session}"

    def _grant(self, session: Session, poll: Poll, child: Child, lease: Lease) -> None:
        assert lease.lease_id not in self.lease_ids
        self.lease_ids.add(lease.lease_id)
        child.attempts += 1
        child.lease = Held(
            lease_id=lease.lease_id,
            attempt=child.attempts,
            session_id=session.id,
            worker_name=session.worker_name,
            poll_sequence=poll.sequence,
            accept_time=self.now + self.timing.accept_within,
            expire_time=self.now + self.timing.lease_duration,
            locks=locks(session.targets[child.target].operations, child.operation),
        )
        _check_lease(child, lease, child.lease)
        session.granted = poll.sequence
        if child.parent.start_time is None:
            child.parent.start_time = self.now
        self.seen["grant"] += 1
        self.move(child, ChildJobState.LEASED)

    def admissible(self, session: Session) -> list[Child]:
        return [child for child in self.children.values() if self._may_go(session, child)]

    def _may_go(self, session: Session, child: Child) -> bool:
        parent, served = child.parent, session.targets.get(child.target)
        if served is None or child.operation not in {offer.name for offer in served.operations}:
            return False
        if child.target in session.held_back:
            return False
        return (
            self.enters_queue(child)
            and not child.delayed
            and (parent.deadline is None or parent.deadline > self.now)
            and child.target not in self.paused_targets
            and not self.target_full(child.target)
            and not self.parent_full(parent)
            and not self.locked(locks(served.operations, child.operation))
        )

    def target_full(self, target: str) -> bool:
        live = sum(child.target == target for child in self.live_children())
        return target in self.targets and live >= max(1, self.targets[target].max_parallel)

    def parent_full(self, parent: Parent) -> bool:
        return bool(parent.spec.max_parallel) and parent.live >= parent.spec.max_parallel

    def locked(self, wanted: Mapping[str, bool]) -> bool:
        held = [self.held(child).locks for child in self.live_children()]
        return any(key in keys and (exclusive or keys[key]) for keys in held for key, exclusive in wanted.items())

    # Signs of life.

    def heartbeat(self, beat: Heartbeat, got: HeartbeatAnswer) -> None:
        session = self.open_session(beat.session_id)
        own = {(self.held(c).lease_id, self.held(c).attempt): c for c in self.leases_of(session)}
        listed = [own.get((held.lease_id, held.attempt)) for held in beat.leases]
        directive = WorkerDirective.TERMINATE if session.state is SessionState.SUPERSEDED else session.directive
        expected = HeartbeatAnswer(
            leases=tuple(self._directive(child) for child in listed),
            directive=directive,
            accepted=tuple((c.parent.id, c.id, self.held(c).lease_id) for c in listed if c is not None),
        )
        self.seen[f"worker: {directive}"] += 1
        assert got == expected
        if beat.sequence <= session.heartbeats:
            self.seen["an older heartbeat"] += 1
            return
        session.heartbeats, session.heartbeat_time = beat.sequence, self.now
        session.held_back = frozenset(beat.held_back)
        if session.state in OPEN_SESSION:
            drains = beat.draining or session.directive is not WorkerDirective.NONE
            session.state = SessionState.DRAINING if drains else SessionState.READY
        for child in {child.id: child for child in listed if child is not None}.values():
            self._renew(child)
        self._take_back([child for child in own.values() if child not in listed])

    def _directive(self, child: Child | None) -> LeaseDirective:
        directive = LeaseDirective.LOST
        if child is not None:
            directive = LeaseDirective.CANCEL if self.held(child).stop else LeaseDirective.CONTINUE
        self.seen[f"lease: {directive}"] += 1
        return directive

    def _renew(self, child: Child) -> None:
        held = self.held(child)
        held.expire_time, held.missed, held.graced = self.now + self.timing.lease_duration, 0, False
        if child.state is ChildJobState.LEASED:
            self.move(child, ChildJobState.RUNNING)

    def _take_back(self, unlisted: list[Child]) -> None:
        lost = []
        for child in unlisted:
            held = self.held(child)
            if child.state is ChildJobState.LEASED:
                if held.accept_time < self.now:
                    lost.append((child, Loss.UNACCEPTED))
            elif held.missed:
                lost.append((child, Loss.UNLISTED))
            else:
                held.missed = 1
        self._lose(lost)

    def _lose(self, lost: Sequence[tuple[Child, Loss]]) -> None:
        for child, loss in lost:
            self.end_by_loss(child, loss)
        for child, _ in lost:
            self.settle(child.parent)

    def expire(self, limit: int, got: int, live_now: set[str]) -> None:
        """Take back as many leases as the store did, whichever of those that ran out it took."""
        due = {child: loss for child in self.live_children() if (loss := self._ran_out(child))}
        assert got == min(limit, len(due)), f"{got} leases were taken back, though {due} ran out"
        taken = [(child, loss) for child, loss in due.items() if child.id not in live_now]
        assert len(taken) == got
        self._lose(taken)

    def _ran_out(self, child: Child) -> Loss | None:
        held = self.held(child)
        if child.state is ChildJobState.RUNNING:
            return Loss.EXPIRED if held.expire_time < self.now else None
        silent = held.accept_time + 2 * self.timing.heartbeat_interval
        return Loss.UNACCEPTED if min(silent, held.expire_time) < self.now else None

    # Reports.

    def report(self, session_id: str, reports: Sequence[Report], poll: Poll | None, got: ReportAnswer) -> None:
        session = self.open_session(session_id)
        fits = [self._fits(session, item, reports[:index]) for index, item in enumerate(reports)]
        ended = [self.children[item.child_job_id] for item, fit in zip(reports, fits, strict=True) if fit]
        for item, fit in zip(reports, fits, strict=True):
            if fit:
                self.end_by_report(self.children[item.child_job_id], item)
        for child in ended:
            self.settle(child.parent)
        statuses = tuple(
            ReportStatus.RECORDED if fit else self._late(item) for item, fit in zip(reports, fits, strict=True)
        )
        for status in statuses:
            self.seen[f"report: {status}"] += 1
        assert got.statuses == statuses, f"expected {statuses}"
        if poll is None:
            assert not got.leases
        else:
            self._poll(session, poll, got.leases)

    def _fits(self, session: Session, item: Report, before: Sequence[Report]) -> bool:
        child = self.children.get(item.child_job_id)
        if child is None or child.lease is None:
            return False
        if any(_fence(earlier) == _fence(item) for earlier in before):
            return False
        held = child.lease
        return (held.lease_id, held.attempt, held.session_id) == (item.lease_id, item.attempt, session.id)

    def _late(self, item: Report) -> ReportStatus:
        child = self.children.get(item.child_job_id)
        if child is None:
            return ReportStatus.STALE
        if child.ended.get(item.attempt) == (item.lease_id, item.report_id, item.outcome):
            return ReportStatus.ALREADY_RECORDED
        if 1 <= item.attempt <= child.attempts:
            kept = child.stale.setdefault(item.attempt, [])
            if item.report_id not in kept and len(kept) < STALE_KEPT:
                kept.append(item.report_id)
            self.touch(child)
        return ReportStatus.STALE

    def append_logs(self, batch: LogBatch, got: int | None) -> None:
        session, child = self.open_session(batch.session_id), self.children.get(batch.child_job_id)
        fence = (batch.lease_id, batch.attempt, session.id)
        held = child.lease if child is not None else None
        if child is None or held is None or (held.lease_id, held.attempt, held.session_id) != fence:
            self.seen["logs: lost"] += 1
            assert got is None
            return
        stored = child.logs[batch.attempt]
        if batch.offset > stored:
            raise LogGapError(stored)
        self.touch(child)
        child.logs[batch.attempt] = max(stored, batch.offset + len(batch.entries))
        assert got == child.logs[batch.attempt]


def locks(offers: Sequence[OfferedOperation], operation: str) -> Mapping[str, bool]:
    merged: dict[str, bool] = {}
    for lock in next(offer for offer in offers if offer.name == operation).locks:
        merged[lock.key] = merged.get(lock.key, False) or lock.exclusive
    return merged


def _fence(item: Report) -> tuple[str, str, int]:
    return (item.child_job_id, item.lease_id, item.attempt)


def _check_lease(child: Child, lease: Lease, held: Held) -> None:
    assert (lease.lease_id, lease.attempt) == (held.lease_id, held.attempt)
    assert (lease.child_job_id, lease.parent_job_id) == (child.id, child.parent.id)
    assert (lease.target, lease.operation) == (child.target, child.operation)
    assert lease.timeout == child.parent.spec.timeout
