"""What an inspection writes into the log of what no child tells."""

from collections import Counter
from collections.abc import Iterable

from worker_service.operations.postgresql.session import Session
from worker_service.operations.postgresql.wanted import Wanted
from worker_service.operations.wording import count


class LeftOut:
    """Operations that are not done to an object while others are, which no child tells."""

    def __init__(self) -> None:
        self._numbers: Counter[tuple[str, str]] = Counter()

    def count(self, left_out: Iterable[tuple[str, Wanted, str]]) -> None:
        """Count one object's."""
        self._numbers.update((operation, one.why_not) for operation, one, _ in left_out)

    def tell(self, session: Session) -> None:
        """Write them into the log, each reason once."""
        for (operation, why), number in self._numbers.items():
            session.log("info", f"{operation} leaves out {count(number, 'object')}: {why}.")


def tell_catalogues(session: Session, number: int) -> None:
    """Write how many of the system's catalogues the role may not maintain, so that they are not listed."""
    if number:
        text = count(number, "system catalogue")
        verb = "is" if number == 1 else "are"
        session.log("info", f"{text} that the role may not maintain {verb} left to autovacuum.")
