import time

from worker_service.domain.errors import OperationCancelledError
from worker_service.domain.outcome import Failure, FailureCategory
from worker_service.operations.postgresql.holders import oldest_transaction, waited_for
from worker_service.operations.postgresql.session import Session
from worker_service.operations.postgresql.sweep import Step
from worker_service.operations.wording import listed

_LOOK_EVERY = 0.2


class Patience:
    """Waits before a concurrent rebuild for transactions that have lasted longer than it would wait for them.

    Within the rebuild the lock time-out would leave an invalid index behind; before it, nothing is left.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._seconds = session.options.lock_timeout_ms / 1000
        self._ask_at = 0.0

    def __call__(self, step: Step) -> Failure | None:
        """Return a failure when such a transaction, in the way of the step, does not end in time.

        Raises:
            OperationCancelledError: the operation was stopped while it waited.
        """
        if not self._seconds or not self._some_are_old():
            return None
        waited = 0.0
        while holders := waited_for(self._session.rows, step.table, self._seconds):
            if waited >= self._seconds:
                text = f"It would wait for older transactions: {listed([str(holder) for holder in holders], 3)}."
                return Failure(
                    reason="OLD_TRANSACTION", message=text, category=FailureCategory.LOCKED, retryable=True
                )
            if self._session.stop.wait(_LOOK_EVERY):
                raise OperationCancelledError("The operation was stopped while it waited.")
            waited += _LOOK_EVERY
        return None

    def _some_are_old(self) -> bool:
        """Ask for the oldest transaction, and not again before any could have become too old."""
        now = time.monotonic()
        if now < self._ask_at:
            return False
        left = self._seconds - oldest_transaction(self._session.rows)
        self._ask_at = now + left
        return left <= 0
