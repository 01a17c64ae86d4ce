from worker_service.domain.errors import InvalidOperationError
from worker_service.domain.lock import Lock
from worker_service.domain.operation import Operation, OperationSpec
from worker_service.operations.postgresql.amcheck import Amcheck
from worker_service.operations.postgresql.analyze import Analyze
from worker_service.operations.postgresql.cluster import Cluster
from worker_service.operations.postgresql.names import Name
from worker_service.operations.postgresql.options import Options, read_options, unknown
from worker_service.operations.postgresql.procedure import Procedure
from worker_service.operations.postgresql.reindex import Reindex
from worker_service.operations.postgresql.vacuum import Vacuum

_ALL: tuple[Procedure, ...] = (Vacuum(), Analyze(), Reindex(), Cluster(), Amcheck())
PROCEDURES: dict[str, Procedure] = {procedure.name: procedure for procedure in _ALL}


def find(operation: Operation) -> tuple[Procedure, Options, Name | None]:
    """Find how an operation is carried out, and read its options and its object.

    Raises:
        InvalidOperationError: the operation, an option or a value is unknown here, or the object is no name.
    """
    procedure = PROCEDURES.get(operation.name)
    if procedure is None:
        raise InvalidOperationError(unknown("operation", operation.name, PROCEDURES))
    options = read_options(procedure.options, operation.options)
    procedure.check(options)
    return procedure, options, None if operation.object is None else Name.parse(operation.object)


def specs(lock: Lock) -> tuple[OperationSpec, ...]:
    """Describe every operation; each holds the whole database alone, as the lock in the target does."""
    return tuple(
        OperationSpec(
            name=procedure.name,
            description=procedure.description,
            options=tuple(option.spec for option in procedure.options),
            locks=(lock,),
        )
        for procedure in PROCEDURES.values()
    )
