"""What only the SQLite store has: its file, its lock, its schema, its writer, its plans."""

import asyncio
import fcntl
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pysqlite3 import dbapi2
from sqlalchemy import bindparam, column, select

from manager_service.domain.errors import (
    InvalidStoreError,
    ManagerError,
    OverloadedError,
    ShuttingDownError,
    StoreInUseError,
    StoreUnavailableError,
)
from manager_service.domain.fleet import Timing
from manager_service.domain.leases import LeaseDirective
from manager_service.domain.model import SECOND
from manager_service.domain.ports import Hints, JobStore, ParentJobFilter
from manager_service.domain.states import ChildJobState
from manager_service.store import (
    acquire,
    candidates,
    checkpoints,
    choosing,
    durations,
    endings,
    expiry,
    heartbeat,
    lanes,
    locks,
    offers,
    open_parents,
    open_store,
    parents,
    progress,
    report,
    schema,
    sessions,
    sqlite,
    sqlite_dialect,
    unit_of_work,
)
from manager_service.store import writer as writing
from manager_service.store.statements import Among, Statement
from manager_service.store.store import SqlJobStore
from manager_service.store.tables import metadata
from manager_service.store.unit_of_work import UnitOfWork
from tests.doubles import CountingIds, FakeClock
from tests.factories import World, plan, registration, report_of, served_target
from tests.unfriendly.ground import open_folder, without_rights


