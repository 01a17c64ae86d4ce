"""The answer to ``inspect``: which files there are, and what would be done to each."""

from collections.abc import Mapping
from dataclasses import replace

from overhaul_logfiles.folder import Folder, LogFile, lock_on, lock_on_file, measures_of
from overhaul_logfiles.operations import Procedure, find
from overhaul_logfiles.options import read_options
from worker_service.domain.inspection import InspectedObject, Inspection, InspectionResult, Scope

_Wanted = tuple[Procedure, Mapping[str, int]]


def inspect(folder: Folder, identity: str, inspection: Inspection, now: float) -> InspectionResult:
    """Find the files that the wanted operations are for.

    Raises:
        InvalidOperationError: one of them, or an option of it, is unknown here.
        OSError: the folder cannot be read.
    """
    # What is customary: files do not wait for each other, so each is a child job of its own.
    inspection = inspection.decided(Scope.TABLE)
    wanted = [(find(one.name), read_options(find(one.name).options, one.options)) for one in inspection.operations]
    files = folder.files()
    if inspection.scope is Scope.DATABASE:
        return InspectionResult(objects=(_whole(files, wanted, preview=inspection.preview),))
    key = lock_on(identity)
    objects = [
        replace(_object(file, wanted, inspection, now), locks=(lock_on_file(key, file.name),))
        for file in files
        if inspection.selection.takes(file.name)
    ]
    # Shared by all, so that nothing is done to the whole folder meanwhile, and two files get on side by side.
    return InspectionResult(
        objects=tuple(found for found in objects if found.operations),
        locks=(replace(key, exclusive=False),),
        measures=tuple(LogFile(name="", size_bytes=0, modified=now).measures(now)),
    )


def _whole(files: tuple[LogFile, ...], wanted: list[_Wanted], *, preview: bool) -> InspectedObject:
    measures = measures_of(files)
    return InspectedObject(
        operations=tuple(procedure.name for procedure, _ in wanted),
        size_bytes=int(measures["size_bytes"]),
        measures=measures,
        previews=tuple(f"{procedure.statement('*', options)} -- nobody waits" for procedure, options in wanted)
        if preview
        else (),
    )


def _object(file: LogFile, wanted: list[_Wanted], inspection: Inspection, now: float) -> InspectedObject:
    wanted = [one for one in wanted if one[0].takes(file)]
    reasons = [file.left_out or procedure.why_not(file, options, now) for procedure, options in wanted]
    return InspectedObject(
        object=file.name,
        operations=tuple(procedure.name for procedure, _ in wanted),
        size_bytes=file.size_bytes,
        measures=file.measures(now),
        previews=tuple(
            f"{procedure.statement(file.name, options)} -- nobody waits" for procedure, options in wanted
        )
        if inspection.preview
        else (),
        # Of a file only one operation is ever wanted: it is an archive or it is none.
        left_out=reasons[0] if reasons else "",
    )
