import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from worker_service.backoff import Backoff
from worker_service.domain.errors import (
    ManagerTooOldError,
    ManagerUnavailableError,
    RegistrationRefusedError,
    SessionClosedError,
    SessionSupersededError,
    SessionUnknownError,
)
from worker_service.domain.manager import ManagerPort, Registration, Session

log = structlog.get_logger("worker.session")

T = TypeVar("T")
Register = Callable[[], Awaitable[Registration]]


class Sessions:
    """Keeps this process registered: one session at a time, renewed under the same instance_id.

    Args:
        manager: the far side.
        registration: describes this worker and its targets as they are now.
        on_superseded: called when a newer instance took the worker's name over.
        backoff: makes the pauses between tries.
    """

    def __init__(
        self,
        *,
        manager: ManagerPort,
        registration: Register,
        on_superseded: Callable[[], None],
        backoff: Callable[[], Backoff] = Backoff,
    ) -> None:
        self._manager = manager
        self._registration = registration
        self._on_superseded = on_superseded
        self._backoff = backoff
        self._session: Session | None = None
        self._closed = False
        self._renewing = asyncio.Lock()
        self._trouble: ManagerUnavailableError | None = None

    @property
    def trouble(self) -> ManagerUnavailableError | None:
        """Why no manager answered the last call; ``None`` when one did."""
        return self._trouble

    @property
    def current(self) -> Session:
        """The session.

        Raises:
            SessionClosedError: there is none.
        """
        if self._session is None:
            raise SessionClosedError("This worker has no session with the manager.")
        return self._session

    async def open(self) -> Session:
        """Register for the first time, trying for as long as the manager cannot be reached.

        Raises:
            RegistrationRefusedError: the manager does not take this worker as it is.
            SessionSupersededError: a newer instance has the name.
        """
        backoff = self._backoff()
        while True:
            try:
                return await self._register()
            except ManagerUnavailableError as error:
                self.unreachable(error)
                await backoff.pause()

    async def refresh(self) -> None:
        """Register again with what the targets are now; the session goes on."""
        if self._closed:
            return
        async with self._renewing:
            try:
                await self._register()
            except (ManagerUnavailableError, RegistrationRefusedError) as error:
                log.warning("registration was not refreshed", error=str(error))

    async def update(self) -> None:
        """Register again with other targets, trying for as long as the manager cannot be reached.

        Raises:
            RegistrationRefusedError: the manager does not take them; what was registered before stands.
            SessionClosedError: this process is stopping or was superseded, and registers no more.
        """
        async with self._renewing:
            backoff = self._backoff()
            while not self._closed:
                try:
                    await self._register()
                except ManagerUnavailableError as error:
                    self.unreachable(error)
                    await backoff.pause()
                except SessionSupersededError:
                    self.superseded()
                else:
                    return
        raise SessionClosedError("This worker is stopping.")

    async def renew(self, stale: Session) -> None:
        """Register again after the manager forgot ``stale``; at once when another caller already did.

        Raises:
            SessionClosedError: this process is stopping or was superseded, and registers no more.
        """
        async with self._renewing:
            backoff = self._backoff()
            while self._session is stale:
                if self._closed:
                    self._session = None
                    break
                try:
                    log.warning("manager does not know this session; registering again")
                    await self._register()
                except (ManagerUnavailableError, RegistrationRefusedError) as error:
                    log.error("registration failed", error=str(error))  # noqa: TRY400 - foreseen, no traceback
                    await backoff.pause()
                except SessionSupersededError:
                    self.superseded()
        if self._session is None:
            raise SessionClosedError("The manager ended this session while the worker was stopping.")

    async def call(self, send: Callable[[Session], Awaitable[T]]) -> T:
        """Send a call until it is answered, through outages and new sessions.

        Raises:
            SessionClosedError: there is no session and there will be none.
            ManagerError: the answer was a refusal that trying again cannot help.
        """
        backoff = self._backoff()
        while True:
            session = self.current
            try:
                answer = await send(session)
            except ManagerUnavailableError as error:
                self.unreachable(error)
                await backoff.pause()
            except SessionUnknownError:
                await self.renew(session)
                await backoff.pause()
            else:
                self.reached()
                return answer

    def superseded(self) -> None:
        """Note that a newer instance took over; nothing registers any more."""
        if not self._closed:
            log.warning("superseded by a newer instance of this worker")
        self._closed = True
        self._on_superseded()

    def close(self) -> None:
        """Register no more; the session that is open stays usable."""
        self._closed = True

    def unreachable(self, error: ManagerUnavailableError) -> None:
        """Note that a call found no manager; logged once per outage."""
        if type(error) is not type(self._trouble):
            if isinstance(error, ManagerTooOldError):
                log.error("manager too old; trying on", error=str(error))
            else:
                log.warning("manager unreachable; trying on", error=str(error))
        self._trouble = error

    def reached(self) -> None:
        """Note that a call was answered."""
        if self._trouble:
            log.info("manager reached again")
        self._trouble = None

    async def _register(self) -> Session:
        registration = await self._registration()
        session = await self._manager.register(registration)
        self.reached()
        log.info("registered", session_id=session.session_id, targets=len(registration.targets))
        self._session = session
        return session
