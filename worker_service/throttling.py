import asyncio
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from worker_service.catalogue import Catalogue, Served
from worker_service.domain.errors import WorkerError
from worker_service.domain.ports import Throttling
from worker_service.domain.target import Target

log = structlog.get_logger("worker.throttle")

EVERY = 3.0
"""How many seconds lie between two looks at a target, at least."""

PATIENCE = 5.0
"""How many seconds a look may take before nobody waits for it any longer, and the target is held back."""

REASON_LENGTH = 200
_AT_ONCE = 16
_STATEMENT_SECONDS = 2.0
_NOT_LOOKED = "its throttle was not looked at yet"


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was seen at the last look at a target; ``reason`` is empty where nothing holds it back."""

    target: Target
    reason: str


class Throttles:
    """Which targets are held back by what their owners throttle, looked at again and again.

    Each look runs in a thread, over a connection of its own; one that does not answer delays neither the others
    nor a heartbeat. What cannot be looked at is held back, and says so.

    Args:
        catalogue: the targets.
        wanted: whether there could be work, so that looking is worth its while.
        on_change: called when a target is held back, let go, or held back for another reason.
        redact: masks what must not leave the process.
        every: seconds between two looks.
        patience: seconds that a look may take.
    """

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        wanted: Callable[[], bool],
        on_change: Callable[[], None],
        redact: Callable[[str], str] = str,
        every: float = EVERY,
        patience: float = PATIENCE,
    ) -> None:
        self._catalogue = catalogue
        self._wanted = wanted
        self._on_change = on_change
        self._redact = redact
        self._every = every
        self._patience = patience
        self._seen: dict[str, _Seen] = {}
        self._looks: dict[str, asyncio.Task[None]] = {}
        self._places = asyncio.Semaphore(_AT_ONCE)

    def reason(self, name: str) -> str:
        """Return why nothing is to begin on a target just now, also from another thread; empty when it may."""
        served = self._catalogue.find(name)
        if served is None or served.target.throttle is None:
            return ""
        seen = self._seen.get(name)
        # With other settings it is another throttle.
        return seen.reason if seen is not None and seen.target == served.target else _NOT_LOOKED

    def known_reason(self, name: str) -> str:
        """Return the same, but nothing before the first look: that is over in a moment."""
        return "" if (reason := self.reason(name)) == _NOT_LOOKED else reason

    def held_back(self) -> Mapping[str, str]:
        """Return why targets are held back, by name."""
        reasons = {one.target.name: self.reason(one.target.name) for one in self._catalogue.served}
        return {name: reason for name, reason in reasons.items() if reason}

    async def look(self) -> None:
        """Begin a look at each target whose last one is over, then wait until the next are due."""
        throttled = [one for one in self._catalogue.served if one.target.throttle is not None]
        if self._wanted():
            for one in throttled:
                if one.target.name not in self._looks:
                    self._begin(one)
        await asyncio.sleep(self._every)

    def close(self) -> None:
        """Look no more; threads that still do are not waited for."""
        for task in self._looks.values():
            task.cancel()

    def _begin(self, one: Served) -> None:
        name = one.target.name
        task = asyncio.ensure_future(self._look_at(one))
        self._looks[name] = task
        task.add_done_callback(lambda _: self._looks.pop(name, None))

    async def _look_at(self, one: Served) -> None:
        async with self._places:
            answer = _in_thread(lambda: _look(one))
            done, _ = await asyncio.wait({answer}, timeout=self._patience)
            if not done:
                self._see(one.target, f"it did not answer within {self._patience:g} s")
        # The next look waits for this one: threads that hang must not pile up.
        self._see(one.target, await answer)

    def _see(self, target: Target, reason: str) -> None:
        reason = self._redact(" ".join(reason.split()))[:REASON_LENGTH]
        seen = self._seen.get(target.name)
        before = seen.reason if seen is not None and seen.target == target else _NOT_LOOKED
        self._seen[target.name] = _Seen(target, reason)
        if _kind(reason) != _kind(before):
            _tell(target.name, reason, before)
            self._on_change()


def _tell(name: str, reason: str, before: str) -> None:
    if reason:
        log.warning("target held back", target=name, reason=reason)
    elif before != _NOT_LOOKED:
        log.info("target let go", target=name)


def _kind(reason: str) -> str:
    """Return a reason without its numbers, which change with every look: heartbeats tell those by themselves."""
    return re.sub(r"\d+", "", reason)


def _look(one: Served) -> str:
    """Return why a target is held back; whatever goes wrong is a reason too."""
    throttle = one.target.throttle
    try:
        if throttle is None:
            return ""
        if throttle.pause_file is not None and throttle.pause_file.exists():
            return f"the pause file {throttle.pause_file.name} is there"
        if throttle.asks and isinstance(one.engine, Throttling):
            return one.engine.held_back(one.target, seconds=_STATEMENT_SECONDS)
    except (WorkerError, OSError) as error:
        return f"its throttle cannot be looked at: {error}"
    except Exception as error:  # a plugin may raise anything
        log.exception("throttle could not be looked at", target=one.target.name)
        return f"its throttle cannot be looked at: {type(error).__name__}"
    return ""


def _in_thread(call: Callable[[], str]) -> asyncio.Future[str]:
    """Run a call in a thread that does not hold up the process's end."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[str] = loop.create_future()

    def settle(reason: str) -> None:
        if not answer.done():
            answer.set_result(reason)

    def run() -> None:
        reason = call()
        try:
            loop.call_soon_threadsafe(settle, reason)
        except RuntimeError:  # the loop has ended meanwhile
            return

    threading.Thread(target=run, name="throttle", daemon=True).start()
    return answer
