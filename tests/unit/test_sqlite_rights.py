import os
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from worker_service.domain.outcome import FailureCategory
from worker_service.operations.sqlite.location import Location
from worker_service.operations.sqlite.opening import keeps_log
from worker_service.operations.sqlite.rights import Rights, failure_on, lacking, read_rights, unreachable


def error(code: int) -> apsw.Error:
    found = apsw.exception_for(code)
    assert isinstance(found, apsw.Error)
    return found


class TestLacking:
    @pytest.mark.parametrize(
        ("rights", "words"),
        [
            (Rights(), None),
            (Rights(log=True, journal=True), None),
            (Rights(reads=False, writes=False), "may not read the database file"),
            (Rights(mounted_read_only=True, writes=False, writes_folder=False), "mounted read-only: mount it"),
            (Rights(mounted_read_only=True, log=True), "mounted read-only, and the database is in WAL mode"),
            (Rights(log=True, writes_folder=False), "folder, and the database is in WAL mode"),
            (Rights(log=True, writes_folder=False, writes=False), "folder, and the database is in WAL mode"),
            (Rights(log=True, writes=False), "in WAL mode and the worker's user may not write its file"),
            (Rights(foreign=("a.db-wal", "a.db-shm")), "may not read and write a.db-wal and a.db-shm beside"),
            (Rights(foreign=("a.db-wal",), writes=False, log=True), "may not write its file"),
            (Rights(writes=False), "The worker's user may not write the database file: grant it"),
            (
                Rights(writes=False, journal=True),
                "roll back and remove first, and the worker's user may not write",
            ),
            (Rights(writes_folder=False, writes=False), "may not write the database file: grant it"),
            (Rights(writes_folder=False), "may not write the database's folder, where the journal goes"),
            (Rights(writes_folder=False, journal=True), "A process that was killed left a journal"),
        ],
    )
    def test_the_first_missing_right_is_worded(self, rights: Rights, words: str | None) -> None:
        found = lacking(rights)

        assert found is None if words is None else words in (found or "")


class TestFailureOn:
    @pytest.fixture
    def location(self, tmp_path: Path) -> Location:
        apsw.Connection(str(tmp_path / "app.db")).execute("CREATE TABLE t(a)").fetchall()
        return Location(path=str(tmp_path / "app.db"))

    @pytest.mark.parametrize(
        ("code", "category"),
        [
            (apsw.SQLITE_CANTOPEN, FailureCategory.UNAVAILABLE),
            (apsw.SQLITE_READONLY_ROLLBACK, FailureCategory.UNAVAILABLE),
            (apsw.SQLITE_READONLY_DBMOVED, FailureCategory.UNAVAILABLE),
            (apsw.SQLITE_FULL, FailureCategory.DISK_FULL),
        ],
    )
    def test_with_every_right_the_error_means_what_it_says(
        self, location: Location, code: int, category: FailureCategory
    ) -> None:
        failure = failure_on(location, error(code))

        assert failure.category is category
        assert failure.message.endswith(".")
        assert "()" not in failure.message

    def test_a_file_that_is_moved_is_not_a_matter_of_rights(self, tmp_path: Path) -> None:
        gone = Location(path=str(tmp_path / "gone.db"))

        failure = failure_on(gone, error(apsw.SQLITE_READONLY_DBMOVED))

        assert failure.category is FailureCategory.UNAVAILABLE

    def test_the_rights_of_a_file_that_is_gone_can_be_asked(self, tmp_path: Path) -> None:
        rights = read_rights(Location(path=str(tmp_path / "no folder" / "gone.db")))

        assert not rights.reads
        assert not rights.log


class TestUnreachable:
    def test_a_closed_folder_is_not_a_missing_file(self) -> None:
        assert unreachable(PermissionError(13, os.strerror(13))).category is FailureCategory.PERMISSION
        assert unreachable(FileNotFoundError(2, os.strerror(2))).reason == "FILE_MISSING"


class TestKeepsLog:
    @pytest.mark.parametrize("journal", ["delete", "wal"])
    def test_it_is_read_from_the_file_and_leaves_nothing_beside_it(self, tmp_path: Path, journal: str) -> None:
        path = tmp_path / "app.db"
        connection = apsw.Connection(str(path))
        connection.pragma("journal_mode", journal)
        connection.execute("CREATE TABLE t(a)")
        connection.close()

        assert keeps_log(Location(path=str(path))) is (journal == "wal")
        assert [found.name for found in tmp_path.iterdir()] == ["app.db"]

    def test_it_drops_no_lock_that_this_process_holds(self, tmp_path: Path) -> None:
        connection = apsw.Connection(str(tmp_path / "app.db"))
        connection.execute("CREATE TABLE t(a); BEGIN EXCLUSIVE")

        keeps_log(Location(path=str(tmp_path / "app.db")))

        code = "import apsw, sys; apsw.Connection(sys.argv[1]).execute('SELECT * FROM t')"
        command = [sys.executable, "-c", code, str(tmp_path / "app.db")]
        other = subprocess.run(command, capture_output=True, text=True, check=False)
        connection.close()
        assert "BusyError" in other.stderr
