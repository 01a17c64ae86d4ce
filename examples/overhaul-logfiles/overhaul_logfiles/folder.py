"""Where the log files are, and what is known of each without reading it."""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

from worker_service.domain.errors import InvalidTargetError
from worker_service.domain.lock import Lock
from worker_service.domain.outcome import Measures

SCHEME = "logfiles"
ARCHIVE = ".gz"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFile:
    """A file of the folder; ``left_out`` tells why nothing is done to it, and is empty where something may be.

    ``modified`` is the time of the last write, in seconds since 1970.
    """

    name: str
    size_bytes: int
    modified: float
    left_out: str = ""

    @property
    def is_archive(self) -> bool:
        """Whether it is compressed already."""
        return self.name.endswith(ARCHIVE)

    def measures(self, now: float) -> Measures:
        """What thresholds may ask of it."""
        return {
            "size_bytes": float(self.size_bytes),
            "age_seconds": max(0.0, now - self.modified),
            "compressed": float(self.is_archive),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A folder of log files, by its real path."""

    path: Path

    @classmethod
    def of(cls, url: str) -> Self:
        """Read a target's URL; raise ``InvalidTargetError``."""
        parts = urlsplit(url)
        path = unquote(parts.path)
        if parts.scheme.lower() != SCHEME or parts.netloc or "\0" in path or not path.startswith("/"):
            raise InvalidTargetError(f"This is not a folder of log files: write {SCHEME}:///absolute/folder.")
        return cls(path=Path(os.path.realpath(path)))

    def identity(self) -> str:
        """Tell which folder of which host it is; raise ``OSError`` when it cannot be read."""
        entry = self.path.stat()
        return f"{SCHEME}:{os.uname().nodename}:{entry.st_dev:x}:{entry.st_ino:x}"

    def files(self) -> tuple[LogFile, ...]:
        """The files in the order of their names; raise ``OSError`` when the folder cannot be read.

        Hidden files are none of them, nor are names that cannot be told to a manager.
        """
        with os.scandir(self.path) as entries:
            names = sorted(entry.name for entry in entries)
        found = (self.find(name) for name in names if not name.startswith(".") and name.isprintable())
        return tuple(file for file in found if file is not None)

    def find(self, name: str) -> LogFile | None:
        """Return a file as it is now; ``None`` when there is none of that name."""
        try:
            entry = (self.path / name).lstat()
        except FileNotFoundError:
            return None
        if not (stat.S_ISREG(entry.st_mode) or stat.S_ISLNK(entry.st_mode)):
            return None
        return LogFile(name=name, size_bytes=entry.st_size, modified=entry.st_mtime, left_out=_left_out(entry))


def lock_on(identity: str) -> Lock:
    """The key that whatever is done to a whole folder holds alone."""
    return Lock(key=identity if identity.startswith(f"{SCHEME}:") else f"{SCHEME}:{identity}")


def lock_on_file(folder: Lock, name: str) -> Lock:
    """The key of one file; it is that of its archive too, because the one becomes the other."""
    return Lock(key=f"{folder.key}/{name.removesuffix(ARCHIVE)}")


def measures_of(files: tuple[LogFile, ...]) -> Mapping[str, float]:
    """Measure a whole folder."""
    archives = [file.size_bytes for file in files if file.is_archive]
    plain = [file.size_bytes for file in files if not file.is_archive]
    return {
        "size_bytes": float(sum(archives) + sum(plain)),
        "files": float(len(files)),
        "archives": float(len(archives)),
        "plain_bytes": float(sum(plain)),
        "archive_bytes": float(sum(archives)),
    }


def _left_out(entry: os.stat_result) -> str:
    if stat.S_ISLNK(entry.st_mode):
        return "a symbolic link; make the folder that it points into a target"
    if entry.st_nlink > 1:
        return f"it has {entry.st_nlink} names, and removing one would give nothing back"
    return ""
