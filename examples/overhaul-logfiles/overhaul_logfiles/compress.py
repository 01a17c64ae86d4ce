"""Making an archive of a log file, and reading it back before the file is removed."""

import gzip
import os
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

from overhaul_logfiles.endings import Ending, Kind, failed, from_os_error
from overhaul_logfiles.folder import ARCHIVE, LogFile
from overhaul_logfiles.options import LEVEL, MIN_AGE
from overhaul_logfiles.reading import Step, digest, held, pieces
from worker_service.domain.outcome import FailureCategory

UNREADABLE = (gzip.BadGzipFile, EOFError, zlib.error)


class Compress:
    """Make an archive of each file that is not written to any more."""

    name = "compress"
    description = "Make a .gz archive of a file, read it back, and remove the file."
    options = (LEVEL, MIN_AGE)
    passes = 3
    """How often the bytes of a file pass by: they are compressed, then both files are read and compared."""

    def takes(self, file: LogFile) -> bool:
        """Everything that is no archive."""
        return not file.is_archive

    def why_not(self, file: LogFile, options: Mapping[str, int], now: float) -> str:
        """Say why a file is left as it is; empty where it is not."""
        age = now - file.modified
        if age < options[MIN_AGE.name]:
            return f"written to {age:.0f} s ago, and {MIN_AGE.name} is {options[MIN_AGE.name]}"
        return "" if file.size_bytes else "it is empty"

    def statement(self, name: str, options: Mapping[str, int]) -> str:
        """Tell what would be done, as a person would type it."""
        return f"gzip -{options[LEVEL.name]} -- {name}"

    def run(self, path: Path, options: Mapping[str, int], step: Step) -> Ending:
        """Make the archive of one file.

        Raises:
            TargetBusyError: another worker holds the file.
            OperationCancelledError: it was stopped; the file is as it was.
        """
        try:
            with held(path) as file:
                return _archived(path, file, options[LEVEL.name], step)
        except OSError as error:
            return from_os_error(path.name, error)


def _archived(path: Path, file: IO[bytes], level: int, step: Step) -> Ending:
    archive = path.with_name(path.name + ARCHIVE)
    if archive.exists():
        return _finished(path, file, archive, step)
    part = path.with_name(f".{archive.name}.part")
    try:
        return _made(path, file, part, level, step)
    finally:
        # Also what a worker that was killed left: the lock on the file says that nobody else writes it.
        part.unlink(missing_ok=True)


def _made(path: Path, file: IO[bytes], part: Path, level: int, step: Step) -> Ending:
    before = os.fstat(file.fileno())
    _write(file, part, level, step)
    after = part.stat()
    if after.st_size >= before.st_size:
        return Ending(name=path.name, kind=Kind.NO_EFFECT, told=f"{path.name}: an archive would be no smaller.")
    if not _holds(part, file, before.st_size, step):
        return failed(
            path.name,
            "ARCHIVE_DIFFERS",
            f"{path.name}: the archive reads otherwise than the file, which is kept.",
            FailureCategory.CORRUPT,
        )
    if _stamp(os.fstat(file.fileno())) != _stamp(before):
        return failed(
            path.name,
            "WRITTEN_TO",
            f"{path.name}: it was written to meanwhile; raise {MIN_AGE.name}.",
            FailureCategory.LOCKED,
            retryable=True,
        )
    os.utime(part, ns=(before.st_atime_ns, before.st_mtime_ns))
    # A link, because a rename would write over an archive that somebody put there meanwhile.
    os.link(part, path.with_name(path.name + ARCHIVE))
    path.unlink()
    saved = before.st_size - after.st_size
    return Ending(
        name=path.name, kind=Kind.DONE, told=f"{path.name}: gave back {saved:,} of {before.st_size:,} bytes."
    )


def _finished(path: Path, file: IO[bytes], archive: Path, step: Step) -> Ending:
    """End what a worker began that was lost between the archive and the removal; the target's state tells."""
    if not _holds(archive, file, path.stat().st_size, step):
        return failed(
            path.name,
            "ARCHIVE_EXISTS",
            f"{archive.name} is there with other content: move it, or {path.name}, away.",
            FailureCategory.INVALID,
        )
    saved = path.stat().st_size - archive.stat().st_size
    path.unlink()
    return Ending(
        name=path.name, kind=Kind.DONE, told=f"{path.name}: was archived before; gave back {saved:,} bytes."
    )


def _write(file: IO[bytes], part: Path, level: int, step: Step) -> None:
    entry = os.fstat(file.fileno())
    part.unlink(missing_ok=True)
    descriptor = os.open(
        part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, entry.st_mode & 0o777
    )
    with os.fdopen(descriptor, "wb") as raw:
        with gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=level, mtime=0) as packed:
            for piece in pieces(file, step, entry.st_size):
                packed.write(piece)
        raw.flush()
        os.fsync(raw.fileno())


def _holds(archive: Path, file: IO[bytes], size: int, step: Step) -> bool:
    """Tell whether an archive holds the first bytes of a file and no more: both are read anew."""
    with suppress(*UNREADABLE), gzip.open(archive) as packed:
        found = digest(packed, step)
        file.seek(0)
        return found == digest(file, step, size)
    return False


def _stamp(entry: os.stat_result) -> tuple[int, int]:
    return entry.st_size, entry.st_mtime_ns
