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
    """Do the work on every lane at once, the first of them in this thread; raise what was raised first.

    Where there is no thread left, those that there are have to do. Once one has raised, the statements of the
    others are cancelled: the lock in the target may be gone with its session.
    """
    raised: list[BaseException] = []

    def do(lane: Session) -> None:
        try:
            work(lane)
        except BaseException as error:  # noqa: BLE001 - raised once all have ended
            raised.append(error)
            interrupt_others(lanes, lane)

    threads: list[threading.Thread] = []
    for lane in lanes[1:]:
        thread = threading.Thread(target=do, args=(lane,), name="lane", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            break
        threads.append(thread)
    do(lanes[0])
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]


def interrupt_others(lanes: Sequence[Session], lane: Session) -> None:
    """Cancel the statements of all lanes but one."""
    for other in lanes:
        if other is not lane:
            other.cancel()
