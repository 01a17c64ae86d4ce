"""One file under several names: symbolic links are one file, hard links are a danger and refused."""

from pathlib import Path

import apsw
import pytest

from tests.integration.operations.databases import content, names_in, query
from tests.integration.operations.doubles import operation, run, target_at
from tests.unfriendly.ground import CHECKS, DEFAULTS, Told, bytes_stay, indexed_database, other, rows_stay, told
from worker_service.domain.errors import TargetBusyError, TargetUnavailableError
from worker_service.domain.outcome import FailureCategory, Outcome, Verdict
from worker_service.operations.sqlite import SqliteEngine
from worker_service.operations.sqlite.filelock import hold
from worker_service.operations.sqlite.identity import file_key
from worker_service.operations.sqlite.location import Location

EVERY = (*DEFAULTS, *CHECKS)
SEVERAL = Told(reason="SEVERAL_LINKS", category=FailureCategory.INVALID)


class TestSymbolicLink:
    @pytest.mark.parametrize("journal", ["delete", "wal"])
    @pytest.mark.parametrize("name", DEFAULTS)
    def test_the_file_behind_it_is_maintained_and_the_link_stays(
        self, tmp_path: Path, name: str, journal: str
    ) -> None:
        (tmp_path / "there").mkdir()
        (tmp_path / "here").mkdir()
        path = indexed_database(tmp_path / "there" / "app.db", journal=journal)
        link = tmp_path / "here" / "link.db"
        link.symlink_to(path)

        with rows_stay(path):
            result = run(link, name)

        assert (result.outcome, result.verdict) == (Outcome.COMPLETED, Verdict.EFFECTIVE)
        assert link.readlink() == path
        assert names_in(tmp_path / "here") == ["link.db"]
        assert names_in(tmp_path / "there") == ["app.db"]

    @pytest.mark.parametrize("name", EVERY)
    def test_one_that_leads_nowhere_is_a_missing_file(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "link.db").symlink_to(tmp_path / "gone.db")
        (tmp_path / "round.db").symlink_to(tmp_path / "round.db")

        for link in ("link.db", "round.db"):
            result = run(tmp_path / link, name)

            assert told(result) == Told(reason="FILE_MISSING", category=FailureCategory.UNAVAILABLE)
            assert "Check the target's path" in result.reason
        assert names_in(tmp_path) == ["link.db", "round.db"]

    def test_both_names_meet_in_one_lock(self, tmp_path: Path) -> None:
        path, link = indexed_database(tmp_path / "app.db"), tmp_path / "link.db"
        link.symlink_to(path)
        engine = SqliteEngine()

        with hold(file_key(Location.of(str(path)))), pytest.raises(TargetBusyError):
            run(link, "reindex")

        assert engine.describe(target_at(path)).identity == engine.describe(target_at(link)).identity


class TestHardLinks:
    @pytest.mark.parametrize("journal", ["delete", "wal"])
    @pytest.mark.parametrize("name", EVERY)
    def test_every_name_is_refused_with_what_to_do(self, tmp_path: Path, name: str, journal: str) -> None:
        path = indexed_database(tmp_path / "app.db", journal=journal)
        (tmp_path / "other.db").hardlink_to(path)

        for one in ("app.db", "other.db"):
            with bytes_stay(path):
                result = run(tmp_path / one, name)
                with pytest.raises(TargetUnavailableError, match="2 hard links"):
                    SqliteEngine().plan(target_at(tmp_path / one), operation(name))

            assert told(result) == SEVERAL
            assert "Leave one name, or make the others symbolic links." in result.reason
        assert names_in(tmp_path) == ["app.db", "other.db"]

    @pytest.mark.parametrize("name", DEFAULTS)
    def test_what_the_refusal_is_for(self, tmp_path: Path, name: str) -> None:
        """An application's rows lie in the log beside its own name; the refused operation cannot destroy them."""
        path = indexed_database(tmp_path / "app.db", journal="wal")
        (tmp_path / "other.db").hardlink_to(path)
        with other("write beside", path) as application:
            assert told(run(tmp_path / "other.db", name)) == SEVERAL
            application.go_on()

        assert query(path, "PRAGMA integrity_check") == [("ok",)]
        assert query(path, "SELECT name FROM item WHERE id IN (7, 22) ORDER BY id") == [("new 7",), ("newer 22",)]

    def test_sqlite_alone_destroys_such_a_database(self, tmp_path: Path) -> None:
        """So that nobody takes the refusal away without knowing: this is what VACUUM does under the other name."""
        path = indexed_database(tmp_path / "app.db", journal="wal")
        (tmp_path / "other.db").hardlink_to(path)
        with other("write beside", path) as application:
            connection = apsw.Connection(str(tmp_path / "other.db"))
            connection.execute("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)")
            connection.close()
            application.kill()

        with pytest.raises((apsw.CorruptError, AssertionError)):
            assert query(path, "PRAGMA integrity_check") == [("ok",)]

    def test_one_name_that_is_left_is_maintained(self, tmp_path: Path) -> None:
        path = indexed_database(tmp_path / "app.db")
        (tmp_path / "other.db").hardlink_to(path)
        rows = content(path)
        (tmp_path / "other.db").unlink()

        assert run(path, "vacuum").verdict is Verdict.EFFECTIVE
        assert content(path) == rows
