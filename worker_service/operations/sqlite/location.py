import os
import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import quote_from_bytes, unquote

from worker_service.domain.errors import InvalidTargetError

_FILE_URL = re.compile(r"sqlite(?:\+\w+)?:///", re.IGNORECASE)
_OTHER_URL = re.compile(r"(?:[a-z][a-z0-9+.-]*://|(?:sqlite|file):)", re.IGNORECASE)
_HELP = "write sqlite:///relative.db, sqlite:////absolute/path.db or a plain path"


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """Where a SQLite database lies: the real path of its file, symbolic links resolved."""

    path: str

    @classmethod
    def of(cls, url: str) -> Self:
        """Read a target's URL.

        The path is taken as it is written, so that ``?``, ``#`` and ``%`` need no care. Only when no such
        file exists and the percent-decoded path names one, that one is meant.

        Raises:
            InvalidTargetError: the URL is not one of a SQLite file.
        """
        written = _path_of(url)
        decoded = unquote(written, errors="surrogateescape")
        chosen = decoded if _only_decoded_exists(written, decoded) else written
        if "\0" in chosen:
            raise InvalidTargetError("The path of a SQLite database cannot contain a null character.")
        return cls(path=os.path.realpath(chosen))

    @property
    def directory(self) -> str:
        """The folder that holds the file, its journal and its write-ahead log."""
        return os.path.dirname(self.path)  # noqa: PTH120 - surrogates and bytes stay as they are

    @property
    def log(self) -> str:
        """The path of the write-ahead log."""
        return f"{self.path}-wal"

    @property
    def index(self) -> str:
        """The path of the write-ahead log's index, which SQLite calls its shared memory."""
        return f"{self.path}-shm"

    @property
    def journal(self) -> str:
        """The path of the rollback journal."""
        return f"{self.path}-journal"

    def uri(self, mode: str) -> str:
        """Tell SQLite to open the file as it is (``ro`` or ``rw``), and never to create it."""
        return f"file:{quote_from_bytes(os.fsencode(self.path))}?mode={mode}"

    def stat(self) -> os.stat_result:
        """Read the file's entry without opening it: a close would drop SQLite's own locks."""
        return os.stat(self.path)  # noqa: PTH116 - the same for every kind of path

    def size(self) -> int:
        """The bytes of the database file; 0 when it is gone."""
        return size_of(self.path)


def size_of(path: str) -> int:
    """The bytes of a file; 0 when there is none."""
    try:
        return os.stat(path).st_size  # noqa: PTH116 - the same for every kind of path
    except OSError:
        return 0


def _path_of(url: str) -> str:
    match = _FILE_URL.match(url)
    if match is None and _OTHER_URL.match(url):
        raise InvalidTargetError(f"This is not the URL of a SQLite file: {_HELP}.")
    path = url[match.end() :] if match else url
    if path in {"", ":memory:"}:
        raise InvalidTargetError(f"A SQLite target needs a file: {_HELP}.")
    return path


def _only_decoded_exists(written: str, decoded: str) -> bool:
    if decoded == written or "\0" in decoded or "\0" in written:
        return False
    return os.path.exists(decoded) and not os.path.lexists(written)  # noqa: PTH110 - strings, as given
