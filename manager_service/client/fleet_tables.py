"""Tables of workers and targets for people."""

from collections.abc import Iterable, Sequence

from manager_service.client.tables import Column, FittedTable
from manager_service.client.words import clock, spoken
from overhaul.v1 import fleet_service_pb2

_NAMES_SHOWN = 5


def worker_table(workers: Iterable[fleet_service_pb2.Worker]) -> FittedTable:
    """Return workers, one a row."""
    heads = ("worker", "state", "slots", "host", "pid", "version", "targets", "last heartbeat")
    columns = [Column(head=head, least=8 if head in {"worker", "host"} else None) for head in heads]
    rows = [
        (
            one.worker_name,
            spoken(one, "state"),
            f"{one.slots_used} of {one.slots}",
            one.host,
            str(one.pid),
            one.build,
            _some(one.targets),
            clock(one, "heartbeat_time"),
        )
        for one in workers
    ]
    return FittedTable(columns, rows)


def target_table(targets: Iterable[fleet_service_pb2.Target]) -> FittedTable:
    """Return targets, one a row."""
    heads = ("target", "engine", "version", "state", "pending", "live", "workers", "operations")
    columns = [Column(head=head, least=8 if head in {"target", "workers"} else None) for head in heads]
    rows = [
        (
            one.name,
            one.engine,
            one.engine_version,
            "paused" if one.paused else "served" if one.workers else "not served",
            str(one.pending),
            str(one.live),
            _some(one.workers),
            ", ".join(operation.name for operation in one.operations),
        )
        for one in targets
    ]
    return FittedTable(columns, rows)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN])
    more = len(names) - _NAMES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
