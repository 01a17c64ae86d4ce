"""What can go wrong in a worker. Every message is written to the person who has to act on it."""


class WorkerError(Exception):
    """The root of every error that the worker raises on purpose."""


class InvalidTargetError(WorkerError):
    """A configured target cannot be served: wrong URL, missing file, unknown engine, password in the open."""


class InvalidOperationError(WorkerError):
    """An operation cannot run on this engine: unknown name, unknown option, or a value out of range."""


class TargetUnavailableError(WorkerError):
    """The target's database cannot be reached or described just now; asking again later may help."""


class TargetBusyError(WorkerError):
    """Another connection holds the lock in the target; the lease goes back without costing a budget."""


class OperationCancelledError(WorkerError):
    """The operation was asked to stop: a cancel, a lost lease, a timeout or the end of the drain's grace."""


class ConfigurationError(WorkerError):
    """The options, the environment or the configuration file ask for something that cannot be; says what to do."""


class ManagerError(WorkerError):
    """The root of what a call to the manager can end with."""


class ManagerUnavailableError(ManagerError):
    """The manager cannot be reached or cannot answer just now; keep what runs and try again."""


class SessionUnknownError(ManagerError):
    """The manager does not know the session any more; register again with the same instance_id."""


class SessionSupersededError(ManagerError):
    """A newer instance of the same worker name took over; finish what runs and never register again."""


class RegistrationRefusedError(ManagerError):
    """The manager does not take this worker as it is configured; the message says what to change."""


class ProtocolVersionRefusedError(RegistrationRefusedError):
    """The manager does not take the version of the protocol that it was spoken to in.

    Args:
        message: what the manager said.
        oldest: the oldest version that it takes.
        newest: the newest version that it takes.
    """

    def __init__(self, message: str, *, oldest: int, newest: int) -> None:
        super().__init__(message)
        self.oldest = oldest
        self.newest = newest


class ManagerTooOldError(ManagerUnavailableError):
    """The manager that answered has to be upgraded before it can take this worker; others may be already."""


class RequestRefusedError(ManagerError):
    """The manager refused a call for what it says; sending it again as it is cannot help."""


class LogGapError(ManagerError):
    """The manager stores fewer log lines of the attempt than were sent.

    Args:
        message: what the manager said.
        next_offset: the offset where its log goes on.
    """

    def __init__(self, message: str, next_offset: int) -> None:
        super().__init__(message)
        self.next_offset = next_offset


class SessionClosedError(WorkerError):
    """There is no session and there will be none: this process is stopping or was superseded."""
