"""How long an operation waited for locks of others, and others for its own, as far as samples saw it."""

import threading
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field, replace

LOCK_WAIT, BLOCKING = "lock_wait_seconds", "blocking_seconds"
SESSIONS, EVERY = "blocked_sessions", "lock_sample_seconds"
TOLD = 8
"""How many of those who waited are told by name."""

_KEPT = 64
_SESSIONS = 10_000
_LONGEST = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class LockWaiter:
    """Sessions that were seen waiting for a lock of the operation; ``seconds`` are those of all ``sessions``.

    Never their statements: these may hold secrets.
    """

    application: str = ""
    user: str = ""
    object: str = ""
    lock_mode: str = ""
    seconds: float = 0.0
    sessions: int = 0

    def __str__(self) -> str:
        name = self.application or "a session without a name"
        who = f"{name} ({self.user})" if self.user else name
        what = " ".join(part for part in (self.object, f"({self.lock_mode})" if self.lock_mode else "") if part)
        more = f", {self.sessions} sessions" if self.sessions > 1 else ""
        return f"{who} for {self.seconds:.1f} s{f' for {what}' if what else ''}{more}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A wait that a sample saw.

    ``session`` and ``begun`` tell it from others. ``seconds`` is how long it had lasted; where the server does not
    tell when it began, ``begun`` is ``None``, and ``seconds`` is the time since the sample before.
    """

    session: Hashable
    seconds: float
    begun: Hashable | None = None
    who: LockWaiter = field(default_factory=LockWaiter)


class LockWaits:
    """Adds up what samples see of waits, from any thread; what it holds is bounded whatever comes.

    Waits that begin and end between two samples are not seen, so that sums are of what was seen: at least so much.

    Args:
        every: seconds between two samples.
    """

    def __init__(self, every: float) -> None:
        self.every = every
        self._guard = threading.Lock()
        self._own = _Sum()
        self._others = _Sum()
        self._by_name: dict[LockWaiter, tuple[float, set[Hashable]]] = {}
        self._sessions: set[Hashable] = set()
        self._unknown: dict[str, str] = {}
        self.watched = False

    def begin(self) -> None:
        """Note that somebody watches: from now on what was not seen is 0."""
        self.watched = True

    def own(self, waits: Iterable[Waiting]) -> None:
        """Take what a sample saw of the operation's own waits: one, or none."""
        with self._guard:
            for one in waits:
                self._own.see(one)

    def others(self, waits: Iterable[Waiting]) -> None:
        """Take what a sample saw of others that wait for the operation's locks."""
        with self._guard:
            for one in waits:
                more = self._others.see(one)
                if len(self._sessions) < _SESSIONS:
                    self._sessions.add(one.session)
                self._name(one, more)

    def unknown(self, why: str, *measures: str) -> None:
        """Note that what a measure would tell cannot be known: it is not reported then."""
        with self._guard:
            self._unknown.update(dict.fromkeys(measures or (LOCK_WAIT, BLOCKING), why))

    def measures(self) -> dict[str, float]:
        """Return what is known, by name."""
        if not self.watched:
            return {}
        with self._guard:
            known = {} if LOCK_WAIT in self._unknown else {LOCK_WAIT: self._own.seconds}
            if BLOCKING not in self._unknown:
                known |= {BLOCKING: self._others.seconds, SESSIONS: float(len(self._sessions))}
        rounded = {name: round(value, 3) for name, value in known.items()}
        return {**rounded, EVERY: self.every} if known else {}

    def waiters(self) -> tuple[LockWaiter, ...]:
        """Return who waited longest."""
        with self._guard:
            found = [
                replace(name, seconds=round(seconds, 3), sessions=len(sessions))
                for name, (seconds, sessions) in self._by_name.items()
            ]
        return tuple(sorted(found, key=lambda one: (-one.seconds, str(one)))[:TOLD])

    def tell(self, log: Callable[[str, str], None]) -> None:
        """Write to the log what was seen, in few lines."""
        measures, waiters = self.measures(), self.waiters()
        sampled = f"sampled every {self.every:g} s"
        if waited := measures.get(LOCK_WAIT):
            log("info", f"It waited for locks of others for {waited:.1f} s ({sampled}).")
        if kept := measures.get(BLOCKING):
            number = f"{measures[SESSIONS]:.0f} session{'' if measures[SESSIONS] == 1 else 's'}"
            log("warning", f"Its locks kept others waiting: {number}, {kept:.1f} s in all ({sampled}).")
        for waiter in waiters:
            log("info", f"Waited for it: {waiter}.")
        for why in sorted(set(self._unknown.values())):
            log("info", why)

    def _name(self, one: Waiting, more: float) -> None:
        name = replace(_cleaned(one.who), seconds=0.0, sessions=0)
        seconds, sessions = self._by_name.get(name, (0.0, set()))
        if len(sessions) < _SESSIONS:
            sessions.add(one.session)
        self._by_name[name] = (seconds + more, sessions)
        if len(self._by_name) > _KEPT:
            del self._by_name[min(self._by_name, key=lambda known: self._by_name[known][0])]


class _Sum:
    """The seconds of waits, each counted once however often it is seen."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._seen: dict[Hashable, tuple[Hashable, float]] = {}

    def see(self, one: Waiting) -> float:
        """Take a sight of a wait, and return by how much it is longer than what is known of it."""
        begun, known = self._seen.get(one.session, (None, 0.0))
        if one.begun is None or begun != one.begun:
            known = 0.0
        more = max(0.0, one.seconds - known)
        self.seconds += more
        if one.begun is not None and (one.session in self._seen or len(self._seen) < _SESSIONS):
            self._seen[one.session] = (one.begun, max(one.seconds, known))
        return more


def _cleaned(waiter: LockWaiter) -> LockWaiter:
    """Make the texts short, and of one line of signs that can be printed: they come from whoever connects."""
    return replace(
        waiter,
        application=_text(waiter.application),
        user=_text(waiter.user),
        object=_text(waiter.object),
        lock_mode=_text(waiter.lock_mode),
    )


def _text(text: str) -> str:
    return "".join(sign if sign.isprintable() else "?" for sign in text[:_LONGEST])
