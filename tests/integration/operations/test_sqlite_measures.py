from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from tests.integration.operations.databases import filled_database
from worker_service.operations.sqlite.location import Location
from worker_service.operations.sqlite.measures import read_measures, snapshot, statistics_changed


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return filled_database(tmp_path / "app.db", journal="wal")


@pytest.fixture
def connection(path: Path) -> Iterator[apsw.Connection]:
    connection = apsw.Connection(str(path))
    yield connection
    connection.close()


class TestSnapshot:
    def test_all_of_a_block_sees_one_state(self, path: Path, connection: apsw.Connection) -> None:
        other = apsw.Connection(str(path))
        with snapshot(connection):
            before = connection.pragma("page_count")
            other.execute("CREATE TABLE more (a); INSERT INTO more VALUES (zeroblob(100000))")
            within = connection.pragma("page_count")
        after = connection.pragma("page_count")
        other.close()

        assert within == before
        assert after > before

    def test_nothing_is_left_open_after_a_failure(self, connection: apsw.Connection) -> None:
        with pytest.raises(apsw.SQLError), snapshot(connection):
            connection.execute("SELECT * FROM no_such_table")

        assert not connection.in_transaction

    def test_one_within_another_ends_with_the_outer(self, connection: apsw.Connection) -> None:
        with snapshot(connection):
            with snapshot(connection):
                pass
            assert connection.in_transaction

        assert not connection.in_transaction

    def test_an_interrupt_between_the_reads_hides_nothing(self, connection: apsw.Connection) -> None:
        connection.set_progress_handler(lambda: True, 1)

        with snapshot(connection):
            connection.set_progress_handler(None)
            pages = connection.pragma("page_count")
            connection.set_progress_handler(lambda: True, 1)

        assert pages > 0


class TestMeasures:
    def test_they_lock_the_file_once(self, path: Path, connection: apsw.Connection) -> None:
        connection.execute("ANALYZE")
        begun: list[str] = []
        connection.trace_v2(apsw.SQLITE_TRACE_STMT, lambda event: begun.append(event["sql"]))

        measures = read_measures(connection, Location(path=str(path)))

        assert begun[0] == "BEGIN"
        assert begun[-1] == "COMMIT"
        assert measures["pages"] == connection.pragma("page_count")
        assert measures["stat_rows"] > 0
        assert not connection.in_transaction


class TestStatisticsChanged:
    def test_the_order_of_rows_does_not_matter(self) -> None:
        rows: list[tuple[object, ...]] = [("t", "i", 1), ("t", "j", 2), ("t", "i", 3)]

        assert statistics_changed({"sqlite_stat4": rows}, {"sqlite_stat4": rows[::-1]}) == 0

    def test_a_row_that_is_there_twice_is_not_the_same(self) -> None:
        old: list[tuple[object, ...]] = [("t", "i", 1), ("t", "i", 1), ("t", "i", 2)]
        new: list[tuple[object, ...]] = [("t", "i", 1), ("t", "i", 2), ("t", "i", 2)]

        assert statistics_changed({"sqlite_stat4": old}, {"sqlite_stat4": new}) == 1

    def test_what_is_new_or_gone_counts(self) -> None:
        old: list[tuple[object, ...]] = [("t", "i", "10 1")]
        new: list[tuple[object, ...]] = [("t", "j", "10 1")]

        assert statistics_changed({"sqlite_stat1": old}, {"sqlite_stat1": new}) == 2
