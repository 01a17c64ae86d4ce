"""Several connections for one operation: its steps go to whichever is free."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import psycopg

from worker_service.operations.options import NumberOption
from worker_service.operations.postgresql.failures import failure_of
from worker_service.operations.postgresql.session import Session

JOBS = NumberOption(
    name="jobs",
    description="How many tables at once, each over a connection of its own (default 1).",
    default=1,
    least=1,
    most=64,
)


@contextmanager
def lanes_of(session: Session, most: int) -> Iterator[Sequence[Session]]:
    """Lend the operation's session, and beside it as many more as its options ask for; ``most`` are of use.

    Where the server gives no further one, those that there are have to do.
    """
    number = min(session.options.numbers.get(JOBS.name) or 1, most)
    lanes = [session]
    try:
        while len(lanes) < number:
            try:
                lanes.append(session.another())
            except psycopg.Error as error:
                session.log("warning", f"Goes on with {len(lanes)} of {number} jobs: {failure_of(error).message}")
                break
        yield lanes
    finally:
        for lane in lanes[1:]:
            session.leave(lane)


def beside_each_other(lanes: Sequence[Session], work: Callable[[Session], None]) -> None:
    """Do the work on every lane at once, the first of them in this thread; raise what was raised first."""
    raised: list[BaseException] = []

    def do(lane: Session) -> None:
        try:
            work(lane)
        except BaseException as error:  # noqa: BLE001 - raised once all have ended
            raised.append(error)

    threads = [threading.Thread(target=do, args=(lane,), name="lane", daemon=True) for lane in lanes[1:]]
    for thread in threads:
        thread.start()
    do(lanes[0])
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]
