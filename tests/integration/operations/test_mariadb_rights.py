"""A role that may do little, and a server that lets nobody write: what is told is what was done."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.operations.mariadb_databases import Database, failure
from worker_service.domain.outcome import FailureCategory, Outcome, Verdict

GUIDE = Path(__file__).parents[3] / "docs" / "operations.md"
CHANGES = ["vacuum", "analyze", "reindex"]


@pytest.fixture
def bloated(database: Database) -> Database:
    database.table("item", rows=6_000, kept=20)
    return database


@pytest.fixture
def read_only(bloated: Database) -> Iterator[Database]:
    bloated.server.run("SET GLOBAL read_only = ON")
    yield bloated
    bloated.server.run("SET GLOBAL read_only = OFF")


class TestTheGuidesGrants:
    def test_they_are_enough_for_every_verdict(self, bloated: Database) -> None:
        [block] = re.findall(r"```sql\n(CREATE USER overhaul@.*?)```", GUIDE.read_text(), re.DOTALL)
        grants = re.findall(r"GRANT (.*?) TO overhaul@", block)
        url = bloated.role(*(grant.replace("shop.*", f"{bloated.name}.*") for grant in grants))

        results = {name: bloated.maintain(name, url=url) for name in [*CHANGES, "integrity_check"]}

        assert {name: result.verdict for name, result in results.items()} == dict.fromkeys(
            results, Verdict.EFFECTIVE
        )
        assert results["vacuum"].after["file_bytes"] < results["vacuum"].before["file_bytes"]


class TestWithoutAPrivilege:
    @pytest.mark.parametrize("operation", CHANGES)
    def test_reading_alone_is_no_right_to_maintain(self, bloated: Database, operation: str) -> None:
        before = bloated.spaces()

        result = bloated.maintain(operation, url=bloated.role("SELECT"))

        assert failure(result).category is FailureCategory.PERMISSION
        assert not failure(result).retryable
        assert "docs/operations.md" in result.reason
        assert bloated.spaces() == before

    def test_reading_is_enough_to_check(self, bloated: Database) -> None:
        assert bloated.maintain("integrity_check", url=bloated.role("SELECT")).verdict is Verdict.EFFECTIVE

    def test_a_vacuum_whose_files_may_not_be_read_is_unknown(self, bloated: Database) -> None:
        before = bloated.file_bytes("item")

        result = bloated.maintain("vacuum", url=bloated.role("SELECT, INSERT"))

        assert bloated.file_bytes("item") < before
        assert result.verdict is Verdict.UNKNOWN
        assert "grant PROCESS" in result.reason
        assert "file_bytes" not in result.before

    def test_an_analyze_whose_dates_may_not_be_read_is_unknown(self, bloated: Database) -> None:
        result = bloated.maintain("analyze", url=bloated.role("SELECT, INSERT"))

        assert result.verdict is Verdict.UNKNOWN
        assert "grant SELECT on mysql.innodb_table_stats" in result.reason

    def test_a_rebuild_is_then_seen_by_the_tables_date(self, bloated: Database) -> None:
        url = bloated.role("SELECT, INSERT, ALTER, CREATE")
        at_once = bloated.maintain("reindex", url=url)
        time.sleep(1.1)

        later = bloated.maintain("reindex", url=url)

        assert at_once.verdict in {Verdict.UNKNOWN, Verdict.EFFECTIVE}
        assert later.verdict is Verdict.EFFECTIVE

    def test_tables_that_the_role_may_not_touch_are_named(self, bloated: Database) -> None:
        bloated.table("other", rows=3)
        url = bloated.role("SELECT", f"INSERT ON {bloated.name}.item")
        spaces = bloated.spaces()

        result = bloated.maintain("vacuum", url=url)

        assert result.verdict is Verdict.PARTIALLY_EFFECTIVE
        assert "failed: other: The role lacks a privilege" in result.reason
        assert bloated.spaces()["other"] == spaces["other"]

    def test_tables_that_the_role_may_not_see_are_named_where_their_files_are(self, bloated: Database) -> None:
        bloated.table("secret", rows=3)
        url = bloated.role(f"SELECT, INSERT ON {bloated.name}.item", "PROCESS ON *.*")

        result = bloated.maintain("vacuum", url=url)

        assert result.verdict is Verdict.PARTIALLY_EFFECTIVE
        assert "the role may not see 1 table: secret" in result.reason

    def test_keeping_a_rebuild_from_replicas_needs_a_right_too(self, bloated: Database) -> None:
        before = bloated.spaces()

        result = bloated.maintain("reindex", url=bloated.role("SELECT, INSERT, ALTER"), binlog=False)

        assert failure(result).category is FailureCategory.PERMISSION
        assert bloated.spaces() == before

    def test_a_role_that_may_do_nothing_is_not_let_in(self, bloated: Database) -> None:
        result = bloated.maintain("vacuum", url=bloated.role())

        assert failure(result).reason == "ER_DBACCESS_DENIED_ERROR"


class TestReadOnly:
    @pytest.mark.parametrize("operation", CHANGES)
    def test_nothing_is_changed_and_the_first_table_ends_it(self, read_only: Database, operation: str) -> None:
        url = read_only.role("SELECT, INSERT, ALTER, CREATE")
        before = read_only.spaces()

        result = read_only.maintain(operation, url=url)

        assert failure(result).category is FailureCategory.PERMISSION
        assert "The server is read-only" in result.reason
        assert read_only.spaces() == before

    def test_it_may_be_checked(self, read_only: Database) -> None:
        assert read_only.maintain("integrity_check", url=read_only.role("SELECT")).outcome is Outcome.COMPLETED
