"""What an inspection finds in a file, without a change to it, and what may then be done to each object."""

import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

import apsw
import pytest
import structlog

from manager_service.domain.conditions import condition
from tests.documented import recommended
from tests.integration.operations.databases import (
    HOSTILE,
    bloated_database,
    content,
    empty_database,
    filled_database,
    names_in,
    query,
)
from tests.integration.operations.doubles import RecordingControl, target_at, worker_on
from worker_service.domain.errors import InvalidOperationError
from worker_service.domain.inspection import (
    INSPECT,
    InspectedObject,
    Inspection,
    Scope,
    Selection,
    WantedOperation,
)
from worker_service.domain.lock import Lock
from worker_service.domain.operation import Operation
from worker_service.domain.outcome import FailureCategory, Outcome, Result, Verdict
from worker_service.maintenance import MaintenanceWorker
from worker_service.operations.sqlite import SqliteEngine, contents
from worker_service.operations.sqlite.catalogue import PROCEDURES
from worker_service.operations.sqlite.filelock import hold
from worker_service.operations.sqlite.identity import file_key
from worker_service.operations.sqlite.location import Location
from worker_service.operations.wording import disk_need

ALL = Selection()
DEFAULTS = ("vacuum", "analyze", "reindex")


def wanted(*names: str, **options: str) -> tuple[WantedOperation, ...]:
    return tuple(WantedOperation(name=name, options=options) for name in names)


def look(
    scope: Scope = Scope.TABLE,
    operations: Sequence[WantedOperation] = wanted(*DEFAULTS),
    *,
    selection: Selection = ALL,
    preview: bool = False,
) -> Operation:
    inspection = Inspection(scope=scope, operations=tuple(operations), selection=selection, preview=preview)
    return Operation(name=INSPECT, target="app", inspection=inspection)


def found(result: Result) -> dict[str | None, InspectedObject]:
    assert (result.outcome, result.verdict) == (Outcome.COMPLETED, Verdict.EFFECTIVE)
    assert result.reason.endswith(".")
    assert result.inspection is not None
    objects = result.inspection.objects
    assert len({one.object for one in objects}) == len(objects)
    return {one.object: one for one in objects}


