"""The operations that there are, and what the manager is told of them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from overhaul_logfiles.compress import Compress
from overhaul_logfiles.endings import Ending
from overhaul_logfiles.folder import LogFile
from overhaul_logfiles.integrity import IntegrityCheck
from overhaul_logfiles.options import unknown
from overhaul_logfiles.reading import Step
from worker_service.domain.errors import InvalidOperationError
from worker_service.domain.inspection import INSPECT
from worker_service.domain.lock import Lock
from worker_service.domain.operation import OperationSpec, OptionSpec


class Procedure(Protocol):
    """How one operation is done to one file."""

    @property
    def name(self) -> str:
        """The operation's name."""

    @property
    def description(self) -> str:
        """What it does, in a sentence."""

    @property
    def options(self) -> tuple[OptionSpec, ...]:
        """The options it takes."""

    @property
    def passes(self) -> int:
        """How often it reads the bytes of a file, for its progress."""

    def takes(self, file: LogFile) -> bool:
        """Tell whether it is for such files at all."""

    def why_not(self, file: LogFile, options: Mapping[str, int], now: float) -> str:
        """Say why it is not done to a file of its kind now; empty where it is."""

    def statement(self, name: str, options: Mapping[str, int]) -> str:
        """Tell what would be done."""

    def run(self, path: Path, options: Mapping[str, int], step: Step) -> Ending:
        """Do it."""


PROCEDURES: Mapping[str, Procedure] = {one.name: one for one in (Compress(), IntegrityCheck())}


def find(name: str) -> Procedure:
    """Return how an operation is done; raise ``InvalidOperationError``."""
    if procedure := PROCEDURES.get(name):
        return procedure
    raise InvalidOperationError(unknown("operation", name, [*PROCEDURES, INSPECT]))


def specs(folder: Lock) -> tuple[OperationSpec, ...]:
    """Describe the operations with the locks that each holds when it is done to the whole folder."""
    return (
        *(
            OperationSpec(name=one.name, description=one.description, options=one.options, locks=(folder,))
            for one in PROCEDURES.values()
        ),
        OperationSpec(
            name=INSPECT, description="List the files and measure them.", locks=(replace(folder, exclusive=False),)
        ),
    )
