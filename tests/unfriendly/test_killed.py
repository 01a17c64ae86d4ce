"""Files that a process killed by SIGKILL left in the middle of a change, its journal beside them."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.operations.databases import content, names_in, query
from tests.integration.operations.doubles import operation, run, target_at
from tests.unfriendly.ground import (
    CHECKS,
    DEFAULTS,
    PATIENCE,
    ROOT,
    Told,
    indexed_database,
    open_folder,
    told,
    without_rights,
)
from worker_service.domain.errors import TargetUnavailableError
from worker_service.domain.outcome import FailureCategory, Outcome, Verdict
from worker_service.operations.sqlite import SqliteEngine


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as folder:
        yield folder


def left_by_a_killed_process(path: Path) -> str:
    """Leave a half-changed file and its hot journal; return the digest of the rows before the change."""
    indexed_database(path)
    rows, data = content(path), path.read_bytes()
    command = [sys.executable, "-m", "tests.unfriendly.others", "die", str(path)]
    done = subprocess.run(command, cwd=ROOT, timeout=PATIENCE, check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() != data, "nothing of the change is in the file"
    assert names_in(path.parent) == ["app.db", "app.db-journal"]
    return rows


class TestHotJournal:
    @pytest.mark.parametrize("name", DEFAULTS)
    def test_the_change_is_rolled_back_and_the_work_done(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / "app.db"
        rows = left_by_a_killed_process(path)

        result = run(path, name)

        assert (result.outcome, result.verdict) == (Outcome.COMPLETED, Verdict.EFFECTIVE)
        assert names_in(tmp_path) == ["app.db"]
        assert content(path) == rows
        assert query(path, "PRAGMA integrity_check") == [("ok",)]

    @pytest.mark.parametrize("name", CHECKS)
    def test_a_check_sees_the_file_as_it_was(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / "app.db"
        rows = left_by_a_killed_process(path)

        assert run(path, name).verdict is Verdict.EFFECTIVE
        assert content(path) == rows

    @pytest.mark.parametrize("name", [*DEFAULTS, "integrity_check"])
    def test_a_plan_rolls_nothing_back_and_says_who_does(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / "app.db"
        rows = left_by_a_killed_process(path)
        half = path.read_bytes()

        with pytest.raises(
            TargetUnavailableError, match="run an operation or open the application, then try again"
        ):
            SqliteEngine().plan(target_at(path), operation(name))

        assert path.read_bytes() == half
        assert names_in(tmp_path) == ["app.db", "app.db-journal"]
        assert content(path) == rows

    @pytest.mark.parametrize("name", [*DEFAULTS, "integrity_check"])
    @pytest.mark.parametrize(
        ("modes", "reason", "words"),
        [
            ((0o444, 0o666, 0o777), "SQLITE_READONLY_ROLLBACK", "may not write the database file: grant it"),
            ((0o666, 0o666, 0o555), "SQLITE_IOERR_DELETE", "folder, where the journal goes: grant it"),
            ((0o666, 0o600, 0o777), "PERMISSION_DENIED", "read and write app.db-journal beside the database"),
            ((0o666, 0o444, 0o777), "PERMISSION_DENIED", "read and write app.db-journal beside the database"),
        ],
    )
    def test_a_user_who_may_not_roll_back_hears_what_is_missing(
        self, folder: Path, name: str, modes: tuple[int, int, int], reason: str, words: str
    ) -> None:
        path = folder / "app.db"
        rows = left_by_a_killed_process(path)
        for one, mode in zip((path, folder / "app.db-journal", folder), modes, strict=True):
            one.chmod(mode)

        with without_rights():
            result = run(path, name)

        folder.chmod(0o777)
        assert told(result) == Told(reason=reason, category=FailureCategory.PERMISSION)
        assert words in result.reason
        assert content(path) == rows
        assert query(path, "PRAGMA integrity_check") == [("ok",)]
