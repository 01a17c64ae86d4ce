from worker_service.domain.errors import InvalidOperationError
from worker_service.domain.lock import Lock
from worker_service.domain.operation import Operation, OperationSpec
from worker_service.operations.mariadb.analyze import Analyze
from worker_service.operations.mariadb.check import IntegrityCheck
from worker_service.operations.mariadb.options import Options, read_options, unknown
from worker_service.operations.mariadb.procedure import Procedure
from worker_service.operations.mariadb.rebuild import Reindex, Vacuum

PROCEDURES: dict[str, Procedure] = {
    procedure.name: procedure for procedure in (Vacuum(), Analyze(), Reindex(), IntegrityCheck())
}


def find(operation: Operation) -> tuple[Procedure, Options]:
    """Find how an operation is carried out, and read its options.

    Raises:
        InvalidOperationError: the operation, an option or a value is unknown here.
    """
    procedure = PROCEDURES.get(operation.name)
    if procedure is None:
        raise InvalidOperationError(unknown("operation", operation.name, PROCEDURES))
    return procedure, read_options(procedure.options, operation.options)


def specs(lock: Lock) -> tuple[OperationSpec, ...]:
    """Describe every operation; each holds the database alone."""
    return tuple(
        OperationSpec(
            name=procedure.name,
            description=procedure.description,
            options=tuple(option.spec for option in procedure.options),
            locks=(lock,),
        )
        for procedure in PROCEDURES.values()
    )
