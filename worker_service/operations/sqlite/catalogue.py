from collections.abc import Mapping
from dataclasses import replace

from worker_service.domain.errors import InvalidOperationError
from worker_service.domain.inspection import INSPECT, Inspection, Scope
from worker_service.domain.lock import Lock
from worker_service.domain.operation import Operation, OperationSpec
from worker_service.operations.options import unknown
from worker_service.operations.sqlite.analyze import Analyze
from worker_service.operations.sqlite.checkpoint import WalCheckpoint
from worker_service.operations.sqlite.checks import ForeignKeyCheck, IntegrityCheck, QuickCheck
from worker_service.operations.sqlite.fulltext import FtsOptimize
from worker_service.operations.sqlite.incremental import IncrementalVacuum
from worker_service.operations.sqlite.inspecting import DESCRIPTION, Wanted
from worker_service.operations.sqlite.optimize import Optimize
from worker_service.operations.sqlite.options import BUSY_TIMEOUT, ENGINE, Options, read_options
from worker_service.operations.sqlite.procedure import Procedure
from worker_service.operations.sqlite.reindex import Reindex
from worker_service.operations.sqlite.vacuum import Vacuum

_ALL: tuple[Procedure, ...] = (
    Vacuum(),
    Analyze(),
    Reindex(),
    Optimize(),
    IncrementalVacuum(),
    WalCheckpoint(),
    IntegrityCheck(),
    QuickCheck(),
    ForeignKeyCheck(),
    FtsOptimize(),
)
PROCEDURES: dict[str, Procedure] = {procedure.name: procedure for procedure in _ALL}
_NARROWEST = {"analyze": Scope.TABLE, "reindex": Scope.INDEX}
"""What an operation can be done to at the narrowest, where that is not the whole file."""
_INSPECT_OPTIONS = (BUSY_TIMEOUT,)


def find(operation: Operation) -> tuple[Procedure, Options]:
    """Find how an operation is carried out, and read its options.

    Raises:
        InvalidOperationError: the operation, an option or a value is unknown here, or it names an object.
    """
    procedure = PROCEDURES.get(operation.name)
    if procedure is None:
        raise InvalidOperationError(unknown(ENGINE, "operation", operation.name, [*PROCEDURES, INSPECT]))
    if operation.object is not None and operation.name not in _NARROWEST:
        raise InvalidOperationError(
            f"SQLite's {operation.name!r} is done to the whole database, not to one object: leave out the object."
        )
    return procedure, replace(read_options(procedure.options, operation.options), object=operation.object)


def find_wanted(operation: Operation) -> tuple[Inspection, tuple[Wanted, ...], Options]:
    """Find what an ``inspect`` looks for, how each of its operations is carried out, and its own options.

    Raises:
        InvalidOperationError: it names an object, or an operation, an option or a value is unknown here.
    """
    if operation.object is not None:
        raise InvalidOperationError("SQLite's 'inspect' looks at the whole database: leave out its object.")
    inspection = (operation.inspection or Inspection()).decided(Scope.DATABASE)
    wanted = tuple(_wanted(operation, each.name, each.options) for each in inspection.operations)
    return inspection, wanted, read_options(_INSPECT_OPTIONS, operation.options)


def _wanted(operation: Operation, name: str, options: Mapping[str, str]) -> Wanted:
    procedure, values = find(Operation(name=name, target=operation.target, options=options))
    return Wanted(procedure=procedure, options=values, narrowest=_NARROWEST.get(name, Scope.DATABASE))


def specs(lock: Lock) -> tuple[OperationSpec, ...]:
    """Describe every operation; all but the one that looks hold the file alone, for SQLite has one writer."""
    return (
        *_specs(lock),
        OperationSpec(
            name=INSPECT,
            description=DESCRIPTION,
            options=tuple(option.spec for option in _INSPECT_OPTIONS),
            locks=(replace(lock, exclusive=False),),
        ),
    )


def _specs(lock: Lock) -> tuple[OperationSpec, ...]:
    return tuple(
        OperationSpec(
            name=procedure.name,
            description=procedure.description,
            options=tuple(option.spec for option in procedure.options),
            locks=(lock,),
        )
        for procedure in PROCEDURES.values()
    )
