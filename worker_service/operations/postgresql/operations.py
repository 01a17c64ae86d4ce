from collections.abc import Mapping
from dataclasses import replace

from worker_service.domain.errors import InvalidOperationError
from worker_service.domain.inspection import INSPECT, Scope, WantedOperation
from worker_service.domain.lock import Lock
from worker_service.domain.operation import Operation, OperationSpec
from worker_service.operations.options import unknown
from worker_service.operations.postgresql.amcheck import Amcheck
from worker_service.operations.postgresql.analyze import Analyze
from worker_service.operations.postgresql.cluster import Cluster
from worker_service.operations.postgresql.inspect import Inspect
from worker_service.operations.postgresql.lanes import JOBS
from worker_service.operations.postgresql.names import Name
from worker_service.operations.postgresql.options import ENGINE, Options, read_options
from worker_service.operations.postgresql.procedure import Maintenance, Procedure
from worker_service.operations.postgresql.refresh import RefreshCollationVersion
from worker_service.operations.postgresql.reindex import Reindex
from worker_service.operations.postgresql.vacuum import Vacuum

_ALL: tuple[Maintenance, ...] = (Vacuum(), Analyze(), Reindex(), Cluster(), Amcheck(), RefreshCollationVersion())
_MAINTENANCE = {procedure.name: procedure for procedure in _ALL}
_OF_DATABASES = frozenset(procedure.name for procedure in _ALL if procedure.scope is Scope.DATABASE)
PROCEDURES: dict[str, Procedure] = {**_MAINTENANCE, INSPECT: Inspect(_MAINTENANCE)}


def find(operation: Operation) -> tuple[Procedure, Options, Name | None]:
    """Find how an operation is carried out, and read its options and its object.

    Raises:
        InvalidOperationError: the operation, an option or a value is unknown here, or the object is no name.
    """
    procedure = PROCEDURES.get(operation.name)
    if procedure is None:
        raise InvalidOperationError(unknown(ENGINE, "operation", operation.name, PROCEDURES))
    options = _options(procedure, operation.options)
    for wanted in operation.inspection.operations if operation.inspection else ():
        _check_wanted(wanted)
    subject = None if operation.object is None else Name.parse(operation.object)
    if subject is not None and operation.name == INSPECT:
        raise InvalidOperationError("A whole database is inspected, and not one of its objects.")
    if subject is not None and operation.name in _OF_DATABASES:
        raise InvalidOperationError(f"{operation.name!r} is done to the whole database: leave out the object.")
    return procedure, options, subject


def _check_wanted(wanted: WantedOperation) -> None:
    procedure = _MAINTENANCE.get(wanted.name)
    if procedure is None:
        raise InvalidOperationError(unknown(ENGINE, "operation", wanted.name, _MAINTENANCE))
    _options(procedure, wanted.options)


def _options(procedure: Procedure, given: Mapping[str, str]) -> Options:
    options = read_options(procedure.options, given)
    if (options.numbers.get(JOBS.name) or 1) > 1 and options.waits_for_former_attempt:
        # The lock in the target is the first session's alone: what others still run would stand without it.
        raise InvalidOperationError(
            f"The option {JOBS.name!r} does not go with former_attempt=wait: leave one out."
        )
    procedure.check(options)
    return options


def specs(lock: Lock) -> tuple[OperationSpec, ...]:
    """Describe every operation and what it holds for the whole database, as with the lock in the target."""
    return tuple(
        OperationSpec(
            name=procedure.name,
            description=procedure.description,
            options=tuple(option.spec for option in procedure.options),
            locks=(replace(lock, exclusive=procedure.name != INSPECT),),
        )
        for procedure in PROCEDURES.values()
    )
