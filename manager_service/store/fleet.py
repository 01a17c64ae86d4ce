"""Workers and targets, as operators see and steer them."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from sqlalchemy import bindparam, case, delete, func, literal, literal_column, select, update

from manager_service.domain.errors import TargetInUseError, TargetUnknownError, WorkerNotFoundError
from manager_service.domain.fleet import Offers, SessionState, Target, Timing, Worker, WorkerDirective
from manager_service.domain.model import Instant, Span
from manager_service.store.acquire import Polls
from manager_service.store.offered import parsed_operations
from manager_service.store.rows import mapping_of
from manager_service.store.statements import Among, Connection, Statement
from manager_service.store.tables import (
    child_jobs,
    durations,
    is_open,
    is_ready,
    leases,
    queue,
    session_targets,
    sessions,
    target_labels,
    targets,
)
from manager_service.store.unit_of_work import UnitOfWork

OPEN = [SessionState.READY.value, SessionState.DRAINING.value]
_NAMES_COMPARED = 2_000
_LENGTHS_APART = 4

_s, _st, _t, _l, _q = sessions.c, session_targets.c, targets.c, leases.c, queue.c
_newer = sessions.alias("newer")
SLOTS_USED = (
    select(func.count()).select_from(leases).where(_l.session_id == _s.id).correlate(sessions).scalar_subquery()
)
_is_newest = ~(
    select(literal_column("1"))
    .select_from(_newer)
    .where(
        _newer.c.worker_name == _s.worker_name,
        (_newer.c.create_time > _s.create_time)
        | ((_newer.c.create_time == _s.create_time) & (_newer.c.id > _s.id)),
    )
    .correlate(sessions)
    .exists()
)
_SESSIONS = select(sessions, SLOTS_USED.label("slots_used")).where(_is_newest).order_by(_s.worker_name)
_WORKERS = Statement(_SESSIONS.where(_s.worker_name > bindparam("after")).limit(bindparam("limit")))
_LIVE_WORKERS = Statement(
    _SESSIONS.where(
        _s.worker_name > bindparam("after"),
        Among(_s.state, "states"),
        _s.heartbeat_time >= bindparam("since"),
    ).limit(bindparam("limit"))
)
_WORKER = Statement(_SESSIONS.where(_s.worker_name == bindparam("worker_name")))
_TARGETS_OF = Statement(
    select(_st.session_id, _st.target).where(Among(_st.session_id, "ids")).order_by(_st.target)
)
# One that closed or was superseded meanwhile stays so.
_DIRECT = Statement(
    update(sessions)
    .where(_s.id == bindparam("of"), Among(_s.state, "open"))
    .values(directive=bindparam("directive"), state=bindparam("state"))
)
_KNOWN = Statement(select(targets).where(Among(_t.name, "names")))
# Nobody begins to serve it meanwhile.
_HELD = Statement(select(targets).where(_t.name == bindparam("target")).with_for_update())
_OFFERS = Statement(select(_t.name, _t.operations).where(Among(_t.name, "names")))
_SERVED_BY = Statement(
    select(_st.target, _s.worker_name)
    .select_from(session_targets.join(sessions, _s.id == _st.session_id))
    .where(Among(_st.target, "names"), Among(_s.state, "states"), _s.heartbeat_time >= bindparam("since"))
    .order_by(_s.worker_name)
)
_OPEN_CHILDREN = Statement(
    select(child_jobs.c.target, func.count().label("number"))
    .with_hint(child_jobs, "INDEXED BY ix_child_jobs_open_target")
    .where(is_open, Among(child_jobs.c.target, "names"))
    .group_by(child_jobs.c.target)
)
_LIVE_CHILDREN = Statement(
    select(_l.target, func.count().label("number")).where(Among(_l.target, "names")).group_by(_l.target)
)
_NAMES_NEAR = Statement(
    select(_t.name)
    .where(func.abs(func.length(_t.name) - bindparam("length")) <= _LENGTHS_APART)
    .limit(_NAMES_COMPARED)
)
_PAUSE = Statement(update(targets).where(_t.name == bindparam("of")).values(paused=bindparam("paused")))
_HEADS = Statement(
    select(func.count().label("number"))
    .select_from(queue)
    .with_hint(queue, "INDEXED BY ix_queue_ready_target")
    .where(_q.target == bindparam("target"), is_ready)
)
_FORGET = tuple(
    Statement(delete(table).where(column == bindparam("of")))
    for table, column in (
        (target_labels, target_labels.c.target),
        (session_targets, _st.target),
        (durations, durations.c.target),
        (targets, _t.name),
    )
)
_GONE = Statement(
    select(_s.id)
    .where(
        # An open session is gone when it counts as lost, which is a lease duration after its last beat.
        _s.heartbeat_time < case((Among(_s.state, "states"), bindparam("lost_before")), else_=bindparam("before")),
        ~select(literal_column("1")).select_from(leases).where(_l.session_id == _s.id).exists(),
    )
    .with_for_update(skip_locked=True)
)
_FORGET_SESSION = tuple(
    Statement(delete(table).where(column == bindparam("of")))
    for table, column in ((session_targets, _st.session_id), (sessions, _s.id))
)


def read_workers(
    connection: Connection, timing: Timing, *, include_gone: bool, after: str, limit: int, now: Instant
) -> tuple[Worker, ...]:
    """List workers by name, of each name the newest session."""
    if include_gone:
        rows = connection.rows(_WORKERS, after=after, limit=limit)
    else:
        since = now - timing.lease_duration
        rows = connection.rows(_LIVE_WORKERS, after=after, limit=limit, states=OPEN, since=since)
    return workers_of(connection, rows, timing, now)


def read_targets(
    connection: Connection,
    timing: Timing,
    *,
    labels: Mapping[str, str],
    after: str,
    limit: int,
    now: Instant,
) -> tuple[Target, ...]:
    """List targets by name."""
    statement = select(targets).where(_t.name > after).order_by(_t.name).limit(limit)
    for key, value in sorted(labels.items()):
        label = target_labels.alias()
        statement = statement.where(
            select(literal(1))
            .select_from(label)
            .where(label.c.target == _t.name, label.c.key == key, label.c.value == value)
            .correlate(targets)
            .exists()
        )
    rows = connection.rows(Statement(statement))
    return _targets(connection, rows, timing, now)


def read_offers(connection: Connection, names: Sequence[str], operations: frozenset[str] | None) -> Offers:
    """Return what the known ones of these targets offer, of these operations alone if they are given."""
    rows = connection.rows(_OFFERS, names=list(names))
    return {row.name: parsed_operations(row.operations, operations) for row in rows}


def read_target_names_near(connection: Connection, name: str, *, limit: int) -> tuple[str, ...]:
    """Return known target names that look like this one."""
    names = [row.name for row in connection.rows(_NAMES_NEAR, length=len(name))]
    return tuple(get_close_matches(name, names, n=limit))


def drain_worker(tx: UnitOfWork, worker_name: str, *, terminate: bool) -> Worker:
    """Set the directive of a worker's newest session; what it was told before is not softened."""
    row = tx.row(_WORKER, worker_name=worker_name)
    if row is None:
        raise WorkerNotFoundError(worker_name)
    if row.state in OPEN:
        told = terminate or row.directive == WorkerDirective.TERMINATE
        directive = WorkerDirective.TERMINATE if told else WorkerDirective.DRAIN
        drained = SessionState.DRAINING.value
        tx.run(_DIRECT, of=row.id, open=OPEN, directive=directive.value, state=drained)
        tx.tell_session(row.id)
    [worker] = workers_of(tx, tx.rows(_WORKER, worker_name=worker_name), tx.timing, tx.now)
    return worker


