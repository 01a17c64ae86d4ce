from collections.abc import Mapping

from worker_service.domain.errors import InvalidOperationError
from worker_service.domain.inspection import INSPECT, Inspection, Scope
from worker_service.domain.lock import Lock
from worker_service.domain.operation import Operation, OperationSpec
from worker_service.operations.mariadb.analyze import Analyze
from worker_service.operations.mariadb.check import IntegrityCheck
from worker_service.operations.mariadb.inspecting import DESCRIPTION, Wanted
from worker_service.operations.mariadb.options import ENGINE, LOCK_TIMEOUT, Options, read_options
from worker_service.operations.mariadb.procedure import Procedure
from worker_service.operations.mariadb.rebuild import Reindex, Vacuum
from worker_service.operations.options import unknown

PROCEDURES: dict[str, Procedure] = {
    procedure.name: procedure for procedure in (Vacuum(), Analyze(), Reindex(), IntegrityCheck())
}

_INSPECT_OPTIONS = (LOCK_TIMEOUT,)


def find(operation: Operation) -> tuple[Procedure, Options]:
    """Find how an operation is carried out, and read its options.

    Raises:
        InvalidOperationError: the operation, an option or a value is unknown here.
    """
    procedure = PROCEDURES.get(operation.name)
    if procedure is None:
        raise InvalidOperationError(unknown(ENGINE, "operation", operation.name, [*PROCEDURES, INSPECT]))
    return procedure, read_options(procedure.options, operation.options)


def find_wanted(operation: Operation) -> tuple[Inspection, tuple[Wanted, ...], Options]:
    """Find what an ``inspect`` looks for, how each of its operations is carried out, and its own options.

    Raises:
        InvalidOperationError: it names an object, or an operation, an option or a value is unknown here.
    """
    if operation.object is not None:
        raise InvalidOperationError("MariaDB's 'inspect' looks at the whole database: leave out its object.")
    inspection = (operation.inspection or Inspection()).decided(Scope.TABLE)
    wanted = tuple(_wanted(operation, each.name, each.options) for each in inspection.operations)
    return inspection, wanted, read_options(_INSPECT_OPTIONS, operation.options)


def _wanted(operation: Operation, name: str, options: Mapping[str, str]) -> Wanted:
    procedure, values = find(Operation(name=name, target=operation.target, options=options))
    return Wanted(procedure=procedure, options=values)


def specs(key: str) -> tuple[OperationSpec, ...]:
    """Describe every operation; each holds the database alone, but for the one that looks."""
    own = (option.spec for option in _INSPECT_OPTIONS)
    return (
        *_specs(Lock(key=key)),
        OperationSpec(
            name=INSPECT, description=DESCRIPTION, options=tuple(own), locks=(Lock(key=key, exclusive=False),)
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
