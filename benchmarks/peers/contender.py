"""One that takes part: on a database of its own, with two worker processes, a client, and jobs that do nothing."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from benchmarks.figures import machine_cpu_seconds
from tests.postgres import PostgresServer

WORKERS = 2
_MACHINE = "machine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifecycle:
    """What a lifecycle came to: jobs per second, and the CPU seconds per 1,000 jobs by who spent them.

    Others are those who take no part in it: so many cores of the machine they took meanwhile.
    """

    rate: float
    cpu: Mapping[str, float]
    others: float

    @property
    def total_cpu(self) -> float:
        """Return the CPU seconds per 1,000 jobs of all processes and the database."""
        return sum(self.cpu.values())


class Contender(Protocol):
    """A job system, whose workers can be made to take more or fewer jobs at a time."""

    name: str
    width: str
    """What it calls the number of jobs that a worker takes at a time."""

    def lifecycle(self, wide: int) -> Lifecycle:
        """Have many jobs done, from the first call until the end of each is in the store."""

    def latencies(self, wide: int, samples: int) -> Sequence[float]:
        """Return the milliseconds from the call that enqueues a job to its start, each alone in an idle system."""


def measured(jobs: int, spenders: Mapping[str, Callable[[], float]], run: Callable[[], float]) -> Lifecycle:
    """Run something that tells its seconds, and tell the CPU seconds of those who take part in it."""
    spenders = {**spenders, _MACHINE: machine_cpu_seconds}
    before = {who: spent() for who, spent in spenders.items()}
    seconds = run()
    spent = {who: now() - before[who] for who, now in spenders.items()}
    others = (spent.pop(_MACHINE) - sum(spent.values())) / seconds
    cpu = {who: of / jobs * 1_000 for who, of in spent.items()}
    return Lifecycle(rate=jobs / seconds, cpu=cpu, others=others)


@contextmanager
def new_database(server: PostgresServer) -> Iterator[str]:
    """Lend an empty database, on a server that has written down what came before."""
    url = server.create_database()
    server.checkpoint()
    yield url
    server.drop_database(url)