def pause_target(tx: UnitOfWork, target: str, *, paused: bool) -> Target:
    """Hold a target, or let it go on."""
    known = tx.row(_KNOWN, names=[target])
    if known is None:
        raise TargetUnknownError(target)
    if bool(known.paused) != paused:
        tx.run(_PAUSE, of=target, paused=paused)
        heads = 0 if paused else tx.rows(_HEADS, target=target)[0].number
        if heads:
            tx.ready_many(target, heads)
    [read] = _targets(tx, tx.rows(_KNOWN, names=[target]), tx.timing, tx.now)
    return read


def forget_target(tx: UnitOfWork, target: str) -> None:
    """Forget a target that nobody serves and nothing needs."""
    rows = tx.rows(_HELD, target=target)
    if not rows:
        raise TargetUnknownError(target)
    [known] = _targets(tx, rows, tx.timing, tx.now)
    if known.workers:
        raise TargetInUseError(target, f"worker {known.workers[0]} serves it")
    waiting = known.pending + known.live
    if waiting:
        raise TargetInUseError(target, f"{waiting} of its children have not ended")
    for statement in _FORGET:
        tx.run(statement, of=target)


def prune_sessions(tx: UnitOfWork, polls: Polls, *, age: Span) -> int:
    """Delete sessions that have been gone for long and hold nothing."""
    before = tx.now - age
    gone = tx.rows(_GONE, states=OPEN, before=before, lost_before=before - tx.timing.lease_duration)
    for row in gone:
        for statement in _FORGET_SESSION:
            tx.run(statement, of=row.id)
        polls.forget(row.id)
    return len(gone)


