"""An operation on a full file system: ``python -m tests.unfriendly.small_disk FOLDER HOW OPERATION JOURNAL``.

It runs in a mount namespace of its own, where it may mount a small tmpfs, and prints what it found there.
"""

# ruff: noqa: T201 - a program of its own, whose voice is stdout

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import apsw

from tests.integration.operations.databases import content, names_in, query
from tests.integration.operations.doubles import run

SIZE = 24 * 2**20
BLOCK = 4096
LOG_INDEX = 32_768
NAMESPACES = (("unshare", "--mount"), ("unshare", "--map-root-user", "--mount"))


def namespace() -> tuple[str, ...]:
    """Return the command that gives a program mounts of its own.

    Raises:
        AssertionError: this machine lets nobody mount a tmpfs, without which nothing here can be shown.
    """
    for command in NAMESPACES:
        probe = [*command, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/mnt"]
        if subprocess.run(probe, check=False, capture_output=True).returncode == 0:
            return command
    raise AssertionError(
        "A tmpfs cannot be mounted here, neither as root nor by unshare --map-root-user --mount: "
        "run the tests with CAP_SYS_ADMIN, or allow unprivileged user namespaces."
    )


def compact_database(path: Path, journal: str) -> Path:
    """A file without free pages, of pages so small that the journal is larger than the pages it holds."""
    connection = apsw.Connection(str(path))
    connection.pragma("page_size", 512)
    connection.pragma("journal_mode", journal)
    connection.execute("CREATE TABLE item(id INTEGER PRIMARY KEY, body BLOB); CREATE INDEX body ON item(body)")
    connection.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 8000) "
        "INSERT INTO item SELECT i, randomblob(400) FROM n"
    )
    connection.close()
    return path


def fill(folder: Path, leave: int) -> None:
    """Leave just so many bytes free."""
    found = os.statvfs(folder)
    with (folder / "ballast").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, found.f_bavail * found.f_frsize - leave)


def room_for(how: str, path: Path, journal: str) -> int:
    """How many bytes are left: none, too few for a VACUUM, or what its estimate wants and nothing for the rest.

    The rest is what a journal or a log writes beside each page; the log's index is there before the estimate.
    """
    size = -(-path.stat().st_size // BLOCK) * BLOCK
    index = LOG_INDEX if journal == "wal" else 0
    return {"nothing": 0, "too little": size // 2, "all but enough": size + index}[how]


def main() -> None:
    folder, how, operation, journal = Path(sys.argv[1]), *sys.argv[2:]
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)], check=True)
    # A temporary folder is the small disk when the environment says so; the database then lies beside it.
    home = folder.parent if os.environ.get("SQLITE_TMPDIR") == str(folder) else folder
    path = compact_database(home / "app.db", journal)
    before = content(path)
    fill(folder, room_for(how, path, journal))
    result = run(path, operation)
    (folder / "ballast").unlink()
    found = {"rows stayed": content(path) == before, "sound": query(path, "PRAGMA integrity_check") == [("ok",)]}
    print(json.dumps({"result": asdict(result), "names": names_in(home), **found}))


if __name__ == "__main__":
    main()