def maintained(path: Path, name: str, item: str | None, **options: str) -> Result:
    return worker_on(path).execute(Operation(name=name, target="app", object=item, options=options))


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with a table of three indexes, a smaller one without, a view and a full-text table."""
    path = filled_database(tmp_path / "app.db", rows=500)
    with apsw.Connection(str(path)) as connection:
        connection.execute(
            "CREATE UNIQUE INDEX item_id ON item(id); CREATE TABLE bare(a); CREATE VIEW v AS SELECT 1"
        )
        connection.execute("CREATE TABLE keyed(a UNIQUE); CREATE VIRTUAL TABLE ft USING fts5(body)")
    connection.close()
    return path


class TestObjects:
    def test_what_is_done_to_the_file_alone_is_told_of_the_database(self, path: Path) -> None:
        objects = found(worker_on(path).execute(look()))

        assert objects[None].operations == ("vacuum",)
        assert objects["item"].operations == ("analyze", "reindex")
        assert objects["bare"].operations == ("analyze",)
        assert list(objects)[:2] == [None, "item"]

    def test_at_the_scope_of_indexes_each_index_is_rebuilt_by_itself(self, path: Path) -> None:
        objects = found(worker_on(path).execute(look(Scope.INDEX)))

        assert objects[None].operations == ("vacuum",)
        assert objects["item"].operations == ("analyze",)
        assert objects["item_name"].operations == objects["sqlite_autoindex_keyed_1"].operations == ("reindex",)

    def test_at_the_scope_of_the_database_it_is_one(self, path: Path) -> None:
        objects = found(worker_on(path).execute(look(Scope.DATABASE)))

        assert list(objects) == [None]
        assert objects[None].operations == DEFAULTS

    def test_as_is_customary_it_is_one(self, path: Path) -> None:
        objects = found(worker_on(path).execute(look(Scope.CUSTOMARY)))

        assert {name: one.operations for name, one in objects.items()} == {None: DEFAULTS}

    def test_without_an_operation_for_the_file_it_is_not_among_them(self, path: Path) -> None:
        assert None not in found(worker_on(path).execute(look(operations=wanted("analyze"))))

    def test_a_selection_is_for_tables_and_indexes(self, path: Path) -> None:
        chosen = Selection(include=("item*", "main.bare"), exclude=("item_id",))

        tables = found(worker_on(path).execute(look(selection=chosen)))
        indexes = found(worker_on(path).execute(look(Scope.INDEX, wanted("reindex"), selection=chosen)))

        assert set(tables) == {None, "item", "bare"}
        assert set(indexes) == {"item_name"}

    def test_a_selection_that_takes_nothing_is_skipped_with_names_that_are_there(self, path: Path) -> None:
        worker = MaintenanceWorker(
            engine=SqliteEngine(), target=target_at(path), control=RecordingControl(), log=structlog.get_logger()
        )

        result = worker.execute(look(selection=Selection(include=("main.itms",))))

        assert (result.outcome, result.verdict, result.inspection) == (Outcome.SKIPPED, None, None)
        assert result.reason.startswith("nothing fits 'main.itms'; names like it are main.item")

    def test_what_has_no_rows_of_its_own_is_left_out_with_the_reason(self, path: Path) -> None:
        objects = found(worker_on(path).execute(look(preview=True)))

        assert objects["v"].left_out == "a view has no rows of its own"
        assert objects["ft"].left_out.startswith("its rows are in other tables")
        assert objects["v"].operations == ("analyze", "reindex")
        assert objects["v"].previews == ()
        assert objects["ft_data"].left_out == ""
        assert maintained(path, "analyze", "v").outcome is Outcome.SKIPPED

    def test_a_table_without_an_index_is_left_out_of_reindex(self, path: Path) -> None:
        one = found(worker_on(path).execute(look(operations=wanted("reindex"), preview=True)))["bare"]

        assert (one.left_out, one.operations, one.previews) == ("it has no index", ("reindex",), ())
        assert maintained(path, "reindex", "bare").outcome is Outcome.SKIPPED

    def test_the_locks_are_those_that_are_offered(self, path: Path) -> None:
        result = worker_on(path).execute(look())

        assert result.inspection is not None
        assert result.inspection.locks == ()
        assert all(one.locks == () for one in result.inspection.objects)

    def test_it_is_offered_with_a_lock_that_others_share(self, path: Path) -> None:
        offered = SqliteEngine().describe(target_at(path)).operations

        [key] = {lock.key for spec in offered for lock in spec.locks}
        assert [spec.name for spec in offered] == [*PROCEDURES, INSPECT]
        assert offered[-1].locks == (Lock(key=key, exclusive=False),)
        assert all(lock.exclusive for spec in offered[:-1] for lock in spec.locks)


class TestMeasures:
    @pytest.mark.parametrize("journal", ["delete", "wal"])
    def test_those_of_the_file(self, tmp_path: Path, journal: str) -> None:
        path = bloated_database(tmp_path / "app.db", journal=journal, auto_vacuum=2)
        [(pages, free)] = query(
            path, "SELECT page_count, freelist_count FROM pragma_page_count, pragma_freelist_count"
        )

        one = found(worker_on(path).execute(look(Scope.DATABASE)))[None]

        measures = one.measures
        assert one.size_bytes == measures["size_bytes"] == path.stat().st_size
        assert (measures["pages"], measures["free_pages"], measures["wal_bytes"]) == (pages, free, 0)
        assert measures["free_ratio"] == pytest.approx(int(str(free)) / int(str(pages)))
        assert measures["free_bytes"] == int(str(free)) * 4096 > 0
        assert (measures["tables"], measures["indexes"]) == (1, 1)
        assert (measures["never_analyzed"], measures["auto_vacuum"]) == (1, 2)

    def test_the_log_counts_with_the_file(self, tmp_path: Path) -> None:
        path = filled_database(tmp_path / "app.db", journal="wal")
        writer = apsw.Connection(str(path))
        writer.execute("UPDATE item SET name = 'other'")

        one = found(worker_on(path).execute(look(Scope.DATABASE)))[None]
        writer.close()

        assert one.measures["wal_bytes"] > 0
        assert one.size_bytes == one.measures["file_bytes"] + one.measures["wal_bytes"]

    def test_those_of_tables_and_indexes(self, path: Path) -> None:
        before = found(worker_on(path).execute(look()))["item"].measures
        maintained(path, "analyze", "item")

        table = found(worker_on(path).execute(look()))
        index = found(worker_on(path).execute(look(Scope.INDEX)))["item_name"]

        sizes = {str(name): int(str(size)) for name, size, _ in query(path, contents._PAGES)}
        measures = table["item"].measures
        assert "rows" not in before
        assert (before["analyzed"], measures["analyzed"]) == (0, 1)
        assert (before["never_analyzed"], measures["never_analyzed"]) == (1, 0)
        assert (measures["rows"], measures["indexes"]) == (500, 2)
        assert measures["data_bytes"] == sizes["item"]
        assert measures["index_bytes"] == sizes["item_name"] + sizes["item_id"]
        assert table["item"].size_bytes == measures["data_bytes"] + measures["index_bytes"]
        assert table[None].measures["never_analyzed"] == table["bare"].measures["analyzed"] == 0
        assert (index.size_bytes, index.measures["rows"]) == (sizes["item_name"], 500)

    @pytest.mark.parametrize("scope", [Scope.DATABASE, Scope.TABLE])
    def test_what_is_unused_in_pages_is_told_with_what_is_free(self, tmp_path: Path, scope: Scope) -> None:
        path = filled_database(tmp_path / "app.db", rows=12_000)
        full = found(worker_on(path).execute(look(scope)))[None].measures
        with apsw.Connection(str(path)) as connection:
            connection.execute("DELETE FROM item WHERE id % 2 = 0")
        connection.close()

        bloated = found(worker_on(path).execute(look(scope)))[None].measures
        size = path.stat().st_size
        maintained(path, "vacuum", None)
        returned = size - path.stat().st_size
        vacuumed = found(worker_on(path).execute(look(scope)))[None].measures

        assert bloated["free_ratio"] < 0.1
        assert bloated["bloat_bytes"] == bloated["free_bytes"] + bloated["unused_bytes"]
        assert bloated["bloat_ratio"] == pytest.approx(bloated["bloat_bytes"] / size)
        assert 0.35 * size < returned < bloated["bloat_bytes"] < 1.4 * returned
        worth_it = condition(recommended()["SQLite, vacuum"])
        assert [worth_it.holds(measures) for measures in (full, bloated, vacuumed)] == [False, True, False]

    def test_what_is_unused_is_told_of_tables_and_indexes(self, path: Path) -> None:
        with apsw.Connection(str(path)) as connection:
            connection.execute("DELETE FROM item WHERE id % 2 = 0")
        connection.close()

        table = found(worker_on(path).execute(look()))["item"].measures
        index = found(worker_on(path).execute(look(Scope.INDEX)))["item_name"].measures

        unused = {str(name): int(str(number)) for name, _, number in query(path, contents._PAGES)}
        assert table["unused_bytes"] == sum(unused[name] for name in ("item", "item_name", "item_id"))
        assert table["bloat_ratio"] == pytest.approx(table["unused_bytes"] / table["size_bytes"])
        assert index["unused_bytes"] == unused["item_name"]
        assert index["bloat_ratio"] == pytest.approx(unused["item_name"] / index["size_bytes"])

    @pytest.mark.parametrize("scope", [Scope.DATABASE, Scope.TABLE])
    def test_the_pages_of_a_large_file_are_not_all_read(
        self, path: Path, scope: Scope, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(contents, "_LARGEST_READ", 4096)
        monkeypatch.setattr(contents, "_PAGES", "SELECT no such statement")
        control = RecordingControl()

        result = worker_on(path, control).execute(look(scope))

        objects = found(result)
        assert result.inspection is not None
        assert {"unused_bytes", "bloat_ratio"} <= set(result.inspection.measures)
        assert not {"unused_bytes", "bloat_bytes", "bloat_ratio"} & objects[None].measures.keys()
        if scope is Scope.TABLE:
            assert (objects["item"].size_bytes, "size_bytes" in objects["item"].measures) == (0, False)
        [(_, line)] = control.lines
        assert line.endswith("not known: every page would be read, and the file is larger than 4.1 kB.")

    def test_a_library_without_dbstat_is_told(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def without(connection: apsw.Connection) -> None:
            connection.drop_modules(None)

        monkeypatch.setattr(apsw, "connection_hooks", [*apsw.connection_hooks, without])
        control = RecordingControl()

        one = found(worker_on(path, control).execute(look(Scope.DATABASE)))[None]

        assert "bloat_ratio" not in one.measures
        assert one.measures["free_ratio"] == 0
        assert control.lines == [
            ("info", "What is unused in its pages is not known: the SQLite library was built without dbstat.")
        ]


def needed(path: Path) -> str:
    """Word the disk for a file without free pages: its size in the temporary folder, and beside the file."""
    return disk_need(2 * path.stat().st_size)


class TestPreviews:
    def test_they_are_the_statements_and_whom_they_keep_out(self, path: Path) -> None:
        operations = (
            *wanted("vacuum"),
            *wanted("analyze", analysis_limit="100"),
            *wanted("reindex", "quick_check"),
        )

        objects = found(worker_on(path).execute(look(operations=operations, preview=True)))

        suffix = " -- writers wait, and readers while it is committed"
        assert objects[None].previews == (
            f"VACUUM{suffix}; {needed(path)}",
            "PRAGMA main.quick_check(100) -- writers wait",
        )
        analyze, reindex = objects["item"].previews
        assert analyze == f'PRAGMA main.analysis_limit = 100\nANALYZE main."item"{suffix}'
        assert sorted(reindex.removesuffix(suffix).splitlines()) == [
            'REINDEX main."item_id"',
            'REINDEX main."item_name"',
        ]

    def test_in_wal_mode_readers_go_on(self, tmp_path: Path) -> None:
        path = filled_database(tmp_path / "app.db", journal="wal")

        one = found(worker_on(path).execute(look(operations=wanted("vacuum", "quick_check"), preview=True)))[None]

        vacuum, check = one.previews
        assert vacuum == f"VACUUM\nPRAGMA main.wal_checkpoint(TRUNCATE) -- writers wait; {needed(path)}"
        assert check.endswith(" -- nobody waits")

    def test_free_pages_take_no_disk(self, tmp_path: Path) -> None:
        path = bloated_database(tmp_path / "app.db")

        [vacuum] = found(worker_on(path).execute(look(operations=wanted("vacuum"), preview=True)))[None].previews

        [(pages, free)] = query(
            path, "SELECT page_count, freelist_count FROM pragma_page_count, pragma_freelist_count"
        )
        live = (int(str(pages)) - int(str(free))) * 4096
        assert live < path.stat().st_size
        assert vacuum.endswith(f"; needs about {2 * live / 1000:.1f} kB of disk meanwhile")

    def test_an_index_has_its_own(self, path: Path) -> None:
        objects = found(worker_on(path).execute(look(Scope.INDEX, wanted("reindex"), preview=True)))

        assert objects["item_name"].previews[0].startswith('REINDEX main."item_name" -- ')

    def test_what_would_do_nothing_says_so(self, path: Path) -> None:
        one = found(worker_on(path).execute(look(operations=wanted("wal_checkpoint"), preview=True)))[None]

        assert one.previews == ("-- nothing to do",)

    def test_of_many_statements_the_first_are_told(self, tmp_path: Path) -> None:
        path = tmp_path / "app.db"
        with apsw.Connection(str(path)) as connection:
            connection.execute("".join(f"CREATE TABLE t{number:02}(a);" for number in range(52)))
        connection.close()

        [analyze] = found(worker_on(path).execute(look(Scope.DATABASE, wanted("analyze"), preview=True)))[
            None
        ].previews

        assert len(analyze.splitlines()) == 51
        assert "\n-- and 2 more -- " in analyze

    def test_without_one_there_are_none(self, path: Path) -> None:
        assert all(one.previews == () for one in found(worker_on(path).execute(look())).values())


class TestOneObject:
    def test_every_name_is_taken_by_each_operation(self, tmp_path: Path) -> None:
        path = tmp_path / "app.db"
        connection = empty_database(path)
        for number, name in enumerate((*HOSTILE, "x" * 64)):
            connection.execute(
                f"CREATE TABLE {quoted(name)}(a UNIQUE, b); INSERT INTO {quoted(name)} VALUES (1, 2)"
            )
            connection.execute(f"CREATE INDEX {quoted(f'{number} {name}')} ON {quoted(name)}(b)")
        connection.execute("INSERT INTO item VALUES (1, 'a', 'b')")
        connection.close()

        for scope in (Scope.TABLE, Scope.INDEX):
            for item, one in found(worker_on(path).execute(look(scope, wanted("analyze", "reindex")))).items():
                for name in one.operations:
                    result = maintained(path, name, item)

                    assert result.outcome is Outcome.COMPLETED, (item, name, result.reason)

        assert len(query(path, "SELECT DISTINCT tbl FROM sqlite_stat1")) == len(HOSTILE) + 2

    def test_analyze_leaves_the_other_tables(self, path: Path) -> None:
        query(path, "INSERT INTO keyed VALUES (1)")

        result = maintained(path, "analyze", "item")

        assert result.verdict is Verdict.EFFECTIVE
        assert result.reason.startswith("analysed 1 table, ")
        assert query(path, "SELECT DISTINCT tbl FROM sqlite_stat1") == [("item",)]
        assert maintained(path, "analyze", "item").verdict is Verdict.NO_EFFECT

    def test_reindex_does_those_of_the_table_or_the_one(self, path: Path) -> None:
        table = maintained(path, "reindex", "item")
        index = maintained(path, "reindex", "item_name")

        assert table.reason == "rebuilt 2 indexes, 0 of them automatic."
        assert index.reason == "rebuilt 1 index, 0 of them automatic."
        assert SqliteEngine().plan(
            target_at(path), Operation(name="reindex", target="app", object="item_name")
        ) == ('REINDEX main."item_name"',)
        assert SqliteEngine().plan(target_at(path), Operation(name="analyze", target="app", object="item")) == (
            'ANALYZE main."item"',
        )

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("analyze", "there is no table 'gone'."),
            ("reindex", "there is no index 'gone', nor a table of that name with one."),
        ],
    )
    def test_one_that_is_not_there_is_skipped(self, path: Path, name: str, reason: str) -> None:
        result = maintained(path, name, "gone")

        assert (result.outcome, result.reason) == (Outcome.SKIPPED, reason)

    @pytest.mark.parametrize("name", sorted(set(PROCEDURES) - {"analyze", "reindex"}))
    def test_what_is_done_to_the_file_takes_no_object(self, path: Path, name: str) -> None:
        with pytest.raises(InvalidOperationError, match="whole database, not to one object: leave out the object"):
            worker_on(path).validate(Operation(name=name, target="app", object="item"))


class TestRefused:
    @pytest.mark.parametrize(
        ("operation", "message"),
        [
            (Operation(name=INSPECT, target="app", object="item"), "leave out its object"),
            (Operation(name=INSPECT, target="app", options={"pages": "1"}), "no option 'pages'"),
            (look(operations=wanted("vacum")), "did you mean 'vacuum'"),
            (look(operations=wanted(INSPECT)), "no operation 'inspect'"),
            (look(operations=wanted("vacuum", pages="1")), "no option 'pages'"),
        ],
    )
    def test_what_cannot_be_planned_is_told(self, path: Path, operation: Operation, message: str) -> None:
        with pytest.raises(InvalidOperationError, match=message):
            worker_on(path).validate(operation)
        with pytest.raises(InvalidOperationError, match=message):
            SqliteEngine().plan(target_at(path), operation)

    def test_it_has_no_statement_of_its_own_to_plan(self, path: Path) -> None:
        assert SqliteEngine().plan(target_at(path), look()) == ()


class TestCare:
    @pytest.mark.parametrize("journal", ["delete", "wal"])
    def test_the_file_is_not_changed_and_none_is_left(self, tmp_path: Path, journal: str) -> None:
        path = bloated_database(tmp_path / "app.db", journal=journal, auto_vacuum=2)
        before = path.read_bytes()

        found(worker_on(path).execute(look(operations=wanted(*PROCEDURES), preview=True)))

        assert path.read_bytes() == before
        assert names_in(tmp_path) == ["app.db"]

    def test_a_missing_file_is_not_created(self, tmp_path: Path) -> None:
        result = worker_on(tmp_path / "mistyped.db").execute(look())

        assert result.failure is not None
        assert result.failure.category is FailureCategory.UNAVAILABLE
        assert names_in(tmp_path) == []

    def test_zero_bytes_are_skipped_and_stay(self, tmp_path: Path) -> None:
        path = tmp_path / "app.db"
        path.touch()

        assert worker_on(path).execute(look()).outcome is Outcome.SKIPPED
        assert path.stat().st_size == 0

    @pytest.mark.parametrize("data", [b"x", b"not a database, but long enough to be one" * 100])
    def test_another_file_is_no_database(self, tmp_path: Path, data: bytes) -> None:
        path = tmp_path / "app.db"
        path.write_bytes(data)

        result = worker_on(path).execute(look())

        assert result.failure is not None
        assert result.failure.reason == "SQLITE_NOTADB"
        assert path.read_bytes() == data

    def test_a_journal_of_a_killed_process_is_not_rolled_back(self, tmp_path: Path) -> None:
        path = filled_database(tmp_path / "app.db")
        writer = apsw.Connection(str(path))
        writer.pragma("cache_size", 1)
        writer.execute("BEGIN; UPDATE item SET name = 'other'")
        (tmp_path / "copy").mkdir()
        for file in (path, tmp_path / "app.db-journal"):
            shutil.copy(file, tmp_path / "copy" / file.name)
        writer.execute("ROLLBACK")
        writer.close()

        result = worker_on(tmp_path / "copy" / "app.db").execute(look())

        assert result.failure is not None
        assert result.failure.reason == "SQLITE_READONLY_ROLLBACK"
        assert names_in(tmp_path / "copy") == ["app.db", "app.db-journal"]

    def test_it_looks_beside_an_operation(self, path: Path) -> None:
        with hold(file_key(Location.of(str(path)))):
            assert found(worker_on(path).execute(look()))

    def test_a_file_that_stays_locked_has_failed_as_such(self, path: Path) -> None:
        inspection = Inspection(operations=wanted("vacuum"))
        operation = Operation(name=INSPECT, target="app", options={"busy_timeout_ms": "20"}, inspection=inspection)
        writer = apsw.Connection(str(path))
        writer.execute("BEGIN EXCLUSIVE")

        result = worker_on(path).execute(operation)

        writer.close()

        assert result.failure is not None
        assert result.failure.category is FailureCategory.LOCKED
        assert result.failure.retryable

    def test_the_rows_are_the_same_after_all_that_it_led_to(self, path: Path) -> None:
        before = content(path)

        for item, one in found(worker_on(path).execute(look())).items():
            for name in one.operations if not one.left_out else ():
                assert maintained(path, name, item).outcome is Outcome.COMPLETED

        assert content(path) == before


class TestStop:
    def test_it_ends_the_look(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000000)"
        monkeypatch.setattr(contents, "_PAGES", f"{numbers} SELECT max(i), 1, 1 FROM n")
        worker = worker_on(path, RecordingControl())
        threading.Timer(0.2, worker.interrupt).start()

        result = worker.execute(look())

        assert result.outcome is Outcome.CANCELLED
        assert result.inspection is None
