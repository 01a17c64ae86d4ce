import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import psycopg

from worker_service.domain.errors import InvalidOperationError, OperationCancelledError
from worker_service.domain.inspection import Scope
from worker_service.domain.outcome import Failure, Result
from worker_service.operations.options import FORMER_ATTEMPT
from worker_service.operations.postgresql.catalog import Reader, Table, maintained, only, read_tables
from worker_service.operations.postgresql.effect import Effect, judged
from worker_service.operations.postgresql.failures import failed_with
from worker_service.operations.postgresql.holders import snapshot_holders
from worker_service.operations.postgresql.inventory import Inventory
from worker_service.operations.postgresql.judging import Ledger, counting, judge, missing, version_of, with_numbers
from worker_service.operations.postgresql.lanes import JOBS
from worker_service.operations.postgresql.leftovers import before_a_rewrite, drops_by_table, planned_drops
from worker_service.operations.postgresql.measures import file_measures, table_measures
from worker_service.operations.postgresql.names import Name
from worker_service.operations.postgresql.options import (
    COST_DELAY,
    COST_LIMIT,
    MAINTENANCE_MEMORY,
    Options,
    lock_timeout,
)
from worker_service.operations.postgresql.progress import REWRITE, VACUUM, Watch
from worker_service.operations.postgresql.session import Session
from worker_service.operations.postgresql.sweep import Step, Swept, sweep
from worker_service.operations.postgresql.vacuum_options import (
    FULL,
    OPTIONS,
    PROCESS_MAIN,
    refuse_together,
    too_new,
    words,
)
from worker_service.operations.postgresql.verbose import Heard
from worker_service.operations.postgresql.wanted import Keeps, Wanted, beginning_with

_VERSION_16 = 160_000
_LIMITS = """
SELECT current_setting('autovacuum_freeze_max_age')::bigint,
       current_setting('autovacuum_multixact_freeze_max_age')::bigint
"""
_UPDATE_LIMITS = "VACUUM (ONLY_DATABASE_STATS)"
_WORDS = ("table", "tables", "vacuumed")


class Vacuum:
    """Remove dead rows, table by table: those nearest to wraparound first, then the largest."""

    name = "vacuum"
    scope = Scope.TABLE
    description = "Remove dead rows and freeze old ones, table by table; full rewrites them."
    options = (*OPTIONS, JOBS, COST_DELAY, COST_LIMIT, MAINTENANCE_MEMORY, lock_timeout(10_000), FORMER_ATTEMPT)

    def check(self, options: Options, /) -> None:
        """Refuse what the server would refuse for every table."""
        refuse_together(options)
        if options.flags[FULL.name] and (options.numbers[JOBS.name] or 1) > 1:
            raise InvalidOperationError(f"The option {JOBS.name!r} does not go with full: leave one out.")

    def plan(self, read: Reader, options: Options, subject: Name | None, /) -> tuple[str, ...]:
        """One statement a table; before rewrites what drops the leftovers of broken-off rebuilds."""
        version, full = version_of(read), bool(options.flags[FULL.name])
        if too_new(options, version):
            return ()
        every = read_tables(read, version, subject=subject)
        tables, _ = chosen(every, subject, options)
        said = words(options, version)
        drops = planned_drops(read, subject) if full else ()
        statements = (*drops, *(_statement(said, table, version) for table in in_order(tables, read(_LIMITS)[0])))
        whole = subject is None and version >= _VERSION_16
        return (*statements, _UPDATE_LIMITS) if whole and statements else statements

    def refusal(self, _read: Reader, version: int, options: Options, /) -> Failure | None:
        """Refuse an option that the server's release does not know."""
        return too_new(options, version)

    def keeps(self, options: Options, /) -> Keeps:
        """Everybody while it rewrites, and otherwise maintenance."""
        return Keeps.EVERYBODY if options.flags[FULL.name] else Keeps.MAINTENANCE

    def wanted(
        self, read: Reader, inventory: Inventory, options: Options, _scope: Scope, /
    ) -> Mapping[int, Wanted]:
        """One statement a table, before a rewrite its drops; of partitioned ones the partitions are tables too."""
        plain = [table for table in inventory.tables if not table.is_parent]
        full = bool(options.flags[FULL.name])
        tables, _ = chosen(plain, None, options)
        said = words(options, inventory.version)
        wanted = {
            table.oid: Wanted(
                statements=(_statement(said, table, inventory.version),),
                why_not=inventory.why_not(table, by_owner=False),
                disk_bytes=_disk_bytes(inventory, table, options),
            )
            for table in tables
        }
        return beginning_with(wanted, drops_by_table(read, inventory.indexes)) if full else wanted

    def run(self, session: Session, subject: Name | None, /) -> Result:
        """Vacuum each; what the catalogues and the server's counters say before and after is what was done."""
        if refused := too_new(session.options, session.version):
            return failed_with(refused)
        every = read_tables(session.rows, session.version, subject=subject)
        full = bool(session.options.flags[FULL.name])
        tables, left_out = chosen(every, subject, session.options)
        if not tables:
            return missing(_noun(session.options), subject, session)
        if left_out:
            session.log("info", f"{left_out} system catalogues are left to autovacuum.")
        before_each = before_a_rewrite(session, subject) if full else lambda _: None
        before = file_measures(session.rows, subject) | table_measures(tables)
        began = time.monotonic()
        heard = Heard()
        ordered = in_order(tables, session.rows(_LIMITS)[0]) if len(tables) > 1 else tables
        swept = _sweep(session, ordered, heard, before_each)
        now = {table.oid: table for table in read_tables(session.rows, session.version, subject=subject)}
        pairs = [(table, now[table.oid]) for table in tables if table.oid in now]
        after = file_measures(session.rows, subject) | table_measures(new for _, new in pairs)
        if full:
            del after["dead_rows"]  # the counters are not told of a rewrite
        counted = counting(session)
        did = [(old, new) for old, new in pairs if _was_done(old, new, swept, session.options, counted=counted)]
        ledger = Ledger(
            names=frozenset(table.name for table in tables),
            done=frozenset(old.name for old, _ in did),
            swept=swept,
        )
        effect = Effect.of(did, heard)
        if swept.ran and not swept.stopped and not swept.end and (subject is None or effect.frozen):
            _update_limits(session)
        # Looking for them takes longer than a small table's VACUUM.
        seconds = time.monotonic() - began
        holders = snapshot_holders(session.rows, seconds, [session.pid]) if effect.remaining else []
        found = judged(effect, holders)
        return judge(ledger, _WORDS, found, before=before, after=with_numbers(after, ledger, _WORDS))


