"""The engine of examples/overhaul-logfiles: what is told is what a reading of the files says."""

import errno
import gzip
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from overhaul_logfiles import LogfilesEngine
from overhaul_logfiles.endings import from_os_error
from overhaul_logfiles.reading import held
from tests.integration.operations.doubles import RecordingControl
from worker_service.domain.errors import (
    InvalidOperationError,
    InvalidTargetError,
    TargetBusyError,
    TargetUnavailableError,
)
from worker_service.domain.inspection import (
    INSPECT,
    InspectedObject,
    Inspection,
    Scope,
    Selection,
    WantedOperation,
)
from worker_service.domain.lock import Lock
from worker_service.domain.operation import Operation, Progress
from worker_service.domain.outcome import FailureCategory, Outcome, Result, Verdict
from worker_service.domain.target import Target

TEXT = b"2026-01-31 04:05:06 GET /orders 200\n" * 80_000
OLD = 1_700_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "log files"
    folder.mkdir()
    return folder


def target(folder: Path, url: str | None = None) -> Target:
    return Target(name="logs", url=url or f"logfiles://{folder}".replace(" ", "%20"), engine="logfiles")


def written(path: Path, content: bytes = TEXT) -> Path:
    path.write_bytes(content)
    os.utime(path, (OLD, OLD))
    return path


def run(
    folder: Path, name: str, item: str | None = None, control: RecordingControl | None = None, **options: str
) -> Result:
    operation = Operation(name=name, target="logs", object=item, options=options)
    worker = LogfilesEngine().worker(target(folder), control or RecordingControl())
    worker.validate(operation)
    return worker.execute(operation)


def found(folder: Path, inspection: Inspection) -> dict[str | None, InspectedObject]:
    operation = Operation(name=INSPECT, target="logs", inspection=inspection)
    result = LogfilesEngine().worker(target(folder), RecordingControl()).execute(operation)
    assert result.inspection is not None
    return {one.object: one for one in result.inspection.objects}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def verdict(result: Result) -> tuple[Outcome, Verdict | None]:
    return result.outcome, result.verdict


