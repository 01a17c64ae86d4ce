from worker_service.domain.errors import InvalidOperationError
from worker_service.domain.lock import Lock
from worker_service.domain.operation import Operation, OperationSpec
from worker_service.operations.sqlite.analyze import Analyze
from worker_service.operations.sqlite.checkpoint import WalCheckpoint
from worker_service.operations.sqlite.checks import ForeignKeyCheck, IntegrityCheck, QuickCheck
from worker_service.operations.sqlite.fulltext import FtsOptimize
from worker_service.operations.sqlite.incremental import IncrementalVacuum
from worker_service.operations.sqlite.optimize import Optimize
from worker_service.operations.sqlite.options import Options, read_options, unknown
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


def find(operation: Operation) -> tuple[Procedure, Options]:
    """Find how an operation is carried out, and read its options.

    Raises:
        InvalidOperationError: the operation, an option or a value is unknown here, or it names an object.
    """
    procedure = PROCEDURES.get(operation.name)
    if procedure is None:
        raise InvalidOperationError(unknown("operation", operation.name, PROCEDURES))
    if operation.object is not None:
        raise InvalidOperationError(
            f"SQLite's {operation.name!r} is done to the whole database, not to one object."
        )
    return procedure, read_options(procedure.options, operation.options)


def specs(lock: Lock) -> tuple[OperationSpec, ...]:
    """Describe every operation; each holds the file alone, for SQLite has one writer."""
    return tuple(
        OperationSpec(
            name=procedure.name,
            description=procedure.description,
            options=tuple(option.spec for option in procedure.options),
            locks=(lock,),
        )
        for procedure in PROCEDURES.values()
    )
