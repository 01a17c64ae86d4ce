import fcntl
import os
from pathlib import Path

import apsw
import pytest

from worker_service.domain.errors import InvalidTargetError, TargetBusyError, TargetUnavailableError
from worker_service.domain.lock import Lock
from worker_service.domain.operation import Operation
from worker_service.domain.target import Target
from worker_service.operations.sqlite import SqliteEngine, filelock, identity, space
from worker_service.operations.sqlite.checkpoint import inside_wal_reset_race
from worker_service.operations.sqlite.filelock import hold
from worker_service.operations.sqlite.identity import file_key, identity_of, lock_on, machine, network_file_system
from worker_service.operations.sqlite.location import Location
from worker_service.operations.sqlite.space import Need, shortage, temporary_folder, vacuum_needs
from worker_service.operations.sqlite.wording import quoted
from worker_service.operations.wording import count, listed, share, size


def target_at(url: object, identity: str | None = None) -> Target:
    return Target(name="app", url=str(url), engine="sqlite", identity=identity)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "app.db"
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE t(a)")
    connection.close()
    return path


class TestLocation:
    @pytest.mark.parametrize("form", ["{}", "sqlite:///{}", "SQLITE:///{}", "sqlite+apsw:///{}"])
    def test_every_form_names_the_file(self, file: Path, form: str) -> None:
        assert Location.of(form.format(file)).path == str(file)

    def test_a_relative_path_is_made_absolute(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(file.parent)

        assert Location.of("sqlite:///app.db").path == str(file)

    def test_links_are_followed(self, file: Path) -> None:
        link = file.with_name("link.db")
        link.symlink_to(file)

        assert Location.of(str(link)).path == str(file)

    def test_a_percent_encoded_path_is_understood_when_no_file_has_its_letters(self, tmp_path: Path) -> None:
        (tmp_path / "a b#.db").touch()

        assert Location.of(f"sqlite:///{tmp_path}/a%20b%23.db").path == str(tmp_path / "a b#.db")
        (tmp_path / "a%20b%23.db").touch()
        assert Location.of(f"sqlite:///{tmp_path}/a%20b%23.db").path == str(tmp_path / "a%20b%23.db")

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "sqlite:///",
            "sqlite:///:memory:",
            ":memory:",
            "sqlite://host/a",
            "file:a.db",
            "mysql://h/a",
            "a\0b",
        ],
    )
    def test_what_is_no_file_is_refused(self, url: str) -> None:
        with pytest.raises(InvalidTargetError):
            Location.of(url)

    def test_the_uri_never_creates(self, tmp_path: Path) -> None:
        uri = Location(path="/a b/?#%é.db").uri("rw")

        assert uri == "file:/a%20b/%3F%23%25%C3%A9.db?mode=rw"


