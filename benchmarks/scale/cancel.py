import asyncio
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.figures import Figure, percentile
from benchmarks.latency import sample
from benchmarks.scale.deployment import managed, migrated
from benchmarks.scale.size import Size
from tests.postgres import PostgresServer
from tests.services import address_of, start_worker


def measure(server: PostgresServer, size: Size) -> list[Figure]:
    """Tell how long a cancel takes to an operation whose worker is at another manager than the caller."""
    samples = size.of(200, 400)
    runs = [_run(server, samples) for _ in range(size.rounds)]
    name = f"cancel to interrupt at another manager, {samples}"
    return [
        Figure(name=f"{name}, median", values=[median(run) for run in runs], unit="ms", aim="under 30"),
        Figure(name="  99th percentile", values=[percentile(run, 99) for run in runs], unit="ms", aim="under 100"),
        Figure(name="  longest", values=[max(run) for run in runs], unit="ms"),
    ]


def _run(server: PostgresServer, samples: int) -> list[float]:
    with tempfile.TemporaryDirectory() as folder, migrated(server) as url, managed(url, 2) as (near, far):
        audit = Path(folder) / "audit"
        with start_worker(address_of(far), f"bed=nap://{audit}", level="warning"):
            return asyncio.run(sample(address_of(near), audit, samples))[1]
