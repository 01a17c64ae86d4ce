"""What keeps the server from removing dead rows, and what a concurrent rebuild would wait for."""

from dataclasses import dataclass

from worker_service.operations.postgresql.catalog import Reader

# What a VACUUM of another table sees is ignored by this one, and by a concurrent rebuild.
# Sessions of other databases count for shared catalogues only; slots and prepared transactions, for all. A slot
# for logical decoding keeps the catalogues' rows, by which it reads the log; that of a standby keeps all rows.
_HOLDERS = """
SELECT 'session', pid::text, coalesce(usename, ''), coalesce(application_name, ''), coalesce(state, ''),
       greatest(age(backend_xmin), coalesce(age(backend_xid), 0)),
       extract(epoch FROM clock_timestamp() - coalesce(xact_start, query_start)), false
FROM pg_stat_activity
WHERE pid <> ALL (%s) AND backend_xmin IS NOT NULL AND backend_type = 'client backend'
  AND datname = current_database()
  AND coalesce(xact_start, query_start) < clock_timestamp() - make_interval(secs => %s)
  AND pid NOT IN (SELECT v.pid FROM pg_stat_progress_vacuum AS v)
UNION ALL
SELECT 'standby', pid::text, coalesce(usename, ''), coalesce(application_name, ''), coalesce(state, ''),
       age(backend_xmin), NULL, false
FROM pg_stat_replication WHERE backend_xmin IS NOT NULL
UNION ALL
SELECT 'prepared transaction', gid, owner, '', '', age(transaction),
       extract(epoch FROM clock_timestamp() - prepared), false
FROM pg_prepared_xacts WHERE database = current_database()
UNION ALL
SELECT 'replication slot', slot_name, '', '', CASE WHEN active THEN 'active' ELSE 'inactive' END,
       greatest(coalesce(age(xmin), 0), coalesce(age(catalog_xmin), 0)), NULL, xmin IS NULL
FROM pg_replication_slots WHERE xmin IS NOT NULL OR catalog_xmin IS NOT NULL
ORDER BY 6 DESC
"""
# Nor is a build beside writers waited for whose index has neither expressions nor a condition: it reads no other
# table. Of several indexes of a table one is built after the other, and a later one may have them; those that are
# not finished are invalid. Of a role whose builds may not be seen no snapshot is seen either.
_SAFE_BUILDS = """
SELECT p.pid FROM pg_stat_progress_create_index AS p
WHERE p.command IN ('CREATE INDEX CONCURRENTLY', 'REINDEX CONCURRENTLY')
  AND EXISTS (SELECT FROM pg_index AS i WHERE i.indexrelid = p.index_relid)
  AND NOT EXISTS (
    SELECT FROM pg_index AS i WHERE i.indrelid = p.relid AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL)
      AND (i.indexrelid = p.index_relid OR NOT i.indisvalid))
"""
_WAITED_FOR = f"""
SELECT 'session', a.pid::text, coalesce(a.usename, ''), coalesce(a.application_name, ''), coalesce(a.state, ''),
       0, extract(epoch FROM clock_timestamp() - a.xact_start), false
FROM pg_stat_activity AS a
WHERE a.pid <> pg_backend_pid() AND a.datname = current_database() AND a.backend_type = 'client backend'
  AND a.xact_start < clock_timestamp() - make_interval(secs => %s)
  AND (a.backend_xmin IS NOT NULL AND a.pid NOT IN (SELECT v.pid FROM pg_stat_progress_vacuum AS v)
         AND a.pid NOT IN ({_SAFE_BUILDS})
       OR EXISTS (SELECT FROM pg_locks AS l WHERE l.pid = a.pid AND l.relation = %s AND l.granted))
ORDER BY a.xact_start
"""  # noqa: S608 - a constant
# The view joins two catalogues to this, and its columns are the same in every release.
_OLDEST = """
SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::float8 FROM pg_stat_get_activity(NULL)
WHERE pid <> pg_backend_pid()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A session, a prepared transaction or a replication slot that old rows are kept for.

    ``seconds`` is how long it has lasted, ``None`` where that is not told. ``catalogues_only`` tells that it keeps
    no rows of other tables.
    """

    kind: str
    key: str
    user: str
    program: str
    state: str
    seconds: float | None
    catalogues_only: bool

    def __str__(self) -> str:
        who = [f"user {self.user}"] if self.user else []
        who += [f"application {self.program}"] if self.program else []
        who += [self.state] if self.state else []
        who += [f"for {self.seconds:.0f} s"] if self.seconds is not None else []
        key = f"with pid {self.key}" if self.kind in {"session", "standby"} else repr(self.key)
        return f"{self.kind} {key}" + (f" ({', '.join(who)})" if who else "")


def snapshot_holders(read: Reader, seconds: float, own: list[int]) -> list[Holder]:
    """Return who keeps dead rows from being removed, the worst first.

    Args:
        read: reads from the server.
        seconds: sessions whose transaction is younger do not count.
        own: backend process ids that are this operation's own.
    """
    return [_holder(row) for row in read(_HOLDERS, own, seconds)]


def oldest_transaction(read: Reader) -> float:
    """Return for how many seconds the oldest transaction of another session has lasted, 0 when there is none."""
    return float(read(_OLDEST)[0][0])


def waited_for(read: Reader, table: int, seconds: float) -> list[Holder]:
    """Return the transactions older than ``seconds`` that a concurrent rebuild of the table's index waits for."""
    return [_holder(row) for row in read(_WAITED_FOR, seconds, table)]


def _holder(row: tuple[object, ...]) -> Holder:
    kind, key, user, program, state, _, seconds, catalogues_only = row
    return Holder(
        kind=str(kind),
        key=str(key),
        user=str(user),
        program=str(program),
        state=str(state),
        seconds=None if seconds is None else float(str(seconds)),
        catalogues_only=bool(catalogues_only),
    )
