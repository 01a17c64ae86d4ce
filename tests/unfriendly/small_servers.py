"""Operations of servers whose disk is full: ``python -m tests.unfriendly.small_servers postgresql|mariadb``.

It runs in a mount namespace of its own, where it may mount a small tmpfs, and prints what it found there.
"""

# ruff: noqa: T201 - a program of its own, whose voice is stdout

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from threading import Thread
from typing import Any

from tests.integration.operations import postgres_ground as ground
from tests.integration.operations.doubles import RecordingControl
from tests.integration.operations.mariadb_databases import Database
from tests.mariadb import MariadbServer
from tests.postgres import PostgresServer
from tests.unfriendly.small_disk import fill

_MEGABYTES = 48
# MariaDB itself ends by a failed assertion where not even a table's first pages can be written.
_LEFT = 1_000_000
# VACUUM writes which pages are free and which are all visible.
_LEFT_FOR_MAPS = 100_000
_LEFT_FOR_ARIA = 50_000
_ROWS = 20_000
_POSTGRESQL: tuple[tuple[str, dict[str, Any]], ...] = (
    ("vacuum", {}),
    ("analyze", {}),
    ("vacuum", {"full": True}),
    ("reindex", {}),
    ("reindex", {"concurrently": False}),
    ("cluster", {}),
)
_MARIADB = ("vacuum", "reindex", "analyze", "integrity_check")


@contextmanager
def small_disk(folder: Path, like: Path) -> Iterator[None]:
    """Mount a small file system there, which belongs to whom another folder belongs to."""
    owner = like.stat()
    options = f"size={_MEGABYTES}m,uid={owner.st_uid},gid={owner.st_gid},mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def postgresql() -> dict[str, Any]:
    with PostgresServer() as server:
        disk = server.folder / "small"
        disk.mkdir()
        with small_disk(disk, server.folder / "data"):
            url = server.create_database()
            ground.change(
                url,
                f"CREATE TABLESPACE small LOCATION '{disk}'",
                "SET default_tablespace = small",
                "CREATE TABLE t (a int PRIMARY KEY, b text)",
                f"INSERT INTO t SELECT i, repeat(md5(i::text), 5) FROM generate_series(1, {_ROWS}) AS i",
                "CREATE INDEX tb ON t (b)",
                "ALTER TABLE t CLUSTER ON tb",
                "DELETE FROM t WHERE a % 10 = 0",
            )
            content = "SELECT md5(string_agg(t::text, '' ORDER BY a)) FROM t"
            before = ground.value(url, content)
            files = {name: ground.file_of(url, name) for name in ("t", "t_pkey", "tb")}
            fill(disk, _LEFT_FOR_MAPS)
            results = [asdict(ground.run(url, name, "public.t", **options)) for name, options in _POSTGRESQL]
            found = {
                "results": results,
                "same files": files == {name: ground.file_of(url, name) for name in files},
                "left": ground.column(url, r"SELECT relname FROM pg_class WHERE relname ~ '_cc(new|old)'"),
            }
            (disk / "ballast").unlink()
            found["afterwards"] = asdict(ground.run(url, "reindex", "public.t"))
            found["rows stayed"] = ground.value(url, content) == before
            server.stop()
            return found


def mariadb() -> dict[str, Any]:
    with MariadbServer() as server:
        database = Database(server=server, name=server.create_database())
        disk = server.data / database.name
        with small_disk(disk, server.data):
            database.table("t", rows=_ROWS)
            before, spaces = database.checksums("t"), database.spaces()
            fill(disk, _LEFT)
            results = [asdict(database.maintain(name, table="t")) for name in _MARIADB]
            found = {
                "results": results,
                "same files": database.spaces() == spaces,
                "left": [path.name for path in disk.glob("#sql*")],
            }
            (disk / "ballast").unlink()
            found["afterwards"] = asdict(database.maintain("reindex", table="t"))
            found["rows stayed"] = database.checksums("t") == before
            found["waits"] = _waits(database, disk)
            return found


def _waits(database: Database, disk: Path) -> str:
    """Return what is told of a table that the server rebuilds once it has room; the server is killed then."""
    database.table("aria", rows=5_000, kept=2, engine="Aria")
    fill(disk, _LEFT_FOR_ARIA)
    control = RecordingControl()
    working = Thread(target=lambda: database.maintain("vacuum", control, table="aria"))
    working.start()
    try:
        ground.until(lambda: any(": aria is waiting" in one.phase for one in control.progresses))
    finally:
        database.server.kill()
        working.join()
    return control.progresses[-1].phase


if __name__ == "__main__":
    print(json.dumps({"postgresql": postgresql, "mariadb": mariadb}[sys.argv[1]]()))
