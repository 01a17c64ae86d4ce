"""Files that are damaged, encrypted, cut off, empty, or no database at all."""

import random
from pathlib import Path

import apsw
import pytest

from tests.integration.operations.databases import names_in
from tests.integration.operations.doubles import operation, run, target_at
from tests.unfriendly.ground import CHECKS, DEFAULTS, Told, bytes_stay, indexed_database, told
from worker_service.domain.errors import TargetUnavailableError
from worker_service.domain.outcome import FailureCategory, Outcome, Verdict
from worker_service.operations.sqlite import SqliteEngine
from worker_service.operations.sqlite.catalogue import PROCEDURES
from worker_service.operations.sqlite.measures import empty_measures

PAGE = 4096
EVERY = (*DEFAULTS, *CHECKS)
NO_DATABASE = Told(reason="SQLITE_NOTADB", category=FailureCategory.NOT_A_DATABASE)
DAMAGED = Told(reason="SQLITE_CORRUPT", category=FailureCategory.CORRUPT)
NOISE = random.Random(7).randbytes(4 * PAGE)


def overwritten(path: Path, place: int, data: bytes) -> Path:
    whole = bytearray(path.read_bytes())
    whole[place : place + len(data)] = data
    path.write_bytes(whole)
    return path


def page_in_the_middle(path: Path, of: str) -> int:
    connection = apsw.Connection(str(path))
    leaves = "SELECT pageno FROM dbstat WHERE name = ? AND pagetype = 'leaf' ORDER BY pageno"
    pages = [int(row[0]) for row in connection.execute(leaves, (of,))]
    connection.close()
    return (pages[len(pages) // 2] - 1) * PAGE


def readable_rows(path: Path) -> dict[int, object]:
    """What can be read of the rows, one by one."""
    connection = apsw.Connection(str(path))
    rows: dict[int, object] = {}
    for number in range(3_000):
        try:
            found = connection.execute("SELECT id, name, body FROM item NOT INDEXED WHERE id = ?", (number,))
            rows[number] = found.fetchall()
        except apsw.CorruptError:
            rows[number] = "damaged"
    connection.close()
    return rows


def refused_plan(path: Path, name: str) -> str:
    with pytest.raises(TargetUnavailableError) as caught:
        SqliteEngine().plan(target_at(path), operation(name))
    return str(caught.value)


@pytest.mark.parametrize("name", sorted(PROCEDURES))
class TestNoDatabase:
    @pytest.mark.parametrize(
        "data",
        [
            pytest.param(NOISE, id="encrypted"),
            pytest.param(b"SQLite format 4\0" + NOISE, id="another version"),
            pytest.param(b"A text, and no database at all. " * 400, id="text"),
        ],
    )
    def test_one_verdict_for_what_is_encrypted_and_what_is_something_else(
        self, tmp_path: Path, name: str, data: bytes
    ) -> None:
        path = tmp_path / "app.db"
        path.write_bytes(data)

        with bytes_stay(path):
            result = run(path, name)

        assert told(result) == NO_DATABASE
        assert "not a SQLite database, or it is encrypted: check the target's path" in result.reason
        assert "encrypted" in refused_plan(path, name)
        assert names_in(tmp_path) == ["app.db"]

    @pytest.mark.parametrize(
        ("place", "data"),
        [
            pytest.param(0, b"\0" * 16, id="magic"),
            pytest.param(16, b"\x00\x07", id="page size"),
            pytest.param(18, b"\x07\x07", id="version"),
        ],
    )
    def test_a_damaged_header_says_the_same(self, tmp_path: Path, name: str, place: int, data: bytes) -> None:
        path = overwritten(indexed_database(tmp_path / "app.db"), place, data)

        with bytes_stay(path):
            result = run(path, name)

        assert told(result) == NO_DATABASE
        assert "encrypted" in refused_plan(path, name)

    @pytest.mark.parametrize("size", [1, 0])
    def test_a_file_without_a_header_does_not_grow(self, tmp_path: Path, name: str, size: int) -> None:
        path = tmp_path / "app.db"
        path.write_bytes(b"x" * size)

        with bytes_stay(path):
            result = run(path, name)

        if size:
            assert told(result) == NO_DATABASE
            assert "single byte" in refused_plan(path, name)
        else:
            assert (result.outcome, result.failure) == (Outcome.SKIPPED, None)
            assert result.reason == "the file has zero bytes: nothing to do."
            assert result.before == result.after == empty_measures()
            assert SqliteEngine().plan(target_at(path), operation(name)) == ()


class TestDamaged:
    @pytest.mark.parametrize("name", EVERY)
    @pytest.mark.parametrize("left", [50, PAGE, 20 * PAGE])
    def test_a_file_that_was_cut_off_is_damaged(self, tmp_path: Path, name: str, left: int) -> None:
        path = indexed_database(tmp_path / "app.db")
        path.write_bytes(path.read_bytes()[:left])

        with bytes_stay(path):
            result = run(path, name)

        assert told(result).category is FailureCategory.CORRUPT
        assert not told(result).retryable
        assert "restore a backup" in result.reason

    @pytest.mark.parametrize("name", EVERY)
    def test_a_damaged_schema_page_is_told(self, tmp_path: Path, name: str) -> None:
        path = overwritten(indexed_database(tmp_path / "app.db"), 100, b"\xff" * 100)

        with bytes_stay(path):
            result = run(path, name)

        assert told(result) == DAMAGED
        assert "keep a copy, then restore a backup or use .recover" in result.reason

    @pytest.mark.parametrize("name", ["vacuum", "reindex", "integrity_check", "quick_check"])
    def test_a_damaged_page_in_the_middle_of_a_table_fails_what_reads_it(self, tmp_path: Path, name: str) -> None:
        path = indexed_database(tmp_path / "app.db")
        overwritten(path, page_in_the_middle(path, "item"), NOISE[:PAGE])

        with bytes_stay(path):
            result = run(path, name)

        assert told(result).category is FailureCategory.CORRUPT
        assert not told(result).retryable
        assert "eep a copy" in result.reason
        assert "restore a backup" in result.reason

    def test_analyze_reads_the_indexes_alone_and_leaves_the_damage_as_it_is(self, tmp_path: Path) -> None:
        path = indexed_database(tmp_path / "app.db")
        overwritten(path, page_in_the_middle(path, "item"), NOISE[:PAGE])
        rows = readable_rows(path)

        result = run(path, "analyze")

        assert (result.outcome, result.verdict) == (Outcome.COMPLETED, Verdict.EFFECTIVE)
        assert readable_rows(path) == rows
        assert "damaged" in rows.values()

    def test_a_damaged_page_of_an_index_is_told_and_the_other_index_rebuilt(self, tmp_path: Path) -> None:
        path = indexed_database(tmp_path / "app.db")
        rows = readable_rows(path)
        overwritten(path, page_in_the_middle(path, "item_body"), NOISE[:PAGE])

        with bytes_stay(path):
            ends = {told(run(path, name)).category for name in ("vacuum", "analyze", "integrity_check")}
        result = run(path, "reindex")

        assert ends == {FailureCategory.CORRUPT}
        assert (result.outcome, result.verdict) == (Outcome.COMPLETED, Verdict.PARTIALLY_EFFECTIVE)
        assert result.reason.startswith("rebuilt 1 of 2 indexes; failed: item_body: The database is damaged")
        assert readable_rows(path) == rows
        assert "damaged" not in rows.values()