def workers_of(
    connection: Connection | UnitOfWork, rows: Sequence[Any], timing: Timing, now: Instant
) -> tuple[Worker, ...]:
    """Return the workers in rows of ``sessions`` with their ``SLOTS_USED``."""
    served: dict[str, list[str]] = {}
    for row in connection.rows(_TARGETS_OF, ids=[row.id for row in rows]):
        served.setdefault(row.session_id, []).append(row.target)
    return tuple(_worker(row, served.get(row.id, []), timing, now) for row in rows)


def _worker(row: Any, served: Sequence[str], timing: Timing, now: Instant) -> Worker:
    return Worker(
        worker_name=row.worker_name,
        instance_id=row.instance_id,
        session_id=row.id,
        state=session_state(row, timing, now),
        build=row.build,
        host=row.host,
        pid=row.pid,
        labels=mapping_of(row.labels),
        slots=row.slots,
        slots_used=row.slots_used,
        targets=tuple(served),
        create_time=row.create_time,
        heartbeat_time=row.heartbeat_time,
    )


def session_state(row: Any, timing: Timing, now: Instant) -> SessionState:
    """Return how a session stands: what is stored, unless it has been silent for too long."""
    stored = SessionState(row.state)
    if stored.value not in OPEN:
        return stored
    silent = now - row.heartbeat_time
    if silent > timing.lease_duration:
        return SessionState.LOST
    return SessionState.STALE if silent > 2 * timing.heartbeat_interval else stored


def _targets(
    connection: Connection | UnitOfWork, rows: Sequence[Any], timing: Timing, now: Instant
) -> tuple[Target, ...]:
    names = [row.name for row in rows]
    workers: dict[str, dict[str, None]] = {}
    since = now - timing.lease_duration
    for row in connection.rows(_SERVED_BY, names=names, states=OPEN, since=since):
        workers.setdefault(row.target, {})[row.worker_name] = None
    unended = _numbers(connection.rows(_OPEN_CHILDREN, names=names))
    live = _numbers(connection.rows(_LIVE_CHILDREN, names=names))
    return tuple(
        Target(
            name=row.name,
            engine=row.engine,
            engine_version=row.engine_version,
            identity=row.identity,
            labels=mapping_of(row.labels),
            max_parallel=row.max_parallel,
            operations=tuple(parsed_operations(row.operations).values()),
            paused=bool(row.paused),
            workers=tuple(workers.get(row.name, ())),
            # The row of a live child still says pending.
            pending=unended.get(row.name, 0) - live.get(row.name, 0),
            live=live.get(row.name, 0),
        )
        for row in rows
    )


def _numbers(rows: Sequence[Any]) -> dict[str, int]:
    return {row.target: row.number for row in rows}