class TestIdentity:
    def test_every_name_of_a_file_gives_the_same(self, file: Path) -> None:
        hard, soft = file.with_name("hard.db"), file.with_name("soft.db")
        hard.hardlink_to(file)
        soft.symlink_to(file)

        identities = {identity_of(target_at(path), Location.of(str(path))) for path in (file, hard, soft)}

        assert identities == {f"sqlite:{machine()}:{file_key(Location.of(str(file)))}"}

    def test_two_files_differ(self, file: Path, tmp_path: Path) -> None:
        (tmp_path / "other.db").touch()

        assert file_key(Location.of(str(file))) != file_key(Location.of(str(tmp_path / "other.db")))

    def test_a_stated_identity_wins(self, file: Path) -> None:
        assert identity_of(target_at(file, identity="billing"), Location.of(str(file))) == "billing"
        assert lock_on("billing") == Lock(key="sqlite:billing", exclusive=True)

    def test_a_network_file_system_needs_a_stated_one(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(identity, "network_file_system", lambda path: "nfs4")

        with pytest.raises(InvalidTargetError, match="set the target's identity"):
            SqliteEngine().check(target_at(file))

        SqliteEngine().check(target_at(file, identity="billing"))

    def test_the_innermost_mount_decides(self, tmp_path: Path) -> None:
        mounts = tmp_path / "mountinfo"
        mounts.write_text(
            "1 0 8:1 / / rw - ext4 /dev/a rw\n"
            "2 1 0:9 / /srv/my\\040share rw shared:1 - nfs4 host:/x rw\n"
            "3 2 8:2 / /srv/my\\040share/local rw - ext4 /dev/b rw\n"
            "4 1 0:8 / /ssh rw - fuse.sshfs host: rw\n"
            "5 1 0:7 / /ntfs rw - fuse.ntfs-3g /dev/c rw\n"
            "odd\n"
        )

        found = [
            network_file_system(path, mounts)
            for path in (
                "/a.db",
                "/srv/my share/a.db",
                "/srv/my share/local/a.db",
                "/ssh/a.db",
                "/ntfs/a",
                "/sshx",
            )
        ]

        assert found == [None, "nfs4", None, "fuse.sshfs", None, None]

    def test_without_a_table_of_mounts_a_file_counts_as_local(self, tmp_path: Path) -> None:
        assert network_file_system("/a.db", tmp_path / "none") is None

    def test_a_machine_is_told_by_a_hash(self, tmp_path: Path) -> None:
        one, two = tmp_path / "one", tmp_path / "two"
        one.write_text("uninitialized\n")
        two.write_text("abc\n")

        assert machine([tmp_path / "none", one, two]) == machine([two])
        assert "abc" not in machine([two])
        assert machine([one]) != machine([two])


class TestEngine:
    def test_a_description_names_every_operation_and_its_lock(self, file: Path) -> None:
        described = SqliteEngine().describe(target_at(file))

        assert described.engine_version == apsw.sqlite_lib_version()
        assert [spec.name for spec in described.operations][:4] == ["vacuum", "analyze", "reindex", "optimize"]
        locks = {spec.name: spec.locks for spec in described.operations}
        assert locks.pop("inspect") == (Lock(key=described.identity, exclusive=False),)
        assert set(locks.values()) == {(Lock(key=described.identity),)}
        assert all(spec.description and spec.options for spec in described.operations)

    def test_a_missing_file_is_refused_and_not_created(self, tmp_path: Path) -> None:
        engine, target = SqliteEngine(), target_at(tmp_path / "none.db")

        with pytest.raises(InvalidTargetError, match="never created"):
            engine.check(target)
        with pytest.raises(TargetUnavailableError, match="No such file"):
            engine.describe(target)
        with pytest.raises(TargetUnavailableError, match="No such file"):
            engine.plan(target, Operation(name="vacuum", target="app"))
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidTargetError, match="folder"):
            SqliteEngine().check(target_at(tmp_path))

    def test_a_plan_of_an_empty_file_is_empty(self, tmp_path: Path) -> None:
        (tmp_path / "app.db").touch()

        assert SqliteEngine().plan(target_at(tmp_path / "app.db"), Operation(name="vacuum", target="app")) == ()

    def test_a_plan_of_what_is_no_database_says_so(self, tmp_path: Path) -> None:
        (tmp_path / "app.db").write_text("text" * 500)

        with pytest.raises(TargetUnavailableError, match="not a SQLite database"):
            SqliteEngine().plan(target_at(tmp_path / "app.db"), Operation(name="reindex", target="app"))