class TestCompress:
    def test_a_file_becomes_its_archive(self, folder: Path) -> None:
        written(folder / "a.log")
        control = RecordingControl()

        result = run(folder, "compress", "a.log", control)

        assert verdict(result) == (Outcome.COMPLETED, Verdict.EFFECTIVE)
        assert names(folder) == ["a.log.gz"]
        assert gzip.decompress((folder / "a.log.gz").read_bytes()) == TEXT
        assert (folder / "a.log.gz").stat().st_mtime == OLD
        assert (result.before["size_bytes"], result.before["compressed"]) == (len(TEXT), 0)
        assert (result.after["size_bytes"], result.after["compressed"]) == (
            (folder / "a.log.gz").stat().st_size,
            1,
        )
        done = [progress.done or 0 for progress in control.progresses]
        assert done == sorted(done)
        assert done[-1] == control.progresses[-1].total == 3 * len(TEXT)

    def test_what_would_be_no_smaller_stays(self, folder: Path) -> None:
        written(folder / "a.log", os.urandom(5_000))

        assert verdict(run(folder, "compress", "a.log")) == (Outcome.COMPLETED, Verdict.NO_EFFECT)
        assert names(folder) == ["a.log"]

    @pytest.mark.parametrize(("content", "age", "word"), [(b"", OLD, "empty"), (TEXT, None, "min_age_s is 3600")])
    def test_what_is_not_worth_it_is_skipped_with_the_measure(
        self, folder: Path, content: bytes, age: int | None, word: str
    ) -> None:
        (folder / "a.log").write_bytes(content)
        if age:
            os.utime(folder / "a.log", (age, age))

        result = run(folder, "compress", "a.log")

        assert result.outcome is Outcome.SKIPPED
        assert word in result.reason

    def test_a_file_that_is_gone_is_skipped(self, folder: Path) -> None:
        assert run(folder, "compress", "a.log").outcome is Outcome.SKIPPED

    def test_what_a_killed_worker_left_half_written_is_made_anew(self, folder: Path) -> None:
        written(folder / "a.log")
        (folder / ".a.log.gz.part").write_bytes(b"half")

        assert run(folder, "compress", "a.log").verdict is Verdict.EFFECTIVE
        assert names(folder) == ["a.log.gz"]

    def test_what_a_killed_worker_had_archived_is_ended(self, folder: Path) -> None:
        written(folder / "a.log")
        (folder / "a.log.gz").write_bytes(gzip.compress(TEXT))

        result = run(folder, "compress", "a.log")

        assert "archived before" in result.reason
        assert names(folder) == ["a.log.gz"]

    @pytest.mark.parametrize("other", [gzip.compress(b"other", mtime=0), b"no archive"], ids=["archive", "text"])
    def test_another_archive_in_its_place_is_never_written_over(self, folder: Path, other: bytes) -> None:
        written(folder / "a.log")
        (folder / "a.log.gz").write_bytes(other)

        result = run(folder, "compress", "a.log")

        assert result.failure is not None
        assert (result.failure.reason, result.failure.retryable) == ("ARCHIVE_EXISTS", False)
        assert (folder / "a.log").read_bytes() == TEXT
        assert (folder / "a.log.gz").read_bytes() == other

    def test_a_file_that_is_written_to_meanwhile_is_kept_and_tried_again(self, folder: Path) -> None:
        path = written(folder / "a.log")

        def write(_: Progress) -> None:
            with path.open("ab") as file:
                file.write(b"more")

        result = run(folder, "compress", "a.log", RecordingControl(on_progress=write))

        assert result.failure is not None
        assert result.failure.retryable
        assert path.read_bytes().startswith(TEXT)
        assert names(folder) == ["a.log"]

    def test_one_that_another_worker_holds_goes_back(self, folder: Path) -> None:
        with held(written(folder / "a.log")), pytest.raises(TargetBusyError, match=r"a\.log"):
            run(folder, "compress", "a.log")

    def test_an_interrupt_in_the_midst_leaves_the_file_as_it_was(self, folder: Path) -> None:
        written(folder / "a.log")
        control = RecordingControl()
        worker = LogfilesEngine().worker(target(folder), control)
        control.on_progress = lambda _: worker.interrupt()

        result = worker.execute(Operation(name="compress", target="logs", object="a.log"))

        assert (result.outcome, len(control.progresses)) == (Outcome.CANCELLED, 1)
        assert names(folder) == ["a.log"]

    def test_a_lost_lease_stops_it_between_two_files_and_what_was_done_is_told(self, folder: Path) -> None:
        written(folder / "a.log", TEXT[:5_000])
        written(folder / "b.log", TEXT[:5_000])

        result = run(folder, "compress", None, RecordingControl(stop_at=5))

        assert result.outcome is Outcome.CANCELLED
        assert "a.log" in result.reason
        assert names(folder) == ["a.log.gz", "b.log"]

    def test_of_a_folder_what_fails_is_not_hidden_by_what_does_not(self, folder: Path) -> None:
        written(folder / "a.log")
        written(folder / "b.log")
        (folder / "b.log.gz").write_bytes(b"no archive")

        result = run(folder, "compress")

        assert verdict(result) == (Outcome.COMPLETED, Verdict.PARTIALLY_EFFECTIVE)
        assert "b.log.gz is there" in result.reason
        assert (result.before["files"], result.after["archives"]) == (3, 2)

    @pytest.mark.parametrize(
        ("number", "category", "retryable"),
        [
            (errno.ENOSPC, FailureCategory.DISK_FULL, True),
            (errno.EACCES, FailureCategory.PERMISSION, False),
            (errno.EIO, FailureCategory.IO, True),
        ],
    )
    def test_what_the_system_refuses_says_what_to_do(
        self, number: int, category: FailureCategory, retryable: bool
    ) -> None:
        failure = from_os_error("a.log", OSError(number, os.strerror(number))).failure

        assert failure is not None
        assert (failure.category, failure.retryable, failure.reason) == (
            category,
            retryable,
            errno.errorcode[number],
        )


class TestIntegrityCheck:
    def test_whole_archives_are_told_as_whole(self, folder: Path) -> None:
        (folder / "a.log.gz").write_bytes(gzip.compress(TEXT))

        result = run(folder, "integrity_check")

        assert verdict(result) == (Outcome.COMPLETED, Verdict.EFFECTIVE)
        assert f"{len(TEXT):,} bytes" in result.reason

    @pytest.mark.parametrize(
        "damage",
        [
            lambda content: content[:-9],
            lambda content: content[:50] + bytes(60) + content[110:],
            lambda content: content[:-8] + bytes(8),
            lambda _: b"no archive",
        ],
    )
    def test_damage_of_any_kind_is_a_failure(self, folder: Path, damage: Callable[[bytes], bytes]) -> None:
        (folder / "a.log.gz").write_bytes(damage(gzip.compress(TEXT)))

        result = run(folder, "integrity_check", "a.log.gz")

        assert result.failure is not None
        assert (result.failure.reason, result.failure.category) == ("DAMAGED", FailureCategory.CORRUPT)

    def test_a_link_is_left_out(self, folder: Path) -> None:
        (folder / "a.log.gz").symlink_to("/dev/null")

        result = run(folder, "integrity_check", "a.log.gz")

        assert result.outcome is Outcome.SKIPPED
        assert "symbolic link" in result.reason


