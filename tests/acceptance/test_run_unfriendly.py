"""`overhaul run` over several unfriendly files and a healthy one: each gets its own verdict, the rest is done."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.test_run import environment, left_behind, overhaul_run, programs_of
from tests.integration.operations.databases import content, names_in, query, with_foreign_collation
from tests.unfriendly.ground import DEFAULTS, PATIENCE, indexed_database, open_folder, other
from tests.unfriendly.small_disk import namespace
from tests.unfriendly.test_damage import NOISE, PAGE, overwritten, page_in_the_middle
from tests.unfriendly.test_killed import left_by_a_killed_process

WITHOUT_RIGHTS = (
    "setpriv",
    "--bounding-set=-dac_override,-dac_read_search",
    "--inh-caps=-dac_override,-dac_read_search",
)
"""Root as a user like any other: what the modes of its files forbid, it may not do."""
ON_A_FULL_DISK = """
mkdir full
mount -t tmpfs -o size=1m tmpfs full
mv full.db full/full.db
head -c 2000000 /dev/zero > full/ballast 2> /dev/null || true
code=0
"$@" || code=$?
rm full/ballast
mv full/full.db full.db
umount full
rmdir full
exit $code
"""


def ends(stdout: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the children by target and operation."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for child in json.loads(stdout)["child_jobs"]:
        found.setdefault(child["target"], {})[child["operation"]] = child
    return found


def failures(children: dict[str, dict[str, Any]]) -> set[tuple[str, str, bool]]:
    """Return how the operations of a target failed; every one of them has to."""
    assert set(children) == set(DEFAULTS)
    assert {child["state"] for child in children.values()} == {"failed"}
    assert all(child["failure"]["message"].endswith(".") for child in children.values())
    told = [child["failure"] for child in children.values()]
    return {(one["reason"], one["category"], one["retryable"]) for one in told}


def verdicts(children: dict[str, dict[str, Any]]) -> list[str]:
    return [str(children[name]["verdict"]) for name in DEFAULTS]


def started(folder: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command,
        cwd=folder,
        env=environment(folder / "tmp") | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def unfriendly_files(folder: Path) -> dict[str, str]:
    """Make the files; return the rows of those that can be read, by their names."""
    for name in ("healthy", "linked", "cut", "middle", "hard"):
        indexed_database(folder / f"{name}.db")
    indexed_database(folder / "full.db", rows=1_500)
    with_foreign_collation(folder / "foreign.db")
    (folder / "zero.db").touch()
    (folder / "encrypted.db").write_bytes(NOISE)
    (folder / "cut.db").write_bytes((folder / "cut.db").read_bytes()[: 20 * PAGE])
    overwritten(folder / "middle.db", page_in_the_middle(folder / "middle.db", "item"), NOISE[:PAGE])
    (folder / "alias.db").symlink_to("linked.db")
    (folder / "second-name.db").hardlink_to(folder / "hard.db")
    (folder / "killed").mkdir()
    rows = {"killed/app.db": left_by_a_killed_process(folder / "killed" / "app.db")}
    whole = ("healthy.db", "linked.db", "full.db", "foreign.db", "hard.db")
    return rows | {name: content(folder / name) for name in whole}


class TestUnfriendlyFiles:
    def test_each_gets_its_own_verdict_and_the_healthy_one_is_maintained(self, tmp_path: Path) -> None:
        rows = unfriendly_files(tmp_path)
        known = [*names_in(tmp_path), "full"]
        damaged = {name: (tmp_path / name).read_bytes() for name in ("encrypted.db", "cut.db", "zero.db")}
        targets = ["encrypted.db", "cut.db", "middle.db", "zero.db", "alias.db", "killed=killed/app.db"]
        targets += ["full/full.db", "foreign.db", "hard.db", "healthy.db"]
        run = [sys.executable, "-m", "manager_service.client", "run", *targets, "--output", "json"]

        done = started(tmp_path, *namespace(), "sh", "-ec", ON_A_FULL_DISK, "sh", *run)

        assert done.returncode == 1, done.stderr
        told = ends(done.stdout)
        assert json.loads(done.stdout)["parent_job"]["state"] == "partially_completed"
        for healthy in ("healthy", "alias", "killed"):
            assert verdicts(told[healthy]) == ["effective"] * 3
        assert failures(told["encrypted"]) == {("SQLITE_NOTADB", "not_a_database", False)}
        assert failures(told["cut"]) == {("SQLITE_CORRUPT", "corrupt", False)}
        assert {told["middle"][name]["failure"]["category"] for name in ("vacuum", "reindex")} == {"corrupt"}
        assert {child["state"] for child in told["zero"].values()} == {"skipped"}
        assert failures(told["full"]) == {
            ("NO_SPACE_FOR_VACUUM", "disk_full", False),
            ("SQLITE_FULL", "disk_full", False),
        }
        assert told["foreign"]["vacuum"]["failure"]["category"] == "schema"
        assert verdicts(told["foreign"])[1:] == ["partially_effective"] * 2
        assert failures(told["hard"]) == {("SEVERAL_LINKS", "invalid", False)}
        assert {name: content(tmp_path / name) for name in rows} == rows
        assert {name: (tmp_path / name).read_bytes() for name in damaged} == damaged
        assert query(tmp_path / "healthy.db", "PRAGMA integrity_check") == [("ok",)]
        assert left_behind(tmp_path, *known) == []
        assert names_in(tmp_path / "killed") == ["app.db"]
        assert not programs_of(tmp_path)

    def test_a_missing_right_is_told_once_and_not_tried_again(self) -> None:
        with open_folder() as folder:
            for name in ("healthy", "secret", "read-only", "logged"):
                indexed_database(folder / f"{name}.db", journal="wal" if name == "logged" else "delete")
            (folder / "closed").mkdir()
            (folder / "logged.db").rename(folder / "closed" / "logged.db")
            modes = {"healthy.db": 0o666, "secret.db": 0o000, "read-only.db": 0o444, "closed/logged.db": 0o666}
            rows = {name: content(folder / name) for name in modes}
            for name, mode in (modes | {"closed": 0o555}).items():
                (folder / name).chmod(mode)
            run = (sys.executable, "-m", "manager_service.client", "run", *modes, "--output", "json")

            done = started(folder, *(WITHOUT_RIGHTS if os.geteuid() == 0 else ()), *run)

            (folder / "closed").chmod(0o777)
            (folder / "secret.db").chmod(0o600)

            assert done.returncode == 1, done.stderr
            told = ends(done.stdout)
            assert verdicts(told["healthy"]) == ["effective"] * 3
            assert failures(told["secret"]) == {("PERMISSION_DENIED", "permission", False)}
            assert failures(told["read-only"]) == {("SQLITE_READONLY", "permission", False)}
            assert failures(told["logged"]) == {("SQLITE_READONLY_DIRECTORY", "permission", False)}
            assert all("-shm" in child["failure"]["message"] for child in told["logged"].values())
            assert {child["attempts"] for children in told.values() for child in children.values()} == {1}
            assert {name: content(folder / name) for name in rows} == rows
            assert left_behind(folder, "healthy.db", "secret.db", "read-only.db", "closed") == []
            assert names_in(folder / "closed") == ["logged.db"]
            assert not programs_of(folder)

    def test_a_lock_that_never_ends_is_told_after_the_attempts_and_keeps_nobody_else_waiting(
        self, tmp_path: Path
    ) -> None:
        for name in ("locked", "healthy"):
            indexed_database(tmp_path / f"{name}.db")
        rows = content(tmp_path / "locked.db")

        with other("lock for writing", tmp_path / "locked.db"):
            code, stdout, stderr = overhaul_run(
                tmp_path, "locked.db", "healthy.db", "--operation", "vacuum:busy_timeout_ms=50", "--output", "json"
            )

        assert code == 1, stderr
        told = {target: children["vacuum"] for target, children in ends(stdout).items()}
        assert told["healthy"]["verdict"] == "effective"
        assert told["locked"]["attempts"] == 3
        failure = told["locked"]["failure"]
        assert (failure["reason"], failure["category"], failure["retryable"]) == ("SQLITE_BUSY", "locked", True)
        assert "end its transaction, or allow a longer busy_timeout_ms" in failure["message"]
        assert content(tmp_path / "locked.db") == rows
        assert left_behind(tmp_path, "locked.db", "healthy.db") == []
        assert not programs_of(tmp_path)


class TestOneDatabaseTwice:
    @pytest.fixture
    def database(self, tmp_path: Path) -> Path:
        return indexed_database(tmp_path / "app.db")

    @pytest.mark.parametrize("second", ["app.db", "./app.db", "sqlite:///app.db", "link.db", "again=app.db"])
    @pytest.mark.parametrize("more", [(), ("--dry-run",), ("--store", "sqlite:///store.db")])
    def test_it_is_refused_in_one_sentence_that_names_both(
        self, tmp_path: Path, database: Path, second: str, more: tuple[str, ...]
    ) -> None:
        (tmp_path / "link.db").symlink_to(database)
        indexed_database(tmp_path / "between.db", rows=10)
        before = database.read_bytes()

        code, stdout, stderr = overhaul_run(tmp_path, "app.db", "between.db", second, *more)

        assert code == 2, stderr
        assert stdout == ""
        assert len(stderr.splitlines()) == 1
        assert "'app' (app.db) and '" in stderr
        assert f"({second.removeprefix('again=')}) are one database: name it once." in stderr
        assert database.read_bytes() == before
        assert left_behind(tmp_path, "app.db", "link.db", "between.db") == []
        assert not programs_of(tmp_path)

    def test_a_hard_link_is_the_same_database(self, tmp_path: Path, database: Path) -> None:
        (tmp_path / "hard.db").hardlink_to(database)

        code, _, stderr = overhaul_run(tmp_path, "app.db", "hard.db")

        assert code == 2
        assert (
            stderr == "overhaul: The targets 'app' (app.db) and 'hard' (hard.db) are one database: name it once.\n"
        )

    def test_two_files_of_one_name_are_two(self, tmp_path: Path, database: Path) -> None:
        (tmp_path / "there").mkdir()
        indexed_database(tmp_path / "there" / "app.db")

        code, stdout, stderr = overhaul_run(tmp_path, "app.db", "there/app.db", "--output", "json")

        assert code == 0, stderr
        assert sorted(ends(stdout)) == ["app", "app-2"]
