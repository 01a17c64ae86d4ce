"""Reading archives to their end, against the checksums that are in them."""

import gzip
from collections.abc import Mapping
from pathlib import Path

from overhaul_logfiles.compress import UNREADABLE
from overhaul_logfiles.endings import Ending, Kind, failed, from_os_error
from overhaul_logfiles.folder import LogFile
from overhaul_logfiles.reading import Step, held, pieces
from worker_service.domain.operation import OptionSpec
from worker_service.domain.outcome import FailureCategory


class IntegrityCheck:
    """Check that each archive can be read to its end; nothing is changed."""

    name = "integrity_check"
    description = "Read archives to their end, against the checksums in them."
    options: tuple[OptionSpec, ...] = ()
    passes = 1

    def takes(self, file: LogFile) -> bool:
        """The archives."""
        return file.is_archive

    def why_not(self, _file: LogFile, _options: Mapping[str, int], _now: float) -> str:
        """Nothing speaks against reading."""
        return ""

    def statement(self, name: str, _options: Mapping[str, int]) -> str:
        """Tell what would be done, as a person would type it."""
        return f"gzip --test -- {name}"

    def run(self, path: Path, _options: Mapping[str, int], step: Step) -> Ending:
        """Read one archive; raise ``TargetBusyError`` or ``OperationCancelledError``."""
        unpacked, told = 0, 0
        try:
            with held(path) as raw, gzip.GzipFile(fileobj=raw) as packed:
                for piece in pieces(packed, lambda _: step(0)):
                    unpacked += len(piece)
                    step(raw.tell() - told)
                    told = raw.tell()
        except UNREADABLE as error:
            message = f"{path.name} is damaged after {unpacked:,} bytes: {error}. Restore it from a backup."
            return failed(path.name, "DAMAGED", message, FailureCategory.CORRUPT)
        except OSError as error:
            return from_os_error(path.name, error)
        return Ending(name=path.name, kind=Kind.DONE, told=f"{path.name}: whole, {unpacked:,} bytes.")
