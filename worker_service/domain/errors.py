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
