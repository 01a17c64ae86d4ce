"""The protocol in plain Python: what every verb must answer, and how everything stands afterwards."""

from manager_service.domain.errors import TargetInUseError, TargetUnknownError, WorkerNotFoundError
from manager_service.domain.fleet import SessionState, WorkerDirective
from manager_service.domain.model import Instant, Span
from manager_service.domain.states import ChildJobState, ParentJobState, WaitReason
from tests.property.ledger import OPEN, OPEN_SESSION, Child, Session
from tests.property.oracle_leases import Leases, locks


class Oracle(Leases):
    """All verbs; those of operators here, with what operators see.

    Where the contract leaves the store a choice (which heads, which pending children first), the verb takes the
    store's choice and shows that it was an admissible one.
    """

    def worker(self, worker_name: str) -> Session:
        sessions = [session for session in self.sessions.values() if session.worker_name == worker_name]
        if not sessions:
            raise WorkerNotFoundError(worker_name)
        return max(sessions, key=lambda session: (session.create_time, session.id))

    def drain(self, worker_name: str, *, terminate: bool) -> None:
        session = self.worker(worker_name)
        if session.state in OPEN_SESSION:
            session.state = SessionState.DRAINING
            if terminate or session.directive is not WorkerDirective.TERMINATE:
                session.directive = WorkerDirective.TERMINATE if terminate else WorkerDirective.DRAIN

    def pause_target(self, target: str, *, paused: bool) -> None:
        if target not in self.targets:
            raise TargetUnknownError(target)
        if paused:
            self.paused_targets.add(target)
        else:
            self.paused_targets.discard(target)

    def forget_target(self, target: str) -> None:
        if target not in self.targets:
            raise TargetUnknownError(target)
        if names := self.serving(target):
            raise TargetInUseError(target, f"worker {names[0]} serves it")
        waiting = sum(child.target == target and child.state in OPEN for child in self.children.values())
        if waiting:
            raise TargetInUseError(target, f"{waiting} of its children have not ended")
        del self.targets[target]
        self.paused_targets.discard(target)
        for session in self.sessions.values():
            session.targets = {name: served for name, served in session.targets.items() if name != target}

    def prune_sessions(self, age: Span, got: int) -> None:
        gone = [session for session in self.sessions.values() if self._is_gone(session, self.now - age)]
        for session in gone:
            del self.sessions[session.id]
        self.seen["sessions pruned"] += len(gone)
        assert got == len(gone)

    def _is_gone(self, session: Session, before: Instant) -> bool:
        if session.state in OPEN_SESSION:
            before -= self.timing.lease_duration
        return session.heartbeat_time < before and not self.leases_of(session)

    # What operators see.

    def serving(self, target: str) -> list[str]:
        """Return the names of the live workers that serve a target."""
        return sorted({session.worker_name for session in self.sessions.values() if self._serves(session, target)})

    def _serves(self, session: Session, target: str) -> bool:
        alive = session.heartbeat_time >= self.now - self.timing.lease_duration
        return alive and session.state in OPEN_SESSION and target in session.targets

    def session_state(self, session: Session) -> SessionState:
        silent = self.now - session.heartbeat_time
        if session.state not in OPEN_SESSION:
            return session.state
        if silent > self.timing.lease_duration:
            return SessionState.LOST
        return SessionState.STALE if silent > 2 * self.timing.heartbeat_interval else session.state

    def wait_reason(self, child: Child) -> WaitReason | None:
        """Return why a pending child of a running parent job waits."""
        offers = [
            session
            for session in self.sessions.values()
            if session.state is SessionState.READY
            and self._serves(session, child.target)
            and child.operation in _offered(session, child.target)
        ]
        willing = [session for session in offers if child.target not in session.held_back]
        reasons = (
            (child.parent.paused, WaitReason.PARENT_PAUSED),
            (not child.is_head, WaitReason.PREDECESSOR),
            ((child.available or 0) > self.now, WaitReason.AVAILABLE_TIME),
            (child.target in self.paused_targets, WaitReason.TARGET_PAUSED),
            (not offers, WaitReason.NO_WORKER),
            (self.target_full(child.target) or self._locked(child, offers), WaitReason.TARGET_BUSY),
            (self.parent_full(child.parent), WaitReason.PARENT_LIMIT),
            (not any(self._has_room(session) for session in willing or offers), WaitReason.SLOTS_FULL),
            (not willing, WaitReason.THROTTLED),
        )
        reason = next((reason for applies, reason in reasons if applies), None)
        self.seen[f"wait: {reason}"] += 1
        return reason

    def _locked(self, child: Child, offers: list[Session]) -> bool:
        return bool(offers) and self.locked(locks(offers[0].targets[child.target].operations, child.operation))

    def _has_room(self, session: Session) -> bool:
        return session.slots > len(self.leases_of(session))

    def next_available(self) -> set[Span | None]:
        """Return how long until something falls due; the delayed heads of a cancelling parent job may count."""
        live: list[Instant] = []
        for child in self.live_children():
            held = self.held(child)
            live.append(held.expire_time)
            if child.state is ChildJobState.LEASED:
                live.append(held.accept_time + 2 * self.timing.heartbeat_interval)
        deadlines = [parent.deadline or 0 for parent in self.parents.values() if parent.end_time is None]
        live += [deadline for deadline in deadlines if deadline > self.now]
        going = [c.available or 0 for c in self.delayed() if c.parent.state is ParentJobState.RUNNING]
        all_delayed = [c.available or 0 for c in self.delayed()]
        return {self._until(live + going), self._until(live + all_delayed)}

    def _until(self, due: list[Instant]) -> Span | None:
        return max(0, min(due) - self.now + 1) if due else None


def _offered(session: Session, target: str) -> set[str]:
    return {offer.name for offer in session.targets[target].operations}