def in_order(tables: Sequence[Table], limits: Sequence[int]) -> list[Table]:
    """Put those first that autovacuum would force, the furthest beyond its limits before, then the largest."""

    def rank(table: Table) -> tuple[float, int, str]:
        urgency = table.urgency(limits)
        return -urgency if urgency >= 1 else 0.0, -table.pages, str(table.name)

    return sorted(tables, key=rank)


def chosen(tables: Iterable[Table], subject: Name | None, options: Options) -> tuple[list[Table], int]:
    """Choose what is vacuumed, and tell how many catalogues are left out; all of them would be locked in full.

    Without the tables themselves it is those that have long values.
    """
    fit = [table for table in tables if options.flags[PROCESS_MAIN.name] or table.toast_file is not None]
    kept, left_out = maintained(fit, subject=subject)
    if not options.flags[FULL.name] or subject is not None:
        return kept, left_out
    own = [table for table in kept if not table.is_system]
    return own, left_out + len(kept) - len(own)


def _sweep(
    session: Session, tables: Sequence[Table], heard: Heard, before_each: Callable[[Step], Failure | None]
) -> Swept:
    said = words(session.options, session.version)
    steps = [Step(name=table.name, statement=_statement(said, table, session.version)) for table in tables]
    view = REWRITE if session.options.flags[FULL.name] else VACUUM
    with Watch(session, verb="vacuum", total=len(steps), unit="tables", view=view) as watch:
        return sweep(session, steps, watch, before_each=lambda _: before_each, hear=heard.hear)


def _update_limits(session: Session) -> None:
    """Bring the database's own age up to date; each statement left this out, for it reads all of pg_class."""
    if session.version < _VERSION_16:
        return
    try:
        session.run(_UPDATE_LIMITS)
    except (psycopg.Error, OperationCancelledError) as error:
        session.log("warning", f"The database's own transaction-id age was not renewed: {error}")


def _statement(said: Sequence[str], table: Table, version: int) -> str:
    return f"VACUUM ({', '.join(said)}) {only(version)}{table.name}"


def _disk_bytes(inventory: Inventory, table: Table, options: Options) -> float:
    if not options.flags[FULL.name]:
        return 0.0
    one = inventory.details[table.oid]
    return inventory.live_bytes(table) if options.flags[PROCESS_MAIN.name] else one.table_bytes - one.heap_bytes


def _noun(options: Options) -> str:
    return "table" if options.flags[PROCESS_MAIN.name] else "table with long values"


def _was_done(old: Table, new: Table, swept: Swept, options: Options, *, counted: Callable[[], bool]) -> bool:
    main = options.flags[PROCESS_MAIN.name]
    if options.flags[FULL.name]:
        return old.file != new.file if main else old.toast_file != new.toast_file
    # Without counters, or where they come late, the server's word has to do.
    more = new.vacuums > old.vacuums if main else new.toast_vacuums > old.toast_vacuums
    return more or (old.name in swept.ran and not counted())
