"""`overhaul run` with a real PostgreSQL database, as a user types it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.operations.databases import filled_database
from tests.integration.operations.postgres_ground import change, file_of, holding, invalid, until, value

PATIENCE = 60.0
DEAD = "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 't'"
WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted"


@contextmanager
def overhaul(folder: Path, *arguments: str, **variables: str) -> Iterator["subprocess.Popen[str]"]:
    clean = {name: text for name, text in os.environ.items() if not name.startswith(("OVERHAUL_", "PG"))}
    process = subprocess.Popen(
        [sys.executable, "-m", "manager_service.client", "run", *arguments],
        cwd=folder,
        env={**clean, "PYTHONPATH": os.pathsep.join(sys.path), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def run(folder: Path, *arguments: str, **variables: str) -> tuple[int | None, str, str]:
    with overhaul(folder, *arguments, **variables) as process:
        stdout, stderr = process.communicate(timeout=PATIENCE)
        return process.returncode, stdout, stderr


@pytest.fixture
def url(postgres_url: str) -> str:
    change(
        postgres_url,
        # The server would vacuum it by itself when it comes to it.
        "CREATE TABLE t (a int PRIMARY KEY) WITH (autovacuum_enabled = off)",
        "INSERT INTO t SELECT generate_series(1, 1000)",
        "DELETE FROM t WHERE a % 2 = 0",
    )
    return postgres_url


def test_the_default_operations_are_done_table_by_table_and_told(url: str, tmp_path: Path) -> None:
    before = file_of(url, "t_pkey")
    filled_database(tmp_path / "app.db")

    code, stdout, stderr = run(tmp_path, url, "app.db", "--include", "t", "--output", "json")

    children = [child for child in json.loads(stdout)["child_jobs"] if child["operation"] != "inspect"]
    assert code == 0, stderr
    assert sorted((child["object"] or "", child["operation"]) for child in children) == [
        (where, operation) for where in ("", "public.t") for operation in ("analyze", "reindex", "vacuum")
    ]
    assert {child["state"] for child in children} == {"completed"}
    assert {child["verdict"] for child in children if child["object"]} == {"effective"}
    assert value(url, DEAD) == 0
    assert file_of(url, "t_pkey") != before
    [vacuumed] = [one for one in children if (one["operation"], one["object"]) == ("vacuum", "public.t")]
    assert "dead rows" in vacuumed["reason"]


def test_a_whole_database_is_walked_where_that_is_asked_for(url: str, tmp_path: Path) -> None:
    code, stdout, stderr = run(tmp_path, url, "--scope", "database", "--output", "json")

    children = json.loads(stdout)["child_jobs"]
    assert code == 0, stderr
    assert [child["operation"] for child in children] == ["vacuum", "analyze", "reindex"]
    assert {(child["state"], child["verdict"]) for child in children} == {("completed", "effective")}


def test_a_dry_run_shows_statements_and_changes_nothing(url: str, tmp_path: Path) -> None:
    code, stdout, _ = run(tmp_path, url, "--dry-run", "--scope", "database", "--operation", "reindex")

    assert code == 0
    assert 'REINDEX INDEX CONCURRENTLY "public"."t_pkey"' in stdout.splitlines()
    assert value(url, DEAD) == 500


def test_a_selection_that_nothing_fits_is_warned_of(url: str, tmp_path: Path) -> None:
    code, stdout, stderr = run(tmp_path, url, "--include", "publik.t", "--output", "json")

    [inspect] = json.loads(stdout)["child_jobs"]
    assert (code, inspect["state"], inspect["verdict"]) == (0, "skipped", None)
    assert inspect["reason"].startswith("nothing fits 'publik.t'; names like it are public.t")
    assert f"warning: inspect {inspect['target']}: {inspect['reason']}" in stderr.splitlines()
    assert value(url, DEAD) == 500


class TestTableByTable:
    WORTH_IT = (
        "--scope",
        "table",
        "--operation",
        "vacuum",
        "--include",
        "public.*",
        "--only-if",
        "dead_ratio > 0.1",
    )

    @pytest.fixture
    def url(self, url: str) -> str:
        change(
            url,
            'CREATE TABLE "An odd.na%me" (a int PRIMARY KEY)',
            'INSERT INTO "An odd.na%me" SELECT generate_series(1, 10)',
        )
        until(lambda: value(url, DEAD) == 500)
        return url

    def test_a_plan_shows_what_would_be_done_to_which_and_changes_nothing(self, url: str, tmp_path: Path) -> None:
        code, stdout, stderr = run(tmp_path, url, "--dry-run", *self.WORTH_IT, COLUMNS="200")

        assert code == 0, stderr
        [chosen] = [line for line in stdout.splitlines() if '"public"."t"' in line]
        [left_out] = [line for line in stdout.splitlines() if "An odd.na%me" in line]
        assert "VACUUM" in chosen
        assert "SHARE UPDATE EXCLUSIVE" in chosen
        assert "dead_ratio 0.5" in stdout
        assert "not worth its while, only if dead_ratio > 0.1: dead_ratio 0" in left_out
        assert "would create 1 child jobs, 1 left out; nothing was changed" in stderr
        assert value(url, DEAD) == 500

    def test_it_is_done_where_it_is_worth_it(self, url: str, tmp_path: Path) -> None:
        code, stdout, stderr = run(tmp_path, url, "--output", "json", *self.WORTH_IT)

        inspected, *children = json.loads(stdout)["child_jobs"]
        assert code == 0, stderr
        assert (inspected["operation"], inspected["object"]) == ("inspect", None)
        states = {child["object"]: (child["state"], child["verdict"]) for child in children}
        assert states == {"public.t": ("completed", "effective"), 'public."An odd.na%me"': ("skipped", None)}
        assert value(url, DEAD) == 0

    def test_the_table_tells_what_became_of_each(self, url: str, tmp_path: Path) -> None:
        code, stdout, stderr = run(tmp_path, url, *self.WORTH_IT, COLUMNS="200")

        [done] = [line for line in stdout.splitlines() if "public.t " in line]
        assert code == 0, stderr
        assert "dead rows" in stdout
        assert "500 -> 0" in done

    def test_each_index_is_rebuilt_by_itself(self, url: str, tmp_path: Path) -> None:
        before = file_of(url, "t_pkey")

        code, stdout, stderr = run(
            tmp_path, url, "--scope", "index", "--operation", "reindex", "--include", "t_*", "--output", "json"
        )

        [_, child] = json.loads(stdout)["child_jobs"]
        assert code == 0, stderr
        assert (child["object"], child["verdict"]) == ("public.t_pkey", "effective")
        assert file_of(url, "t_pkey") != before


def test_an_interrupt_cancels_the_statement_in_the_server(url: str, tmp_path: Path) -> None:
    with holding(url, "LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE"):
        with overhaul(tmp_path, url, "--operation", "reindex:lock_timeout_ms=0") as process:
            until(lambda: value(url, WAITING))
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=PATIENCE)

            assert process.returncode == 130
        assert value(url, WAITING) == 0
    assert invalid(url) == []


def test_a_server_that_is_away_is_told_as_such(tmp_path: Path) -> None:
    code, _, stderr = run(tmp_path, "postgresql://postgres@127.0.0.1:1/app")

    assert code == 2
    assert "The target 'app' cannot be read: The server cannot be reached" in stderr


def test_a_password_is_refused_with_the_ways_there_are(tmp_path: Path) -> None:
    code, _, stderr = run(tmp_path, "postgresql://u:s3cret@127.0.0.1:1/app")

    assert code == 2
    assert "~/.pgpass" in stderr
    assert "s3cret" not in stderr
