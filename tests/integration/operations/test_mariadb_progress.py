"""How far an operation on one table is told to be, by servers that keep books of stages and by others."""

from collections.abc import Callable, Iterator

import pytest

from tests.integration.operations.doubles import RecordingControl
from tests.integration.operations.mariadb_databases import Database
from tests.mariadb import MariadbServer
from worker_service.domain.operation import Progress
from worker_service.domain.outcome import Outcome
from worker_service.operations.mariadb import watching

BOOKS = {"performance-schema": "ON", "performance-schema-consumer-events-stages-current": "ON"}
UNKNOWN = "the server does not tell how far it is"


@pytest.fixture(autouse=True)
def _quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "INTERVAL", 0.005)


@pytest.fixture(scope="module")
def bookkeeper() -> Iterator[Database]:
    """Lend a database with a table, on a server that keeps books of stages."""
    with MariadbServer(BOOKS) as server:
        database = Database(server=server, name=server.create_database())
        database.table("item", rows=60_000)
        database.run("ANALYZE TABLE item")
        yield database


def told(
    database: Database,
    operation: str,
    table: str | None = "item",
    url: str = "",
    seen: Callable[[Progress], bool] = lambda _: True,
) -> list[Progress]:
    """Return what is told of an operation, but for its waits for locks, which may be seen at any time.

    On a machine with much to do it may be over before anybody has looked at it: then it is done once more.
    """
    for _ in range(20):
        control = RecordingControl()
        assert database.maintain(operation, control, table=table, url=url).outcome is Outcome.COMPLETED
        progresses = [one for one in control.progresses if " is waiting for " not in one.phase]
        if any(seen(one) for one in progresses):
            return progresses
    raise AssertionError("it was never looked at while it ran")


def in_pages(progress: Progress) -> bool:
    return progress.unit == "pages"


def said_unknown(progress: Progress) -> bool:
    return progress.phase.endswith(UNKNOWN)


class TestWithBooks:
    @pytest.mark.parametrize("operation", ["vacuum", "reindex"])
    def test_the_pages_of_each_stage_are_told(self, bookkeeper: Database, operation: str) -> None:
        sort = f"{operation}, read PK and internal sort: item"

        assert told(bookkeeper, operation, seen=lambda one: one.phase == sort)
        first, *progresses = told(bookkeeper, operation, seen=lambda one: in_pages(one) and bool(one.total))

        assert first == Progress(phase=operation)
        stages = [one for one in progresses if one.unit == "pages"]
        assert all(one.done is not None and (one.total is None or one.done < one.total) for one in stages)
        for phase in {one.phase for one in stages}:
            done = [one.done or 0 for one in stages if one.phase == phase]
            assert done == sorted(done)

    def test_an_estimate_that_only_follows_is_no_total(self, bookkeeper: Database) -> None:
        bookkeeper.run(
            "CREATE TABLE new (id INT PRIMARY KEY, text VARCHAR(200)) STATS_PERSISTENT=0",
            "INSERT INTO new SELECT seq, REPEAT(MD5(seq), 5) FROM seq_1_to_60000",
        )

        stages = [one for one in told(bookkeeper, "vacuum", "new", seen=in_pages) if in_pages(one)]

        assert stages
        assert all(one.total is None or (one.done or 0) < one.total for one in stages)

    def test_a_check_has_none(self, bookkeeper: Database) -> None:
        progresses = told(bookkeeper, "integrity_check", seen=said_unknown)

        assert {one.phase for one in progresses} == {"integrity_check", f"integrity_check: {UNKNOWN}"}
        assert {(one.done, one.total) for one in progresses} == {(None, None)}

    @pytest.mark.parametrize("more", [(), ("SELECT ON performance_schema.setup_consumers",)])
    def test_a_role_that_may_not_read_them_is_told_nothing(
        self, bookkeeper: Database, more: tuple[str, ...]
    ) -> None:
        url = bookkeeper.role("SELECT, INSERT, ALTER, CREATE", *more)

        progresses = told(bookkeeper, "vacuum", url=url, seen=said_unknown)

        assert {one.phase for one in progresses} == {"vacuum", f"vacuum: {UNKNOWN}"}


class TestWithout:
    def test_no_percentage_is_made_up_for_a_single_table(self, database: Database) -> None:
        database.table("item", rows=60_000)

        progresses = told(database, "vacuum", seen=said_unknown)

        assert {one.phase for one in progresses} == {"vacuum", f"vacuum: {UNKNOWN}"}
        assert {(one.done, one.total) for one in progresses} == {(None, None)}

    def test_of_many_tables_their_number_is_told(self, database: Database) -> None:
        for name in "ab":
            database.table(name, rows=20_000)

        progresses = told(database, "vacuum", None)

        assert progresses == [Progress(phase="vacuum", done=done, total=2, unit="tables") for done in (0, 1, 2)]
