"""Whether VACUUM has the room it needs, asked before anything is touched."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from worker_service.domain.outcome import Measures
from worker_service.operations.sqlite.location import Location
from worker_service.operations.wording import size

# SQLite reads these when it starts, so a later change of the environment means nothing to it.
_ENVIRONMENT = {name: os.environ.get(name, "") for name in ("SQLITE_TMPDIR", "TMPDIR")}
_FALLBACKS = ("/var/tmp", "/usr/tmp", "/tmp", ".")  # noqa: S108 - SQLite's own list
_IN_PLACE = frozenset({"off", "memory"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """How many bytes have to be free in a folder."""

    folder: str
    number: float


def temporary_folder(environment: Mapping[str, str] | None = None) -> str:
    """Find the folder where SQLite puts its temporary files, by SQLite's own rule."""
    chosen = _ENVIRONMENT if environment is None else environment
    for folder in (chosen.get("SQLITE_TMPDIR", ""), chosen.get("TMPDIR", ""), *_FALLBACKS):
        if folder and os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK):  # noqa: PTH112 - SQLite's test
            return folder
    return "."


def vacuum_needs(measures: Measures, location: Location, journal_mode: str) -> tuple[Need, ...]:
    """Tell what VACUUM needs: the live pages once as a temporary file and once beside the database."""
    live = (measures["pages"] - measures["free_pages"]) * measures["page_bytes"]
    temporary = Need(folder=temporary_folder(), number=live)
    if journal_mode in _IN_PLACE:
        return (temporary,)
    return (temporary, Need(folder=location.directory, number=live))


def shortage(needs: tuple[Need, ...]) -> str | None:
    """Word what is missing, or return ``None``; needs on one file system add up."""
    by_device: dict[int, list[Need]] = {}
    for need in needs:
        by_device.setdefault(device(need.folder), []).append(need)
    for group in by_device.values():
        wanted, free = sum(need.number for need in group), free_bytes(group[0].folder)
        if wanted > free:
            return _sentence([need.folder for need in group], wanted, free)
    return None


def device(folder: str) -> int:
    """The file system that holds a folder."""
    return os.stat(folder).st_dev  # noqa: PTH116 - a string, as SQLite has it


def free_bytes(folder: str) -> int:
    """The bytes that this user may still write in a folder."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def _sentence(folders: list[str], wanted: float, free: float) -> str:
    places = " and ".join(dict.fromkeys(folders))
    # Another temporary folder helps only where the temporary file is a part of the need.
    remedy = "free space, or start the worker with SQLITE_TMPDIR on a larger file system."
    if temporary_folder() not in folders:
        remedy = "free space there."
    missing = f"VACUUM needs about {size(wanted)} free in {places}, and there are {size(free)}."
    return f"{missing} Nothing was touched: {remedy}"
