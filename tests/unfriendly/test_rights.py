"""What the worker's user may not read or write; root may everything, so the tests give its rights up."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.operations.databases import names_in
from tests.integration.operations.doubles import operation, run, target_at
from tests.unfriendly.ground import (
    CHECKS,
    DEFAULTS,
    PATIENCE,
    ROOT,
    Told,
    bytes_stay,
    indexed_database,
    open_folder,
    other,
    rows_stay,
    told,
    without_rights,
)
from tests.unfriendly.small_disk import namespace
from worker_service.domain.errors import InvalidTargetError, TargetUnavailableError
from worker_service.domain.outcome import FailureCategory, Outcome, Result, Verdict
from worker_service.operations.sqlite import SqliteEngine

EVERY = (*DEFAULTS, *CHECKS)
DENIED = Told(reason="PERMISSION_DENIED", category=FailureCategory.PERMISSION)
AS_ANOTHER = "Run the worker as a user that may read and write it"


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as folder:
        yield folder


def run_without_rights(path: Path, name: str) -> Result:
    with without_rights():
        return run(path, name)


def refused_plan(path: Path, name: str) -> str:
    with without_rights(), pytest.raises(TargetUnavailableError) as caught:
        SqliteEngine().plan(target_at(path), operation(name))
    return str(caught.value)


class TestFile:
    @pytest.mark.parametrize("name", EVERY)
    @pytest.mark.parametrize("mode", [0o000, 0o222])
    def test_one_that_may_not_be_read_fails_at_once(self, folder: Path, name: str, mode: int) -> None:
        path = indexed_database(folder / "app.db")
        path.chmod(mode)

        with rows_stay(path):
            result = run_without_rights(path, name)

        assert told(result) == DENIED
        assert result.reason.startswith("Permission denied: the worker's user may not read the database file. ")
        assert AS_ANOTHER in result.reason
        assert AS_ANOTHER in refused_plan(path, name)

    @pytest.mark.parametrize("name", DEFAULTS)
    def test_one_that_may_not_be_written_fails(self, folder: Path, name: str) -> None:
        path = indexed_database(folder / "app.db")
        path.chmod(0o444)

        with rows_stay(path):
            result = run_without_rights(path, name)

        assert told(result) == Told(reason="SQLITE_READONLY", category=FailureCategory.PERMISSION)
        assert "may not write the database file: grant it" in result.reason

    @pytest.mark.parametrize("name", CHECKS)
    def test_a_check_needs_no_right_to_write(self, folder: Path, name: str) -> None:
        path = indexed_database(folder / "app.db")
        path.chmod(0o444)
        folder.chmod(0o555)

        with bytes_stay(path):
            result = run_without_rights(path, name)

        assert result.verdict is Verdict.EFFECTIVE

    @pytest.mark.parametrize("name", EVERY)
    def test_one_in_wal_mode_that_may_not_be_written_gets_no_log_of_a_stranger(
        self, folder: Path, name: str
    ) -> None:
        path = indexed_database(folder / "app.db", journal="wal")
        path.chmod(0o444)

        with rows_stay(path):
            result = run_without_rights(path, name)
            plan = refused_plan(path, name)
            assert names_in(folder) == ["app.db"]

        assert told(result).category is FailureCategory.PERMISSION
        assert not told(result).retryable
        for text in (result.reason, plan):
            assert "WAL mode and the worker's user may not write its file" in text
            assert AS_ANOTHER in text


class TestFolder:
    @pytest.mark.parametrize("name", EVERY)
    def test_one_that_may_not_be_entered_is_no_missing_file(self, folder: Path, name: str) -> None:
        path = indexed_database(folder / "app.db")

        with rows_stay(path):
            folder.chmod(0o000)
            result = run_without_rights(path, name)
            plan = refused_plan(path, name)
            with without_rights(), pytest.raises(InvalidTargetError, match=AS_ANOTHER):
                SqliteEngine().check(target_at(path))
            with without_rights(), pytest.raises(TargetUnavailableError, match=AS_ANOTHER):
                SqliteEngine().describe(target_at(path))
            folder.chmod(0o777)

        assert told(result) == DENIED
        assert result.reason == plan
        assert result.reason.startswith(
            "Permission denied: the worker's user may not enter the database's folder. "
        )

    @pytest.mark.parametrize("name", DEFAULTS)
    def test_one_that_may_not_be_written_has_no_place_for_the_journal(self, folder: Path, name: str) -> None:
        path = indexed_database(folder / "app.db")
        path.chmod(0o666)
        folder.chmod(0o555)

        with rows_stay(path):
            result = run_without_rights(path, name)

        assert told(result) == Told(reason="SQLITE_READONLY_DIRECTORY", category=FailureCategory.PERMISSION)
        assert "folder, where the journal goes: grant it" in result.reason

    @pytest.mark.parametrize("name", EVERY)
    @pytest.mark.parametrize("mode", [0o666, 0o444])
    def test_in_wal_mode_it_has_no_place_for_the_log_and_its_index(
        self, folder: Path, name: str, mode: int
    ) -> None:
        path = indexed_database(folder / "app.db", journal="wal")
        path.chmod(mode)

        with rows_stay(path):
            folder.chmod(0o555)
            result = run_without_rights(path, name)
            plan = refused_plan(path, name)
            folder.chmod(0o777)

        assert told(result).category is FailureCategory.PERMISSION
        assert not told(result).retryable
        for text in (result.reason, plan):
            assert "worker's user may not write the database's folder" in text
            assert "WAL mode" in text
            assert "-shm" in text
            assert "where the journal goes" not in text


class TestFilesBesideIt:
    @pytest.mark.parametrize("name", EVERY)
    def test_a_log_of_another_user_that_may_not_be_read_is_named(self, folder: Path, name: str) -> None:
        path = indexed_database(folder / "app.db", journal="wal")
        path.chmod(0o600)
        with other("write beside", path) as writer:
            path.chmod(0o666)

            result = run_without_rights(path, name)

            writer.go_on()
        assert told(result) == DENIED
        assert "app.db-wal and app.db-shm beside the database" in result.reason
        assert AS_ANOTHER in result.reason
        with rows_stay(path):
            path.chmod(0o666)

    @pytest.mark.parametrize("name", DEFAULTS)
    def test_one_that_may_be_read_only_keeps_it_from_writing(self, folder: Path, name: str) -> None:
        path = indexed_database(folder / "app.db", journal="wal")
        path.chmod(0o644)
        with other("write beside", path) as writer:
            path.chmod(0o666)

            with rows_stay(path):
                result = run_without_rights(path, name)

            writer.go_on()
        assert told(result) == Told(reason="SQLITE_READONLY", category=FailureCategory.PERMISSION)
        assert "app.db-wal and app.db-shm beside the database" in result.reason

    def test_a_check_may_read_such_a_log(self, folder: Path) -> None:
        path = indexed_database(folder / "app.db", journal="wal")
        path.chmod(0o644)
        with other("write beside", path) as writer:
            result = run_without_rights(path, "integrity_check")

            writer.go_on()
        assert result.outcome is Outcome.COMPLETED
        assert names_in(folder) == ["app.db"]


class TestMountedReadOnly:
    @pytest.mark.parametrize(("journal", "names"), [("delete", DEFAULTS), ("wal", EVERY)])
    def test_root_may_not_write_either_and_hears_why(
        self, tmp_path: Path, journal: str, names: tuple[str, ...]
    ) -> None:
        path = indexed_database(tmp_path / "app.db", journal=journal)
        code = (
            "import sys; from tests.integration.operations.doubles import run\n"
            "for name in sys.argv[2:]: print(run(sys.argv[1], name).failure)"
        )
        mount = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'

        with rows_stay(path):
            done = subprocess.run(
                [*namespace(), "sh", "-c", mount, str(tmp_path), sys.executable, "-c", code, str(path), *names],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=True,
            )

        failures = done.stdout.splitlines()
        assert len(failures) == len(names)
        for failure in failures:
            assert "The file system is mounted read-only" in failure
            assert "retryable=False" in failure
            assert ("-shm" in failure) is (journal == "wal")