class TestInspect:
    def test_each_file_is_told_with_measures_and_a_key_of_its_own(self, folder: Path) -> None:
        written(folder / "a.log")
        (folder / "b.log.gz").write_bytes(b"")
        os.link(written(folder / "c.log"), folder / "d.log")
        (folder / ".hidden").write_bytes(TEXT)
        (folder / "within").mkdir()
        wanted = WantedOperation(name="compress", options={"level": "9"}), WantedOperation(name="integrity_check")

        objects = found(folder, Inspection(scope=Scope.TABLE, operations=wanted, preview=True))

        assert set(objects) == {"a.log", "b.log.gz", "c.log", "d.log"}
        assert (objects["a.log"].operations, objects["a.log"].left_out) == (("compress",), "")
        assert objects["a.log"].previews == ("gzip -9 -- a.log -- nobody waits",)
        assert objects["a.log"].measures["size_bytes"] == len(TEXT)
        assert objects["b.log.gz"].operations == ("integrity_check",)
        assert "2 names" in objects["c.log"].left_out
        assert len({one.locks for one in objects.values()}) == 4

    def test_it_is_customary_to_have_each_file_done_by_itself(self, folder: Path) -> None:
        written(folder / "a.log")

        objects = found(folder, Inspection(scope=Scope.CUSTOMARY, operations=(WantedOperation(name="compress"),)))

        assert set(objects) == {"a.log"}

    def test_a_selection_is_of_names(self, folder: Path) -> None:
        written(folder / "a.log")
        written(folder / "b.log")
        wanted = (WantedOperation(name="compress"),)

        objects = found(
            folder, Inspection(scope=Scope.TABLE, operations=wanted, selection=Selection(include=("b*",)))
        )

        assert set(objects) == {"b.log"}

    def test_at_the_scope_of_the_database_the_folder_is_one_object(self, folder: Path) -> None:
        written(folder / "a.log")
        wanted = (WantedOperation(name="compress"),)

        objects = found(folder, Inspection(operations=wanted, preview=True))

        assert objects[None].measures["plain_bytes"] == len(TEXT)
        assert objects[None].previews == ("gzip -6 -- * -- nobody waits",)


class TestEngine:
    def test_what_it_offers_holds_the_folder_alone_and_a_look_shares_it(self, folder: Path) -> None:
        description = LogfilesEngine().describe(target(folder))

        locks = {spec.name: spec.locks for spec in description.operations}
        assert locks["compress"] == locks["integrity_check"] == (Lock(key=description.identity),)
        assert locks[INSPECT] == (Lock(key=description.identity, exclusive=False),)

    def test_a_plan_tells_what_would_be_done_to_each_file(self, folder: Path) -> None:
        written(folder / "a.log")
        written(folder / "b.log.gz")

        engine = LogfilesEngine()

        assert engine.plan(target(folder), Operation(name="compress", target="logs")) == ("gzip -6 -- a.log",)
        assert engine.plan(target(folder), Operation(name="integrity_check", target="logs", object="x")) == ()
        assert engine.plan(target(folder), Operation(name=INSPECT, target="logs")) == ()

    @pytest.mark.parametrize(
        "url", ["logfiles://host/var/log", "logfiles:relative", "file:///var/log", "logfiles:///no/such/folder"]
    )
    def test_a_target_that_cannot_be_is_refused(self, folder: Path, url: str) -> None:
        with pytest.raises(InvalidTargetError, match="folder"):
            LogfilesEngine().check(target(folder, url))

    def test_a_folder_that_is_away_is_asked_for_again(self, folder: Path) -> None:
        engine = LogfilesEngine()
        engine.check(target(folder))
        folder.rmdir()

        with pytest.raises(TargetUnavailableError, match="No such file"):
            engine.describe(target(folder))
        with pytest.raises(TargetUnavailableError, match="No such file"):
            engine.plan(target(folder), Operation(name="compress", target="logs"))
        assert run(folder, "compress").outcome is Outcome.FAILED

    def test_another_folder_in_its_place_is_not_touched(self, folder: Path) -> None:
        engine = LogfilesEngine()
        engine.describe(target(folder))
        folder.rename(folder.with_name("away"))
        folder.mkdir()
        written(folder / "a.log")

        result = engine.worker(target(folder), RecordingControl()).execute(
            Operation(name="compress", target="logs")
        )

        assert result.failure is not None
        assert result.failure.reason == "TARGET_REPLACED"
        assert names(folder) == ["a.log"]
        shutil.rmtree(folder.with_name("away"))

    @pytest.mark.parametrize(
        ("name", "item", "options", "word"),
        [
            ("compres", None, {}, "did you mean 'compress'"),
            ("compress", None, {"levle": "3"}, "did you mean 'level'"),
            ("compress", None, {"level": "much"}, "whole number"),
            ("compress", None, {"level": "0"}, "1 to 9"),
            ("compress", "../a.log", {}, "no file of the folder"),
            ("compress", "a.log.gz", {}, "not for files such as"),
            ("integrity_check", None, {"level": "3"}, "there are: none"),
        ],
    )
    def test_what_it_cannot_do_is_refused_with_what_it_can(
        self, folder: Path, name: str, item: str | None, options: dict[str, str], word: str
    ) -> None:
        (folder / "a.log.gz").write_bytes(b"")

        with pytest.raises(InvalidOperationError, match=word):
            run(folder, name, item, None, **options)
