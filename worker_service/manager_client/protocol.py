from dataclasses import dataclass

from worker_service.domain.errors import (
    ManagerTooOldError,
    ProtocolVersionRefusedError,
    RegistrationRefusedError,
)


@dataclass(frozen=True, slots=True)
class Versions:
    """The versions of the protocol that a worker speaks: its own, and that of one release before."""

    newest: int

    @property
    def oldest(self) -> int:
        """The version before the newest, if there was one."""
        return max(1, self.newest - 1)

    def agree(self, refusal: ProtocolVersionRefusedError) -> int:
        """Return the newest version that this worker and the manager that refused it both speak.

        Raises:
            RegistrationRefusedError: this worker is too old for the manager.
            ManagerTooOldError: the manager is too old for this worker.
        """
        spoken, taken = _range(self.oldest, self.newest), _range(refusal.oldest, refusal.newest)
        if self.newest < refusal.oldest:
            raise RegistrationRefusedError(
                f"This worker speaks version {spoken} of the protocol, and the manager takes {taken}: "
                "upgrade the worker."
            )
        if refusal.newest < self.oldest:
            raise ManagerTooOldError(
                f"This worker speaks version {spoken} of the protocol, and the manager takes {taken}: "
                "upgrade the manager, or run a worker of its release."
            )
        return min(self.newest, refusal.newest)


def _range(oldest: int, newest: int) -> str:
    return f"{newest}" if oldest == newest else f"{oldest} to {newest}"


SPOKEN = Versions(newest=1)