class TestHold:
    def test_a_second_holder_is_busy_and_nothing_is_left(self, tmp_path: Path) -> None:
        with hold("1:2", tmp_path / "locks"), pytest.raises(TargetBusyError), hold("1:2", tmp_path / "locks"):
            pass

        assert list((tmp_path / "locks").iterdir()) == []

    def test_other_keys_are_free(self, tmp_path: Path) -> None:
        with hold("1:2", tmp_path), hold("1:3", tmp_path):
            assert len(list(tmp_path.iterdir())) == 2

    def test_a_file_that_its_last_holder_removed_guards_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        removed: list[int] = []

        def flock(descriptor: int, how: int) -> None:
            if not removed:
                removed.append(descriptor)
                (tmp_path / "1:2").unlink()

        monkeypatch.setattr(fcntl, "flock", flock)

        with hold("1:2", tmp_path):
            assert (tmp_path / "1:2").exists()

    def test_one_that_never_stays_is_busy(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(filelock, "_is_still", lambda path, descriptor: False)

        with pytest.raises(TargetBusyError, match="keep taking"), hold("1:2", tmp_path):
            pass

    def test_a_folder_that_others_may_write_is_refused(self, tmp_path: Path) -> None:
        folder = tmp_path / "open"
        folder.mkdir()
        folder.chmod(0o777)

        with pytest.raises(PermissionError, match="remove it"), hold("1:2", folder):
            pass


class TestSpace:
    def test_sqlite_takes_the_first_folder_it_may_write(self, tmp_path: Path) -> None:
        assert temporary_folder({"SQLITE_TMPDIR": str(tmp_path)}) == str(tmp_path)
        assert temporary_folder({"SQLITE_TMPDIR": str(tmp_path / "none"), "TMPDIR": str(tmp_path)}) == str(
            tmp_path
        )
        assert temporary_folder({}) == "/var/tmp"

    def test_without_any_it_is_the_current_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "access", lambda *_: False)

        assert temporary_folder({}) == "."

    def test_the_live_pages_are_needed_twice(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(space, "temporary_folder", lambda: "/t")
        measures = {"pages": 10.0, "free_pages": 4.0, "page_bytes": 1000.0}

        needs = vacuum_needs(measures, Location(path="/d/app.db"), "delete")

        assert needs == (Need(folder="/t", number=6000), Need(folder="/d", number=6000))
        assert vacuum_needs(measures, Location(path="/d/app.db"), "memory") == (Need(folder="/t", number=6000),)

    @pytest.mark.parametrize(("devices", "fits"), [({"/t": 1, "/d": 2}, True), ({"/t": 1, "/d": 1}, False)])
    def test_needs_on_one_file_system_add_up(
        self, monkeypatch: pytest.MonkeyPatch, devices: dict[str, int], fits: object
    ) -> None:
        monkeypatch.setattr(space, "device", devices.__getitem__)
        monkeypatch.setattr(space, "free_bytes", lambda folder: 10_000)

        missing = shortage((Need(folder="/t", number=6000), Need(folder="/d", number=6000)))

        assert (missing is None) is fits
        if missing:
            assert "about 12.0 kB free in /t and /d, and there are 10.0 kB" in missing


class TestWalResetRace:
    @pytest.mark.parametrize("version", ["3.7.0", "3.40.1", "3.44.5", "3.45.0", "3.50.6", "3.51.0", "3.51.2"])
    def test_these_libraries_have_it(self, version: str) -> None:
        assert inside_wal_reset_race(version)

    @pytest.mark.parametrize("version", ["3.6.23", "3.44.6", "3.50.7", "3.51.3", "3.54.1", "4.0.0"])
    def test_these_have_not(self, version: str) -> None:
        assert not inside_wal_reset_race(version)


class TestWording:
    def test_numbers_are_written_for_people(self) -> None:
        assert [size(999), size(12_345_678), size(5e15)] == ["999 bytes", "12.3 MB", "5000.0 TB"]
        assert [share(2, 5), share(1, 0)] == ["40 %", "0 %"]
        assert [count(1, "index", "indexes"), count(2, "index", "indexes"), count(0, "page")] == [
            "1 index",
            "2 indexes",
            "0 pages",
        ]

    def test_names_are_quoted_and_lists_are_cut(self) -> None:
        assert quoted('a"b') == '"a""b"'
        assert listed(["a", "b", "c"], 2) == "a; b; and 1 more"
        assert listed(["a"]) == "a"