def opened(path: Path | str, **given: Any) -> JobStore:
    url = f"sqlite:///{path}"
    return open_store(url, **{"clock": FakeClock(), "ids": CountingIds(), "timing": Timing(), **given})


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/store.db"


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def started(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def ended(code: str) -> int:
    return subprocess.run([sys.executable, "-c", code], check=False).returncode


@pytest.fixture
def sql(store: JobStore) -> Any:
    """The connection that writes, to look behind the port."""
    assert isinstance(store, SqlJobStore)
    return store._backend._writer  # type: ignore[attr-defined]  # the embedded backend's


class TestOpen:
    async def test_a_relative_url_names_a_file_of_the_directory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        store = opened("jobs.db")
        await store.close()

        assert names_in(tmp_path) == ["jobs.db"]

    async def test_closing_twice_is_harmless_and_ends_the_service(self, tmp_path: Path) -> None:
        store = opened(tmp_path / "a b%20?.db")
        await store.close()
        await store.close()

        with pytest.raises(ShuttingDownError):
            await store.create_parent_job(plan())

    @pytest.mark.parametrize(
        "url",
        ["", "orders", "sqlite://", "sqlite:///:memory:", "sqlite://host/x.db", "sqlite:x", "mysql://x", "x://"],
    )
    async def test_a_wrong_url_is_refused(self, url: str) -> None:
        with pytest.raises(InvalidStoreError, match="write sqlite:///FILE"):
            open_store(url, clock=FakeClock(), ids=CountingIds(), timing=Timing())

    async def test_a_missing_directory_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidStoreError, match="does not exist"):
            opened(tmp_path / "none" / "x.db")

    async def test_a_directory_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidStoreError, match="is a directory"):
            opened(tmp_path)

    async def test_an_unwritable_directory_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "x.db.lock").mkdir()
        with pytest.raises(InvalidStoreError, match="cannot be opened"):
            opened(tmp_path / "x.db")

    async def test_a_file_that_is_no_database_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "x.db"
        path.write_bytes(b"Dear diary, " * 1000)

        with pytest.raises(
            InvalidStoreError, match=r"x\.db cannot be opened: file is not a database; keep a copy"
        ):
            opened(path)
        assert not (tmp_path / "x.db.lock").exists()

    @pytest.mark.parametrize("table", ["store_state", "alembic_version"])
    async def test_a_damaged_one_is_refused_with_its_name(self, tmp_path: Path, table: str) -> None:
        path = tmp_path / "x.db"
        await opened(path).close()
        with closing(dbapi2.connect(str(path))) as connection:
            [size] = connection.execute("PRAGMA page_size").fetchone()
            of_table = "SELECT rootpage FROM sqlite_schema WHERE name = ?"
            [page] = connection.execute(of_table, [table]).fetchone()
        with path.open("r+b") as file:
            file.seek((page - 1) * size)
            file.write(b"\xa5" * size)

        with pytest.raises(InvalidStoreError, match=r"x\.db cannot be opened: .* malformed; keep a copy"):
            opened(path)

    @pytest.mark.parametrize("mode", [0o000, 0o444])
    async def test_one_that_may_not_be_written_is_refused_with_its_name(self, mode: int) -> None:
        with open_folder() as folder:
            path = folder / "x.db"
            await opened(path).close()
            path.chmod(mode)

            with without_rights(), pytest.raises(InvalidStoreError, match=r"x\.db cannot be .* user write it"):
                opened(path)
            assert names_in(folder) == ["x.db"]

    async def test_one_whose_log_may_not_be_written_is_refused_with_its_name(self) -> None:
        with open_folder() as folder:
            path = folder / "x.db"
            await opened(path).close()
            path.chmod(0o666)
            path.with_name("x.db-wal").touch(0o400)

            with without_rights(), pytest.raises(InvalidStoreError, match=r"x\.db cannot be .* user write it"):
                opened(path)

    async def test_one_that_another_program_has_locked_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / "x.db"
        await opened(path).close()
        with closing(dbapi2.connect(str(path), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")

            with pytest.raises(StoreUnavailableError, match=r"x\.db: database is locked"):
                opened(path)

    async def test_another_database_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "x.db"
        with dbapi2.connect(str(path)) as other:
            other.execute("CREATE TABLE customers (id)")
        other.close()

        with pytest.raises(InvalidStoreError, match="no job store"):
            opened(path)

    async def test_an_old_library_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dbapi2, "sqlite_version_info", (3, 51, 2))

        with pytest.raises(InvalidStoreError, match="too old"):
            opened(tmp_path / "x.db")

    async def test_synchronous_is_full_or_normal(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidStoreError, match="write full or normal"):
            opened(tmp_path / "x.db", synchronous="off")


class TestOneManager:
    async def test_a_second_manager_is_refused(self, tmp_path: Path) -> None:
        store = opened(tmp_path / "x.db")

        with pytest.raises(StoreInUseError, match="in use by another manager"):
            opened(tmp_path / "x.db")

        await store.close()
        await opened(tmp_path / "x.db").close()
        assert names_in(tmp_path) == ["x.db"]

    async def test_a_killed_manager_does_not_block_the_next(self, tmp_path: Path) -> None:
        path = tmp_path / "x.db"
        code = (
            "import asyncio, sys, time; from tests.integration.store.test_sqlite_store import opened;"
            f"s = opened({str(path)!r}); from tests.factories import plan;"
            "asyncio.run(s.create_parent_job(plan(request_id='r'))); print('up', flush=True); time.sleep(60)"
        )
        with started(code) as manager:
            assert manager.stdout is not None
            assert manager.stdout.readline() == "up\n"
            with pytest.raises(StoreInUseError):
                opened(path)
            os.kill(manager.pid, signal.SIGKILL)

        store = opened(path)
        assert (await store.create_parent_job(plan(request_id="r"))).existing
        await store.close()

    async def test_a_lock_file_that_its_holder_removed_is_taken_anew(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lock, flock = tmp_path / "x.db.lock", fcntl.flock
        raced: list[bool] = []

        def flock_late(descriptor: int, how: int) -> None:
            if not raced:
                lock.unlink()
                raced.append(True)
            flock(descriptor, how)

        monkeypatch.setattr(fcntl, "flock", flock_late)
        store = opened(tmp_path / "x.db")

        with pytest.raises(StoreInUseError):
            opened(tmp_path / "x.db")
        await store.close()


class TestSchema:
    def shape(self, path: Path) -> set[tuple[str, str]]:
        connection = dbapi2.connect(str(path))
        rows = connection.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL").fetchall()
        columns = {
            (f"{name}.{c[1]}", f"{c[2]} {c[3]} {c[5]}")
            for name, statement in rows
            if statement.startswith("CREATE TABLE")
            for c in connection.execute(f"PRAGMA table_xinfo({name})")
        }
        keys = {
            (f"{name}->{k[2]}", f"{k[3]} {k[4]}")
            for name, statement in rows
            if statement.startswith("CREATE TABLE")
            for k in connection.execute(f"PRAGMA foreign_key_list({name})")
        }
        indexes = {(n, " ".join(s.split())) for n, s in rows if not s.startswith("CREATE TABLE")}
        rowids = {(n, str("WITHOUT ROWID" in s)) for n, s in rows if s.startswith("CREATE TABLE")}
        names = {(n, word) for n, s in rows for word in s.split() if word.startswith(("uq_", "pk_", "fk_", "ck_"))}
        connection.close()
        return columns | keys | indexes | rowids | names

    async def test_the_migrations_make_the_same_tables(self, tmp_path: Path) -> None:
        fresh, migrated = tmp_path / "fresh.db", tmp_path / "migrated.db"
        await opened(fresh).close()
        connection = dbapi2.connect(str(migrated))
        connection.execute(
            "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, "
            "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
        )
        connection.close()
        engine = sqlite_dialect.sqlite_engine(migrated)
        with engine.connect() as raw:
            schema._migrate(raw, "x")
            raw.commit()
        engine.dispose()

        assert self.shape(migrated) == self.shape(fresh)
        store = opened(migrated)
        assert len(store._backend._file.tables) == len(metadata.tables) + 1  # type: ignore[attr-defined]  # internal
        await store.close()

    async def test_the_newest_migration_is_the_one_that_a_fresh_store_is_stamped_with(self) -> None:
        from alembic.config import Config
        from alembic.script import ScriptDirectory

        config = Config()
        config.set_main_option("script_location", str(schema._MIGRATIONS))
        config.set_main_option("path_separator", "os")
        assert ScriptDirectory.from_config(config).get_current_head() == schema.HEAD

    async def test_a_store_of_the_first_release_is_migrated_with_its_jobs(self, tmp_path: Path) -> None:
        path = tmp_path / "x.db"
        store = opened(path)
        parent = (await store.create_parent_job(plan("a", "b"))).parent_job
        await store.close()
        fresh = self.shape(path)
        with dbapi2.connect(str(path)) as connection:
            connection.execute("DROP INDEX ix_queue_parent_id")
            connection.execute("CREATE INDEX ix_queue_parent_id ON queue (parent_id, hold)")
            connection.execute("DROP INDEX ix_session_targets_session_id")
            connection.execute("DROP INDEX ix_targets_room")
            connection.execute("ALTER TABLE sessions DROP COLUMN offers_id")
            connection.execute("ALTER TABLE leases DROP COLUMN progress")
            connection.execute("ALTER TABLE sessions DROP COLUMN lost_time")
            connection.execute("ALTER TABLE child_jobs DROP COLUMN locks")
            connection.execute("ALTER TABLE child_jobs DROP COLUMN waiters")
            connection.execute("ALTER TABLE parent_counts DROP COLUMN totals")
            connection.execute("DROP TABLE durations")
            connection.execute("ALTER TABLE sessions DROP COLUMN held_back")
            connection.execute("UPDATE alembic_version SET version_num = '0001'")
        connection.close()

        store = opened(path)

        assert await store.parent_job(parent.id) == parent
        await store.close()
        assert self.shape(path) == fresh

    async def test_a_newer_schema_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "x.db"
        await opened(path).close()
        with dbapi2.connect(str(path)) as connection:
            connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.close()

        with pytest.raises(InvalidStoreError, match=r"newer release \(schema 9999\)"):
            opened(path)

    async def test_a_fresh_store_needs_no_alembic(self, tmp_path: Path) -> None:
        code = (
            "import sys; from tests.integration.store.test_sqlite_store import opened;"
            f"opened({str(tmp_path / 'x.db')!r}); sys.exit('alembic' in sys.modules)"
        )
        assert ended(code) == 0


class RefusalError(ManagerError):
    """A refusal of these tests."""


class TestGroupCommit:
    @pytest.fixture
    def writer(self, store: JobStore) -> Any:
        assert isinstance(store, SqlJobStore)
        return store._writer

    @pytest.fixture
    def begun(self, store: JobStore, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """How many transactions were begun."""
        backend = store._backend  # type: ignore[attr-defined]  # internal
        begin = backend.begin
        begun: list[int] = []

        def counted() -> UnitOfWork:
            begun.append(1)
            tx: UnitOfWork = begin()
            return tx

        monkeypatch.setattr(backend, "begin", counted)
        return begun

    def register(self, name: str) -> Callable[[UnitOfWork], str]:
        def command(tx: UnitOfWork) -> str:
            tx.rows(candidates.CLOSED_PARENTS, now=tx.now)
            _insert_target(tx, name)
            return name

        return command

    async def names(self, store: JobStore) -> list[str]:
        return [t.name for t in await store.targets(labels={}, limit=99)]

    async def test_commands_that_queue_share_a_transaction(
        self, store: JobStore, writer: Any, begun: list[int]
    ) -> None:
        results = await asyncio.gather(*(writer.submit(self.register(f"t{n}")) for n in range(9)))

        assert results == [f"t{n}" for n in range(9)]
        assert len(begun) == 1

    async def test_a_full_queue_takes_no_more_and_says_when_to_come_again(
        self, store: JobStore, writer: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(writing, "MOST_QUEUED", 2)
        queued = [writer.submit(self.register(name)) for name in ("a", "b")]

        with pytest.raises(OverloadedError, match="the queue of the job store is full; try again in 1 s"):
            writer.submit(self.register("c"))

        assert await asyncio.gather(*queued) == ["a", "b"]

    async def test_a_refusal_harms_no_other_and_costs_nothing(
        self, store: JobStore, writer: Any, begun: list[int]
    ) -> None:
        def refuse(tx: UnitOfWork) -> None:
            raise RefusalError

        results = await asyncio.gather(
            writer.submit(self.register("a")),
            writer.submit(refuse),
            writer.submit(self.register("b")),
            return_exceptions=True,
        )

        assert [results[0], type(results[1]), results[2]] == ["a", RefusalError, "b"]
        assert len(begun) == 1

    @pytest.mark.parametrize("error", [RefusalError, ValueError, ZeroDivisionError])
    async def test_a_failure_after_a_write_harms_no_other(
        self, store: JobStore, writer: Any, error: type[Exception]
    ) -> None:
        def fail(tx: UnitOfWork) -> None:
            self.register("gone")(tx)
            raise error

        results = await asyncio.gather(
            writer.submit(self.register("a")),
            writer.submit(fail),
            writer.submit(self.register("b")),
            return_exceptions=True,
        )

        assert [results[0], type(results[1]), results[2]] == ["a", error, "b"]
        assert await self.names(store) == ["a", "b"]

    async def test_an_unexpected_failure_before_any_write_harms_no_other(
        self, store: JobStore, writer: Any
    ) -> None:
        results = await asyncio.gather(
            writer.submit(self.register("a")), writer.submit(lambda tx: 1 / 0), return_exceptions=True
        )

        assert (results[0], type(results[1])) == ("a", ZeroDivisionError)

    async def test_a_refusal_after_a_note_in_memory_leaves_nothing_behind(self, world: World, writer: Any) -> None:
        parent = await world.parent_job("a")

        def pause_and_fail(tx: UnitOfWork) -> None:
            tx.parent(parent.id).paused = True
            tx.settle()
            raise RefusalError

        with pytest.raises(RefusalError):
            await writer.submit(pause_and_fail)

        assert await world.store.parent_job(parent.id) == parent

    async def test_a_caller_that_goes_away_loses_the_answer_only(self, store: JobStore) -> None:
        call = asyncio.ensure_future(store.register(registration("a")))
        await asyncio.sleep(0)
        call.cancel()
        await store.mark_alive()

        assert await self.names(store) == ["a"]

    async def test_reads_and_callers_go_on_while_a_bulk_command_runs(self, store: JobStore, writer: Any) -> None:
        seen: list[str] = []

        def bulk(tx: UnitOfWork) -> Generator[None, None, str]:
            self.register("bulk")(tx)
            for _ in range(5):
                seen.append("piece")
                yield
            return "done"

        future = writer.submit(bulk)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert await self.names(store) == []
        later = writer.submit(self.register("later"))
        seen.append("read")

        assert (await future, await later) == ("done", "later")
        assert seen.index("read") < 5
        assert await self.names(store) == ["bulk", "later"]

    async def test_the_end_of_the_loop_undoes_a_bulk_command(self, store: JobStore, writer: Any) -> None:
        def bulk(tx: UnitOfWork) -> Iterator[None]:
            self.register("bulk")(tx)
            while True:
                yield

        def generate(tx: UnitOfWork) -> Generator[None, None, None]:
            yield from bulk(tx)

        running = writer.submit(generate)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        queued = writer.submit(self.register("queued"))
        [task] = writer._tasks
        task.cancel()

        results = await asyncio.gather(running, queued, return_exceptions=True)
        assert [type(r) for r in results] == [ShuttingDownError, ShuttingDownError]
        assert await self.names(store) == []
        assert await writer.submit(self.register("after")) == "after"

    async def test_a_listener_that_fails_changes_nothing(self, store: JobStore, begun: list[int]) -> None:
        told: list[str] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))

        def fail(hints: Hints) -> None:
            raise ZeroDivisionError

        store.subscribe(fail)

        created = await asyncio.gather(*(store.create_parent_job(plan()) for _ in range(3)))

        assert len({c.parent_job.id for c in created}) == 3
        assert told == ["a listener of the job store failed"]
        assert len(begun) == 1

    async def test_closing_finishes_what_is_queued(self, tmp_path: Path) -> None:
        store = opened(tmp_path / "x.db")
        call = asyncio.ensure_future(store.create_parent_job(plan(request_id="r")))
        await asyncio.sleep(0)
        await store.close()

        assert not (await call).existing
        store = opened(tmp_path / "x.db")
        assert (await store.create_parent_job(plan(request_id="r"))).existing
        await store.close()


def _insert_target(tx: UnitOfWork, name: str) -> None:
    from manager_service.store.register import _INSERT_TARGET, _target_row

    tx.run(_INSERT_TARGET, **_target_row(served_target(name)), paused=False)


class TestAStoreThatCannotBeWritten:
    async def test_a_full_disk_loses_nothing_and_is_got_over(self, world: World, sql: Any) -> None:
        before = await world.parent_job("a")
        [pages] = sql.raw.execute("PRAGMA page_count").fetchone()
        sql.raw.execute(f"PRAGMA max_page_count = {pages + 5}").fetchall()
        many = plan(*(f"t{n}" for n in range(5000)))

        with pytest.raises(StoreUnavailableError, match="full"):
            await world.store.create_parent_job(many)
        results = await asyncio.gather(
            world.store.create_parent_job(many), world.store.pause_parent_job(before.id), return_exceptions=True
        )

        assert isinstance(results[0], StoreUnavailableError)
        assert (await world.store.parent_job(before.id)).paused
        sql.raw.execute("PRAGMA max_page_count = 1000000").fetchall()
        assert (await world.store.create_parent_job(many)).parent_job.counts.pending == 5000
        await world.check(before.id)

    async def test_a_locked_file_is_told_and_got_over(self, world: World, store_url: str) -> None:
        other = dbapi2.connect(store_url.removeprefix("sqlite:///"), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError, match="locked"):
            await world.parent_job("a")
        other.execute("ROLLBACK")
        other.close()

        await world.check((await world.parent_job("a")).id)

    async def test_a_defect_is_not_blamed_on_the_disk(self, store: JobStore, sql: Any) -> None:
        await store.create_parent_job(plan(children=[]))
        sql.raw.execute("DROP TABLE job_logs")

        with pytest.raises(dbapi2.OperationalError, match="no such table"):
            await store.prune(age=-1, limit=100)


class TestStatementsWithLists:
    async def test_a_value_beside_an_empty_list_is_bound_as_it_is(self, world: World, sql: Any) -> None:
        await world.parent_job("a")
        q = metadata.tables["queue"]
        others = Statement(
            select(q.c.target).where(q.c.target == bindparam("target"), ~Among(q.c.parent_id, "not"))
        )

        assert [row.target for row in sql.rows(others, **{"target": "a", "not": []})] == ["a"]

    async def test_many_runs_of_one_are_refused(self, sql: Any) -> None:
        statement = Statement(metadata.tables["queue"].delete().where(Among(column("target"), "targets")))

        with pytest.raises(TypeError, match="is run once"):
            sql.run_many(statement, [{"targets": ["a"]}, {"targets": ["a", "b"]}])


class TestTheFileIsNotInItsPlace:
    @pytest.mark.parametrize("how", ["deleted", "moved", "replaced"])
    async def test_nothing_is_taken_that_would_be_gone(self, tmp_path: Path, how: str) -> None:
        path = tmp_path / "x.db"
        store = opened(path)
        await store.create_parent_job(plan("a"))
        match how:
            case "deleted":
                path.unlink()
            case "moved":
                path.rename(tmp_path / "y.db")
            case _:
                (tmp_path / "z.db").write_bytes(path.read_bytes())
                (tmp_path / "z.db").rename(path)

        with pytest.raises(StoreUnavailableError, match="was moved, replaced or deleted"):
            await store.create_parent_job(plan("b"))

        await store.close()


class TestAnEmptyPollWritesNothing:
    @pytest.mark.parametrize("wanted", [1, 50])
    async def test_no_row_changes(self, world: World, sql: Any, wanted: int) -> None:
        worker = await world.worker("a")
        await world.parent_job(*(f"t{n}" for n in range(100)))
        world.clock.pass_time(5_000_000)
        before = sql.changes()

        for _ in range(3):
            assert await worker.acquire(wanted) == ()

        assert sql.changes() == before

    async def test_listeners_hear_nothing(self, world: World) -> None:
        worker = await world.worker("a")
        world.hints.clear()

        await worker.acquire()

        assert world.hints == []


PINNED = {
    "claim": (
        candidates.FIRST_HEADS,
        [
            "w USING COVERING INDEX ix_queue_ready",
            "session_targets USING COVERING INDEX",
            "targets USING COVERING INDEX",
            "child_jobs USING PRIMARY KEY",
        ],
    ),
    "claim of the best": (
        candidates.SERVED_HEADS,
        ["session_targets USING COVERING INDEX", "targets USING COVERING INDEX", "best USING INDEX"],
    ),
    "what is offered": (offers.OFFERS, ["session_targets USING PRIMARY KEY"]),
    "claim of an operation": (candidates.OPERATION_HEADS, ["w USING INDEX ix_queue_ready_operation"]),
    "claim beside closed parent jobs": (
        open_parents.PARENT_HEADS,
        ["of_parent USING COVERING INDEX ix_queue_parent_id (parent_id=? AND hold=?)", "queue USING PRIMARY KEY"],
    ),
    "what follows on these": (
        open_parents.NEXT_HEAD,
        ["of_parent USING COVERING INDEX ix_queue_parent_id (parent_id=? AND hold=?)", "queue USING PRIMARY KEY"],
    ),
    "parent jobs with heads": (
        open_parents.QUEUED_PARENTS,
        ["next USING COVERING INDEX ix_queue_parent_id (parent_id>?)"],
    ),
    "claim's live leases": (candidates.CLOSED_PARENTS, ["leases USING COVERING INDEX ix_leases_parent_id"]),
    "session and its slots": (
        sessions._SESSION,
        ["sessions USING PRIMARY KEY", "leases USING COVERING INDEX ix_leases_session_id"],
    ),
    "parent job's limit": (choosing._LIVE_OF_PARENT, ["leases USING COVERING INDEX ix_leases_parent_id"]),
    "repeated poll": (acquire._GRANTED_BEFORE, ["leases USING INDEX ix_leases_session_id"]),
    "best of each target": (candidates.SERVED_HEADS, ["best USING INDEX ix_queue_ready_target"]),
    "claim's locks": (locks.LIVE_LOCKS, ["live_locks USING"]),
    "expiry": (expiry.EXPIRED, ["leases USING INDEX ix_leases_expire_time"]),
    "expiry of the unaccepted": (expiry.UNACCEPTED, ["leases USING INDEX ix_leases_accept_time"]),
    "delays": (expiry.DUE, ["queue USING", "ix_queue_delayed"]),
    "heartbeat": (heartbeat.LEASES_OF_SESSION, ["leases USING INDEX ix_leases_session_id"]),
    "renewal": (heartbeat.RENEW, ["SEARCH leases USING", "lease_id=?"]),
    "renewal with progress": (heartbeat.RENEW_WITH_PROGRESS, ["SEARCH leases USING", "lease_id=?"]),
    "progress": (progress.PROGRESS, ["leases USING INDEX ix_leases_parent_id (parent_id=?)"]),
    "report that came before": (report._ATTEMPTS, ["attempts USING PRIMARY KEY"]),
    "report": (unit_of_work.LEASES_OF_CHILDREN, ["leases USING PRIMARY KEY"]),
    "child's end": (endings._UPDATE_CHILD, ["child_jobs USING PRIMARY KEY"]),
    "locks' end": (endings._UNLOCK, ["live_locks USING INDEX ix_live_locks_child_id"]),
    "end": (endings.END_LEASE, ["leases USING INDEX", "lease_id=?"]),
    "parent jobs": (parents.SELECT_PARENTS, ["parent_jobs USING PRIMARY KEY", "parent_counts USING PRIMARY KEY"]),
    "who waits for a freed target": (
        unit_of_work.TARGETS_READY,
        ["targets USING COVERING INDEX", "USING COVERING INDEX ix_queue_ready_operation (target=?)"],
    ),
    "counts": (parents.UPDATE_COUNTS, ["parent_counts USING PRIMARY KEY"]),
    "successors": (lanes.SUCCESSORS, ["ix_child_jobs_open"]),
    "children that completed": (durations.DONE, ["child_jobs USING PRIMARY KEY", "targets USING COVERING INDEX"]),
    "durations that are known": (durations.KNOWN, ["child_jobs USING PRIMARY KEY", "durations USING PRIMARY KEY"]),
    "durations that are added to": (durations.SET, ["durations USING PRIMARY KEY"]),
    "what one is expected to take": (durations.ONE, ["durations USING PRIMARY KEY"]),
    "what those of a target are expected to take": (durations.OF_OBJECTS, ["durations USING PRIMARY KEY"]),
    "what databases are expected to take": (durations.OF_DATABASES, ["durations USING PRIMARY KEY"]),
    "old durations": (durations.OLD, ["durations USING COVERING INDEX ix_durations_update_time"]),
}


# What a plan calls the lists that it was given or made itself.
NO_TABLE = ("SCAN json_each", "SCAN heads", "SCAN walk", "SCAN CONSTANT ROW")
# Walked in order until the claim has enough; live leases and jobs that are being cancelled, which are few.
SMALL = ("ix_queue_ready", "ix_leases_parent_id", "ix_parent_jobs_cancelling", "ix_parent_jobs_deadline")


class TestPlansArePinned:
    @pytest.mark.parametrize("values", [[], ["x"], ["x", "y"]], ids=["none", "one", "many"])
    @pytest.mark.parametrize("name", PINNED)
    async def test_no_table_is_scanned(self, sql: Any, name: str, values: list[str]) -> None:
        statement, wanted = PINNED[name]

        steps = sql.plan(statement, **dict.fromkeys(statement.lists, values))

        for text in wanted:
            assert any(text in step for step in steps), steps
        scanned = [step for step in steps if step.startswith("SCAN") and not step.startswith(NO_TABLE)]
        assert all(any(index in step for index in SMALL) for step in scanned), steps


class TestNoStatementOfTheHotPathIsCompiledTwice:
    async def test_a_claim_and_a_report(self, world: World, sql: Any) -> None:
        """SQLite compiles anew where it looked at a bound value, which costs eight times what the claim does."""
        compiled: list[Any] = []
        worker = await world.worker("a", "b", slots=2)
        other = await world.worker("c", worker_name="other")
        for _ in range(70):
            await world.parent_job("a", "b", "c")

        async def work() -> None:
            for who in (worker, other):
                leases = await who.acquire(2)
                while leases:
                    reports = [report_of(lease) for lease in leases]
                    leases = (await world.store.report(who.session_id, reports, who.poll(2))).leases

        def authorize(*step: object) -> int:
            if step[0] != dbapi2.SQLITE_PRAGMA:  # these are compiled each time
                compiled.append(step)
            return 0

        sql.raw.set_authorizer(authorize)
        await work()
        assert compiled
        compiled.clear()
        for _ in range(70):
            await world.parent_job("a", "b", "c")
        compiled.clear()
        await work()

        assert compiled == []


@pytest.fixture
def copied_in(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The threads that copied pages of the log, one entry a copy."""
    threads: list[int] = []
    copy = checkpoints._copy

    def copy_and_tell(raw: Any) -> None:
        threads.append(threading.get_ident())
        copy(raw)

    monkeypatch.setattr(checkpoints, "_copy", copy_and_tell)
    return threads


class TestCheckpoints:
    async def write(self, world: World, commits: int) -> None:
        for _ in range(commits):
            await world.parent_job("a")
            await asyncio.sleep(0.001)  # as between calls: the thread gets its turn

    def log(self, sql: Any) -> tuple[int, int]:
        """Return how many pages are in the log, and how many of them are in the database as well."""
        _, pages, copied = sql.raw.execute("PRAGMA wal_checkpoint(NOOP)").fetchone()
        return pages, copied

    async def test_the_log_stays_short_under_steady_writing(
        self, world: World, sql: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(checkpoints, "_PAGES", 20)
        monkeypatch.setattr(checkpoints, "_LOG", 300)
        copy, in_loop, longest = checkpoints._copy, threading.get_ident(), 0

        def copy_in_the_loop_alone(raw: Any) -> None:
            if threading.get_ident() == in_loop:  # the thread gets nowhere
                copy(raw)

        monkeypatch.setattr(checkpoints, "_copy", copy_in_the_loop_alone)
        for _ in range(30):
            await self.write(world, 10)
            longest = max(longest, self.log(sql)[0])

        assert 300 <= longest < 1_000

    async def test_pages_are_copied_beside_the_loop(
        self, world: World, sql: Any, monkeypatch: pytest.MonkeyPatch, copied_in: list[int]
    ) -> None:
        monkeypatch.setattr(checkpoints, "_PAGES", 20)

        await self.write(world, 30)
        # A commit that finds every page copied begins the log anew, with none.
        for _ in range(1_000):
            if not self.log(sql)[1]:
                await self.write(world, 1)

        assert threading.get_ident() not in copied_in
        assert self.log(sql)[1] > 0

    @pytest.mark.parametrize("longest", [20, 8_000], ids=["in the loop", "beside it"])
    @pytest.mark.parametrize("trouble", ["_COPY", "_LOOK"])
    async def test_pages_that_cannot_be_copied_lose_and_double_nothing(
        self, world: World, sql: Any, monkeypatch: pytest.MonkeyPatch, trouble: str, longest: int
    ) -> None:
        monkeypatch.setattr(checkpoints, "_PAGES", 20)
        monkeypatch.setattr(checkpoints, "_LOG", longest)
        monkeypatch.setattr(checkpoints, trouble, "SELECT * FROM no_such_table")

        await self.write(world, 30)

        assert self.log(sql)[1] == 0
        assert len(await world.store.parent_jobs(ParentJobFilter(), limit=100)) == 30

    async def test_a_thread_that_cannot_be_started_doubles_nothing(
        self, world: World, sql: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(checkpoints, "_PAGES", 1)
        monkeypatch.setattr(ThreadPoolExecutor, "submit", refuse)

        await asyncio.gather(world.parent_job("a"), world.parent_job("b"))

        assert len(await world.store.parent_jobs(ParentJobFilter(), limit=100)) == 2

    async def test_a_transaction_longer_than_the_log_may_be_is_copied_beside_the_loop(
        self, world: World, sql: Any, monkeypatch: pytest.MonkeyPatch, copied_in: list[int]
    ) -> None:
        monkeypatch.setattr(checkpoints, "_LOG", 100)
        await world.parent_job(*(f"t{number}" for number in range(2_000)))
        await self.write(world, 1)

        for _ in range(1_000):
            if not copied_in:
                await asyncio.sleep(0.01)
        assert copied_in[0] != threading.get_ident()

    async def test_a_close_leaves_neither_thread_nor_log(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(checkpoints, "_PAGES", 1)
        store = opened(tmp_path / "x.db")
        await store.create_parent_job(plan("a"))
        assert any(thread.name.startswith("store-checkpoints") for thread in threading.enumerate())

        await store.close()

        assert not any(thread.name.startswith("store-checkpoints") for thread in threading.enumerate())
        assert not (tmp_path / "x.db-wal").exists()


class TestAClaimCostsItsGrantsAndServedLanes:
    """Counted in steps of SQLite's virtual machine, so that the machine's speed does not matter."""

    MOST = 40_000

    def steps_of(self, sql: Any) -> Callable[[], int]:
        count = [0]

        def tick() -> int:
            count[0] += 1
            return 0

        sql.raw.set_progress_handler(tick, 100)
        return lambda: count[0] * 100

    def crowd(self, sql: Any, *, parent_id: str, target: str, rank: int = -1) -> None:
        """Put 100,000 ready heads in front."""
        sql.raw.execute("PRAGMA foreign_keys = OFF")
        sql.raw.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) INSERT INTO queue "
            f"SELECT printf('0-%06d', i), '{parent_id}', {target}, 'vacuum', {rank}, i, 0, 0 FROM n"
        )
        sql.raw.execute("PRAGMA foreign_keys = ON")

    async def claim(self, world: World, sql: Any, *served: Any) -> int:
        worker = await world.worker(*served, "mine", worker_name="claimer")
        await world.parent_job("mine")
        steps = self.steps_of(sql)
        [lease] = await worker.acquire()
        assert lease.target == "mine"
        return steps()

    async def test_a_claim_for_many_beside_a_closed_parent_job(self, world: World, sql: Any) -> None:
        names = [f"t{number}" for number in range(300)]
        worker = await world.worker(*names, slots=1_000)
        await world.parent_job(*names, priority=9, max_parallel=1)
        await worker.acquire(1)
        for name in names:
            await world.store.pause_target(name, paused=True)
        for _ in range(20):
            await world.parent_job(*names)
        steps = self.steps_of(sql)

        assert await worker.acquire(1_000) == ()

        assert steps() < 3 * self.MOST

    async def test_a_report_on_a_target_that_many_wait_for(self, world: World, sql: Any) -> None:
        worker, lease = await world.leased_child_job()
        self.crowd(sql, parent_id=lease.parent_job_id, target="'orders'")
        world.hints.clear()
        steps = self.steps_of(sql)

        await worker.end(lease)

        assert steps() < self.MOST
        assert world.ready_hints() == {"orders": 1}

    async def test_heads_of_unserved_targets(self, world: World, sql: Any) -> None:
        parent = await world.parent_job("x")
        self.crowd(sql, parent_id=parent.id, target="'t' || i")

        assert await self.claim(world, sql) < self.MOST

    async def test_heads_of_a_busy_target(self, world: World, sql: Any) -> None:
        _, lease = await world.leased_child_job()
        self.crowd(sql, parent_id=lease.parent_job_id, target="'orders'")

        assert await self.claim(world, sql, "orders") < self.MOST

    async def test_heads_of_a_paused_target(self, world: World, sql: Any) -> None:
        await world.worker("orders")
        parent = await world.parent_job("orders")
        await world.store.pause_target("orders", paused=True)
        self.crowd(sql, parent_id=parent.id, target="'orders'")

        assert await self.claim(world, sql, "orders") < self.MOST

    async def test_blocked_children(self, world: World, sql: Any) -> None:
        parent = await world.parent_job("busy", operations=("vacuum", "analyze"))
        sql.raw.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) "
            "INSERT INTO child_jobs SELECT printf('0-%06d', i), parent_id, position + i, lane, target, operation, "
            "options, object, size, create_time, locks, attempts, failures, losses, version, state, verdict, "
            "reason, failure, before, after, available_time, start_time, end_time, waiters FROM child_jobs, n "
            f"WHERE parent_id = '{parent.id}' AND position = 1"
        )

        assert await self.claim(world, sql) < self.MOST

    async def test_heads_of_a_parent_job_at_its_limit(self, world: World, sql: Any) -> None:
        names = [f"t{n}" for n in range(200)]
        worker = await world.worker(*names, worker_name="bert", slots=1)
        parent = await world.parent_job(*names, priority=9, max_parallel=1)
        await worker.acquire()

        assert parent.counts.pending == 200
        assert await self.claim(world, sql, *names) < 2 * self.MOST

    async def test_heads_of_a_parent_job_at_its_limit_on_a_thousand_served_targets(
        self, world: World, sql: Any
    ) -> None:
        names = [f"t{n}" for n in range(1_000)]
        worker = await world.worker(*names, worker_name="bert", slots=1)
        await world.parent_job(*names, priority=9, max_parallel=1)
        await worker.acquire()

        assert await self.claim(world, sql, *names) < self.MOST


async def test_a_fresh_store_opens_quickly(tmp_path: Path) -> None:
    began = time.process_time()  # a busy machine takes its time, but not ours
    await opened(tmp_path / "x.db").close()

    assert time.process_time() - began < 0.5


async def test_live_state_is_never_written_to_the_child(world: World, sql: Any) -> None:
    _, lease = await world.running_child_job()

    [state] = sql.raw.execute("SELECT state FROM child_jobs WHERE id = ?", [lease.child_job_id]).fetchone()
    assert state == ChildJobState.PENDING


class TestADatabaseOfSomebodyElse:
    def test_it_is_refused_without_a_change(self, tmp_path: Path) -> None:
        path = tmp_path / "app.db"
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE t (a)")
        connection.close()
        before = path.read_bytes()

        with pytest.raises(InvalidStoreError, match="no job store"):
            open_store(f"sqlite:///{path}", clock=FakeClock(), ids=CountingIds(), timing=Timing())

        assert path.read_bytes() == before
        assert [entry.name for entry in tmp_path.iterdir()] == ["app.db"]


class TestWhatTheSchemaItselfForbids:
    async def test_a_second_holder_of_an_exclusive_key(self, world: World) -> None:
        _, lease = await world.leased_child_job()
        other = await world.child_job("elsewhere")
        raw = backend(world).raw

        with pytest.raises(dbapi2.IntegrityError):
            raw.execute(
                'INSERT INTO live_locks ("key", child_id, "exclusive") '
                'SELECT "key", ?, 1 FROM live_locks WHERE child_id = ?',
                (other.id, lease.child_job_id),
            )

    async def test_a_lease_that_is_not_there_cannot_be_ended(self, world: World) -> None:
        worker, lease = await world.leased_child_job()
        ended = endings.END_LEASE
        stale = {"of": lease.child_job_id, "lease": lease.lease_id, "number": lease.attempt + 1}

        changed = backend(world).run_many(ended, [stale])

        assert changed == 0
        assert (await worker.beat(lease)).leases == (LeaseDirective.CONTINUE,)


def backend(world: World) -> sqlite.SqliteConnection:
    """Return the connection that writes."""
    found: sqlite.SqliteConnection = vars(vars(world.store)["_backend"])["_file"].writer
    return found


class TestTheMarkOfTheOneManager:
    """While it does not run, nobody does: each of its starts is the end of an outage, however short."""

    async def reopen(self, world: World, open_again: Callable[[], JobStore]) -> None:
        await world.store.close()
        world.store = open_again()

    async def test_a_restart_gives_workers_time_to_come_back(
        self, world: World, open_again: Callable[[], JobStore]
    ) -> None:
        await world.running_child_job()
        await world.store.close()
        world.clock.reboot()
        world.clock.wall_time += SECOND
        world.store = open_again()
        try:
            await world.live_on(world.timing.lease_duration + 2 * world.timing.heartbeat_interval)
            assert await world.store.expire_leases(limit=10) == 0
            await world.live_on(1)
            assert await world.store.expire_leases(limit=10) == 1
        finally:
            await world.store.close()

    async def test_a_renewal_earns_the_next_grace(self, world: World, open_again: Callable[[], JobStore]) -> None:
        worker, lease = await world.running_child_job()
        for _ in range(3):
            await self.reopen(world, open_again)
            worker.store = world.store
            await world.live_on(world.timing.lease_duration + 2 * world.timing.heartbeat_interval)
            assert await world.store.expire_leases(limit=10) == 0
            assert (await worker.beat(lease)).leases == (LeaseDirective.CONTINUE,)
        await world.store.close()

    async def test_a_write_keeps_the_mark_young(self, world: World, open_again: Callable[[], JobStore]) -> None:
        worker, lease = await world.running_child_job()
        for _ in range(45):
            world.clock.pass_time(SECOND)
            await worker.beat(lease)
        world.clock.pass_time(SECOND)
        await worker.acquire()
        await self.reopen(world, open_again)
        try:
            # An hour in which it was down would have been seen; so would 45 seconds.
            await world.live_on(world.timing.lease_duration + 2 * world.timing.heartbeat_interval)
            assert await world.store.expire_leases(limit=10) == 0
            await world.live_on(SECOND + 1)
            assert await world.store.expire_leases(limit=10) == 1
        finally:
            await world.store.close()
