"""Disks that are full, for real: a small tmpfs, and a limit on the size of files."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.operations.databases import names_in
from tests.unfriendly.ground import DEFAULTS, PATIENCE, ROOT, indexed_database, rows_stay
from tests.unfriendly.small_disk import namespace


def program(*command: str, **variables: str) -> dict[str, Any]:
    environment = os.environ | variables
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def on_a_full_disk(folder: Path, how: str, operation: str, journal: str, **variables: str) -> dict[str, Any]:
    arguments = (str(folder), how, operation, journal)
    found = program(*namespace(), sys.executable, "-m", "tests.unfriendly.small_disk", *arguments, **variables)
    assert found["rows stayed"]
    assert found["sound"]
    assert set(found["names"]) <= {"app.db", folder.name}
    result: dict[str, Any] = found["result"]
    return result


@pytest.mark.parametrize("journal", ["delete", "wal"])
class TestFullDisk:
    def test_a_vacuum_that_would_not_fit_touches_nothing(self, tmp_path: Path, journal: str) -> None:
        result = on_a_full_disk(tmp_path, "too little", "vacuum", journal)

        failure = result["failure"]
        assert (failure["reason"], failure["category"]) == ("NO_SPACE_FOR_VACUUM", "disk_full")
        assert not failure["retryable"]
        assert f"free in {tmp_path}" in failure["message"]
        assert failure["message"].endswith("Nothing was touched: free space there.")

    def test_a_temporary_folder_that_is_too_small_is_told_with_the_setting_that_helps(
        self, tmp_path: Path, journal: str
    ) -> None:
        disk = tmp_path / "disk"
        disk.mkdir()

        result = on_a_full_disk(disk, "too little", "vacuum", journal, SQLITE_TMPDIR=str(disk))

        failure = result["failure"]
        assert (failure["reason"], failure["category"]) == ("NO_SPACE_FOR_VACUUM", "disk_full")
        assert f"free in {disk}, and there are" in failure["message"]
        assert "start the worker with SQLITE_TMPDIR on a larger file system." in failure["message"]

    def test_a_disk_that_becomes_full_during_a_vacuum_is_told(self, tmp_path: Path, journal: str) -> None:
        result = on_a_full_disk(tmp_path, "all but enough", "vacuum", journal)

        failure = result["failure"]
        assert (failure["reason"], failure["category"]) == ("SQLITE_FULL", "disk_full")
        assert not failure["retryable"]
        assert "free space, then run it again" in failure["message"]
        assert result["after"]["wal_bytes"] == 0

    @pytest.mark.parametrize("name", ["analyze", "reindex"])
    def test_a_full_disk_is_told_by_the_others_too(self, tmp_path: Path, journal: str, name: str) -> None:
        result = on_a_full_disk(tmp_path, "nothing", name, journal)

        failure = result["failure"]
        assert failure["category"] == "disk_full"
        assert not failure["retryable"]
        assert "free space, then run it again" in failure["message"]


class TestFileSizeLimit:
    @pytest.mark.parametrize("name", DEFAULTS)
    def test_a_limit_is_an_error_of_the_disk_that_names_the_limit(self, tmp_path: Path, name: str) -> None:
        path = indexed_database(tmp_path / "app.db")

        with rows_stay(path):
            result = program(sys.executable, "-m", "tests.unfriendly.others", "limited", str(path), name)

        failure = result["failure"]
        assert (failure["reason"], failure["category"]) == ("SQLITE_IOERR_WRITE", "io")
        assert failure["retryable"]
        assert "ulimit -f" in failure["message"]
        assert names_in(tmp_path) == ["app.db"]


class TestServers:
    """The server goes on, and so do the rows; what was not done is told, and nothing is left of it."""

    def test_postgresql_does_what_needs_no_room(self) -> None:
        found = program(*namespace(), sys.executable, "-m", "tests.unfriendly.small_servers", "postgresql")

        told = [(one["outcome"], one["failure"] and one["failure"]["category"]) for one in found["results"]]
        assert told == [("completed", None)] * 2 + [("failed", "disk_full")] * 4
        assert_as_it_was(found)

    def test_mariadb_does_what_needs_no_room(self) -> None:
        found = program(*namespace(), sys.executable, "-m", "tests.unfriendly.small_servers", "mariadb")

        told = [(one["outcome"], one["failure"] and one["failure"]["category"]) for one in found["results"]]
        assert told == [("failed", "disk_full")] * 2 + [("completed", None)] * 2
        assert found["waits"] == "vacuum: aria is waiting for someone to free space"
        assert_as_it_was(found)


def assert_as_it_was(found: dict[str, Any]) -> None:
    failures = [one["failure"] for one in found["results"] if one["failure"]]
    assert not any(failure["retryable"] for failure in failures)
    assert all("free space" in failure["message"] for failure in failures)
    assert (found["same files"], found["left"], found["rows stayed"]) == (True, [], True)
    assert found["afterwards"]["verdict"] == "effective"
