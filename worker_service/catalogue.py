import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import structlog

from worker_service.domain.errors import TargetUnavailableError
from worker_service.domain.manager import Registration
from worker_service.domain.ports import Engine
from worker_service.domain.target import Target, TargetDescription

log = structlog.get_logger("worker.targets")

_DESCRIBERS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A target and the engine that serves it."""

    target: Target
    engine: Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who this process is to the manager."""

    worker_name: str
    instance_id: str
    build: str
    host: str
    pid: int
    slots: int
    labels: Mapping[str, str]


class Catalogue:
    """The targets of this worker, and what is known of each.

    A target that cannot be read is left out of the registration and asked again later.

    Args:
        identity: who this process is.
        served: the targets with their engines, in the order they were given.
    """

    def __init__(self, *, identity: Identity, served: Sequence[Served]) -> None:
        self._identity = identity
        self._served = {one.target.name: one for one in served}
        self._known: dict[str, TargetDescription] = {}

    @property
    def served(self) -> tuple[Served, ...]:
        """The targets, in the order they were given."""
        return tuple(self._served.values())

    @property
    def complete(self) -> bool:
        """Whether every target could be described."""
        return len(self._known) == len(self._served)

    def find(self, name: str) -> Served | None:
        """Return the target of that name, ``None`` when this worker does not serve it."""
        return self._served.get(name)

    def serve(self, served: Sequence[Served]) -> Callable[[], None]:
        """Serve these targets instead, keeping what is known of those that stay; return how to undo it."""
        before = self._served, self._known

        def undo() -> None:
            self._served, self._known = before

        self._served = {one.target.name: one for one in served}
        self._known = {name: what for name, what in before[1].items() if self.find(name) == before[0][name]}
        return undo

    async def describe_missing(self) -> bool:
        """Describe, in threads, the targets not known yet; tell whether there are more known now."""
        missing = [one for name, one in self._served.items() if name not in self._known]
        if not missing:
            return False
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(min(_DESCRIBERS, len(missing)), thread_name_prefix="describe") as pool:
            found = await asyncio.gather(*(loop.run_in_executor(pool, _describe, one) for one in missing))
        for one, description in zip(missing, found, strict=True):
            # Meanwhile the name may have been given to another database.
            if description is not None and self.find(one.target.name) == one:
                self._known[one.target.name] = description
        return any(found)

    async def registration(self) -> Registration:
        """Return who this worker is and what it serves now."""
        await self.describe_missing()
        who = self._identity
        return Registration(
            worker_name=who.worker_name,
            instance_id=who.instance_id,
            build=who.build,
            host=who.host,
            pid=who.pid,
            slots=who.slots,
            labels=who.labels,
            targets=tuple(
                (one.target, self._known[name]) for name, one in self._served.items() if name in self._known
            ),
        )


def _describe(one: Served) -> TargetDescription | None:
    try:
        return one.engine.describe(one.target)
    except TargetUnavailableError as error:
        log.warning("target unavailable; left out for now", target=one.target.name, error=str(error))
    except Exception:
        log.exception("target could not be described", target=one.target.name)
    return None
