import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from worker_service.catalogue import Served
from worker_service.config import Sources
from worker_service.domain.errors import (
    ConfigurationError,
    InvalidTargetError,
    RegistrationRefusedError,
    SessionClosedError,
)
from worker_service.domain.ports import Engines
from worker_service.domain.secrets import Redactor
from worker_service.targets import resolve_targets

log = structlog.get_logger("worker.reload")

REFUSALS = (ConfigurationError, InvalidTargetError, RegistrationRefusedError, SessionClosedError)


class Reloader:
    """Reads the targets again when it is asked to, and has those served that are named now.

    It is all or nothing: where one target cannot be served, those before are served on. Options other than the
    targets need a restart, which is logged.

    Args:
        sources: where the targets are named.
        served: those that are served now.
        engines: what is installed.
        redact: learns the passwords of new targets before anything can tell them.
        serve: has other targets served.
    """

    def __init__(
        self,
        *,
        sources: Sources,
        served: Sequence[Served],
        engines: Engines,
        redact: Redactor,
        serve: Callable[[Sequence[Served]], Awaitable[None]],
    ) -> None:
        self._sources = sources
        self._served = tuple(served)
        self._engines = engines
        self._redact = redact
        self._serve = serve
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Have the targets read again."""
        self._asked.set()

    async def reload(self) -> None:
        """Wait until it is asked for, then read the targets and have them served."""
        await self._asked.wait()
        self._asked.clear()
        try:
            # In a thread: files and their file systems may be slow, and leases have to be renewed meanwhile.
            served = await asyncio.to_thread(self._read)
            await self._serve(served)
        except REFUSALS as error:
            log.error("targets not reloaded; those before are served on", error=str(error))  # noqa: TRY400 - foreseen
        else:
            log.info("targets reloaded", **_changes(self._served, served))
            self._served = served

    def _read(self) -> tuple[Served, ...]:
        sources = self._sources.again()
        orders = sources.targets()
        self._redact.learn(order.url for order in orders)
        if options := sources.differing(self._sources):
            log.warning("other options need a restart", options=options)
        return resolve_targets(orders, self._engines, served=self._served)


def _changes(before: Sequence[Served], after: Sequence[Served]) -> dict[str, list[str]]:
    """Return the names of the targets that came, went and are not what they were."""
    old = {one.target.name: one for one in before}
    new = {one.target.name: one for one in after}
    return {
        "added": sorted(new.keys() - old.keys()),
        "removed": sorted(old.keys() - new.keys()),
        "changed": sorted(name for name in new.keys() & old.keys() if new[name] != old[name]),
    }
