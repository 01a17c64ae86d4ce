"""One life of a store: what its steps choose from, and how they are compared."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant

from manager_service.domain.leases import Heartbeat, HeldLease, Lease, Poll, ReleaseReason, Report
from manager_service.domain.model import Failure
from manager_service.domain.states import FailureCategory, Outcome, Verdict
from tests.property.ledger import OPEN_SESSION
from tests.property.rig import Rig

T = TypeVar("T")
_HOLDS_BACK = 3
Method = TypeVar("Method", bound=Callable[..., None])
calls: dict[str, tuple[int, dict[str, st.SearchStrategy[Any]]]] = {}


def call(weight: int, **arguments: st.SearchStrategy[Any]) -> Callable[[Method], Method]:
    """Make a method one of the machine's steps, as likely as its weight says.

    One rule chooses among them all: Hypothesis would switch off most of thirty rules in each example, and a life
    without polls or without reports shows nothing.
    """

    def note(method: Method) -> Method:
        calls[method.__name__] = (weight, arguments)
        return method

    return note


class Life(RuleBasedStateMachine):
    """A store and its oracle; ``opened`` is called with their rig, so that a test knows what was seen."""

    def __init__(self, new_url: Callable[[], str], opened: Callable[[Rig], None]) -> None:
        super().__init__()
        self.rig = Rig(new_url())
        self.number = 0
        # Whether both still agreed when they were last compared: what follows a disagreement tells nothing.
        self.whole = True
        opened(self.rig)

    def teardown(self) -> None:
        try:
            if self.whole:
                self.rig.check(everything=True)
        finally:
            self.rig.close()

    @invariant()
    def agree(self) -> None:
        """Whatever was called, the store shows what the oracle expects."""
        self.whole = False
        self.rig.check()
        self.whole = True

    # What rules choose from.

    def new_id(self) -> str:
        self.number += 1
        return str(UUID(int=self.number))

    def parent_id(self, number: int) -> str:
        """Return often a parent job with live leases, sometimes any, sometimes one that is gone."""
        parents = self.rig.oracle.parents.values()
        busy = [parent.id for parent in parents if parent.live]
        return pick(number, [*busy * 2, *[parent.id for parent in parents], *[self.rig.gone[-1]] * 2])

    def session_id(self, number: int) -> str:
        """Return mostly an open session, sometimes any, sometimes none."""
        sessions = self.rig.oracle.sessions.values()
        still_open = [session.id for session in sessions if session.state in OPEN_SESSION]
        return pick(number, [*still_open * 4, *[session.id for session in sessions], "no session"])

    def new_poll(self, session_id: str, most: int) -> Poll:
        last = max((poll.sequence for asked, poll in self.rig.polls if asked == session_id), default=0)
        return Poll(sequence=last + 1, max_leases=most)

    def is_live(self, lease: Lease) -> bool:
        child = self.rig.oracle.children.get(lease.child_job_id)
        return child is not None and child.lease is not None and child.lease.lease_id == lease.lease_id

    def live_leases(self, session_id: str) -> list[Lease]:
        return [lease for holder, lease in self.rig.granted if holder == session_id and self.is_live(lease)]

    def new_beat(self, session_id: str, leases: Sequence[Lease] | None = None, *, draining: bool = False) -> None:
        last = max((beat.sequence for beat in self.rig.beats if beat.session_id == session_id), default=0)
        listed = self.live_leases(session_id) if leases is None else leases
        held = tuple(HeldLease(lease_id=lease.lease_id, attempt=lease.attempt) for lease in listed)
        self.rig.heartbeat(
            Heartbeat(
                session_id=session_id,
                sequence=last + 1,
                draining=draining,
                leases=held,
                held_back=self.held_back(session_id, last + 1),
            )
        )

    def held_back(self, session_id: str, sequence: int) -> dict[str, str]:
        """Hold all targets of a session back with every sixth of its heartbeats, from the third on."""
        session = self.rig.oracle.sessions.get(session_id)
        if session is None or sequence % 6 != _HOLDS_BACK:
            return {}
        return dict.fromkeys(session.targets, "its owner throttles it")

    def new_report(
        self, lease: Lease, outcome: Outcome, *, retryable: bool = True, wait: int | None = None
    ) -> Report:
        self.number += 1
        failure = Failure(
            reason="SQLITE_BUSY", message="locked", category=FailureCategory.LOCKED, retryable=retryable
        )
        return Report(
            child_job_id=lease.child_job_id,
            lease_id=lease.lease_id,
            attempt=lease.attempt,
            report_id=f"report {self.number}",
            outcome=outcome,
            verdict=Verdict.EFFECTIVE if outcome is Outcome.COMPLETED else None,
            failure=failure if outcome is Outcome.FAILED else None,
            released=pick(self.number, list(ReleaseReason)) if outcome is Outcome.RELEASED else None,
            retry_after=wait,
        )


def pick(number: int, choices: Sequence[T]) -> T:
    return choices[number % len(choices)]
