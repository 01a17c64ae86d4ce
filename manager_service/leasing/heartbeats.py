from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile

import structlog

from manager_service.domain.fleet import WorkerDirective
from manager_service.domain.leases import Heartbeat, HeartbeatAnswer, LeaseDirective
from manager_service.domain.model import SECOND, Span
from manager_service.domain.ports import Clock, LeaseVerbs
from manager_service.domain.watch import ProgressFeed
from manager_service.leasing.checks import check_heartbeat
from manager_service.leasing.sessions import KEPT, Sessions
from manager_service.leasing.waiter import Signal, Waiter

log = structlog.get_logger("manager.leasing")

_TELL_AGAIN_AFTER: Span = SECOND

News = frozenset[tuple[str, str]]


class _Hanging(Waiter):
    def __init__(self, sequence: int, begin: Span) -> None:
        super().__init__()
        self.sequence = sequence
        self.begin = begin


@dataclass(slots=True)
class _Heard:
    """What is remembered of a session: its newest heartbeat, when it came, and what was told."""

    time: Span
    sequence: int = 0
    told: News = frozenset()


class Heartbeats:
    """Renews leases and lets heartbeats hang until there is something to tell.

    What was told already does not end the next heartbeat at once, or a worker that is stopping an operation
    would beat as fast as it can; it is told again after a second, in case the first answer was lost.

    Args:
        store: renews leases.
        progress: where progress is published.
        sessions: remembers who called when.
        clock: ends hanging heartbeats.
        interval: the longest they hang.
    """

    def __init__(
        self, store: LeaseVerbs, progress: ProgressFeed, sessions: Sessions, *, clock: Clock, interval: Span
    ) -> None:
        self._store = store
        self._progress = progress
        self._sessions = sessions
        self._clock = clock
        self._interval = interval
        self._hanging: dict[str, _Hanging] = {}
        self._heard: dict[str, _Heard] = {}
        self._stopping = False

    async def beat(self, heartbeat: Heartbeat, *, wait: Span, remaining: Span) -> HeartbeatAnswer:
        """Renew the listed leases and tell what to do, at once or when there is news.

        Args:
            heartbeat: the sign of life with its inventory.
            wait: how long to hang.
            remaining: how long the caller waits for an answer.

        Raises:
            InvalidRequestError: the heartbeat makes no sense.
            SessionUnknownError: there is no such open session.
        """
        check_heartbeat(heartbeat, wait)
        with self._hang(heartbeat) as hanging:
            answer = await self._store.heartbeat(heartbeat)
            heard = self._hear(heartbeat.session_id)
            if answer.back is not None:
                log.info("worker is back", worker_name=answer.back, session_id=heartbeat.session_id)
            if heartbeat.sequence > heard.sequence:
                heard.sequence = heartbeat.sequence
                self._publish(heartbeat, answer)
            patience = max(0, min(wait, self._interval, remaining - min(SECOND, remaining // 4)))
            answer = await self._last_word(heartbeat, answer, hanging, heard, patience)
        heard.told = _news(heartbeat, answer)
        return answer

    def look(self, session_ids: Iterable[str]) -> None:
        """Let the heartbeats of these sessions look for news."""
        for session_id in session_ids:
            if hanging := self._hanging.get(session_id):
                hanging.ring()

    def end(self, session_id: str) -> None:
        """End the heartbeat of a session and forget what was heard of it."""
        self._heard.pop(session_id, None)
        if hanging := self._hanging.get(session_id):
            hanging.end()

    def remembers(self, session_id: str) -> bool:
        """Tell whether anything is remembered of a session."""
        return session_id in self._heard

    def stop(self) -> None:
        """Answer every heartbeat, now and from now on without waiting."""
        self._stopping = True
        for hanging in self._hanging.values():
            hanging.end()

    @contextmanager
    def _hang(self, heartbeat: Heartbeat) -> Iterator[_Hanging]:
        """Let a heartbeat hang; one of the session with a lower or equal sequence ends."""
        hanging = _Hanging(heartbeat.sequence, self._clock.monotonic())
        older = self._hanging.get(heartbeat.session_id)
        if self._stopping or (older and older.sequence > heartbeat.sequence):
            hanging.end()
            yield hanging
            return
        if older:
            older.end()
        self._hanging[heartbeat.session_id] = hanging
        try:
            yield hanging
        finally:
            if self._hanging.get(heartbeat.session_id) is hanging:
                del self._hanging[heartbeat.session_id]

    def _hear(self, session_id: str) -> _Heard:
        """Return what is remembered of a session that has just beaten; forget those that have long not."""
        self._sessions.called(session_id)
        now = self._clock.monotonic()
        heard = self._heard.pop(session_id, None) or _Heard(now)
        heard.time = now
        self._heard[session_id] = heard
        for silent in tuple(takewhile(lambda one: self._heard[one].time < now - KEPT, self._heard)):
            del self._heard[silent]
        return heard

    def _publish(self, heartbeat: Heartbeat, answer: HeartbeatAnswer) -> None:
        held = {lease.lease_id: lease for lease in heartbeat.leases}
        for parent_job_id, child_job_id, lease_id in answer.accepted:
            lease = held.get(lease_id)
            if lease and lease.progress:
                self._progress.publish(parent_job_id, child_job_id, lease.attempt, lease.progress)

    async def _last_word(
        self, heartbeat: Heartbeat, answer: HeartbeatAnswer, hanging: _Hanging, heard: _Heard, patience: Span
    ) -> HeartbeatAnswer:
        """Wait for news, and return the answer that tells it or the one that there is."""
        while True:
            news = _news(heartbeat, answer)
            if news - heard.told:
                return answer
            until = hanging.begin + (min(patience, _TELL_AGAIN_AFTER) if news else patience)
            left = until - self._clock.monotonic()
            if left <= 0 or await hanging.wait(left / SECOND) is not Signal.RUNG:
                return answer
            # The same sequence again: the store answers it from the state as it stands, and it is no beat.
            answer = await self._store.heartbeat(heartbeat)


def _news(heartbeat: Heartbeat, answer: HeartbeatAnswer) -> News:
    """Return what an answer asks the worker to do, beyond going on."""
    asked = {
        (held.lease_id, directive.value)
        for held, directive in zip(heartbeat.leases, answer.leases, strict=True)
        if directive is not LeaseDirective.CONTINUE
    }
    if answer.directive is not WorkerDirective.NONE and not heartbeat.draining:
        asked.add(("", answer.directive.value))
    return frozenset(asked)
