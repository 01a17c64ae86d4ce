"""An operation that walks a database waits between two objects while its target is held back, on every engine."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.operations.databases import empty_database
from tests.integration.operations.mariadb_databases import Database
from tests.integration.operations.postgres_ground import change, operation, target, value
from tests.lodgings import wait_until
from worker_service.control import LeaseControl
from worker_service.domain.outcome import Outcome, Result
from worker_service.domain.ports import Control, OperationWorker
from worker_service.domain.settlement import StopReason
from worker_service.operations.mariadb import MariadbEngine
from worker_service.operations.postgresql import PostgresqlEngine
from worker_service.operations.sqlite import SqliteEngine

BUSY = "31 active sessions, at most 20"
MakeWorker = Callable[[Control], OperationWorker]


class Owner:
    """Holds the target back from the third question on: the walk has begun, and has objects left."""

    def __init__(self) -> None:
        self.asked = 0
        self.lets_go = False

    def __call__(self) -> str:
        self.asked += 1
        return "" if self.lets_go or self.asked <= 2 else BUSY


class Sink:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, level: str, message: str) -> None:
        self.lines.append(message)


class Walk:
    """An operation that runs in a thread until it waits for the owner."""

    def __init__(self, make: MakeWorker, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("worker_service.control._LOOK_AGAIN", 0.005)
        self.owner, self.sink, self._results = Owner(), Sink(), list[Result]()
        self.control = LeaseControl(fence=1e9, clock=lambda: 0.0, sink=self.sink, held_back=self.owner)
        self.worker = make(self.control)
        self._thread = threading.Thread(target=lambda: self._results.append(self.worker.execute(operation(name))))
        self._thread.start()
        wait_until(lambda: self._phase == f"held back: {BUSY}", "it does not wait")

    @property
    def _phase(self) -> str:
        return self.control.latest_progress.phase if self.control.latest_progress else ""

    def end(self) -> Result:
        self._thread.join(20)
        [result] = self._results
        return result


@pytest.fixture(params=["postgresql", "mariadb", "sqlite"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> MakeWorker:
    match request.param:
        case "postgresql":
            url: str = request.getfixturevalue("postgres_url")
            change(url, *(f"CREATE TABLE {name} (id INT PRIMARY KEY)" for name in "abc"))
            return lambda control: PostgresqlEngine().worker(target(url), control)
        case "mariadb":
            database: Database = request.getfixturevalue("database")
            for name in "abc":
                database.table(name)
            return lambda control: MariadbEngine().worker(database.target(), control)
        case _:
            connection = empty_database(tmp_path / "app.db")
            connection.execute(" ".join(f"CREATE TABLE {name} (id TEXT PRIMARY KEY);" for name in "abc"))
            connection.close()
            file = target(str(tmp_path / "app.db"))
            return lambda control: SqliteEngine().worker(file, control)


def test_it_waits_and_then_does_the_rest(make: MakeWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    walk = Walk(make, "reindex", monkeypatch)

    walk.owner.lets_go = True
    result = walk.end()

    assert result.outcome is Outcome.COMPLETED
    assert [line for line in walk.sink.lines if BUSY in line or line.startswith("goes on")] == [
        f"waits: {BUSY}",
        "goes on after 0 s",
    ]


def test_a_cancel_ends_the_wait(make: MakeWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    walk = Walk(make, "reindex", monkeypatch)

    walk.control.stop(StopReason.CANCELLED)
    walk.worker.interrupt()

    assert walk.end().outcome is Outcome.CANCELLED


def test_on_a_server_no_transaction_is_open_meanwhile(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    change(postgres_url, *(f"CREATE TABLE {name} AS SELECT 1 AS a" for name in "abc"))
    walk = Walk(lambda control: PostgresqlEngine().worker(target(postgres_url), control), "vacuum", monkeypatch)

    ours = "SELECT string_agg(state, ' ') FROM pg_stat_activity WHERE application_name LIKE 'overhaul:%'"
    state = value(postgres_url, ours)
    walk.owner.lets_go = True

    assert (state, walk.end().outcome) == ("idle", Outcome.COMPLETED)
