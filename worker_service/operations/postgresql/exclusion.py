"""One operation at a time on one table: the locks in the target."""

from collections.abc import Sequence
from dataclasses import dataclass

from worker_service.domain.errors import TargetBusyError
from worker_service.operations.postgresql.catalog import Reader
from worker_service.operations.postgresql.names import Name
from worker_service.operations.postgresql.session import Session

# Advisory locks of two numbers never meet those of one, which the job store uses. They count within a database.
# Who works on the whole database holds the first alone; who works on a table shares it, and holds the table's.
LOCK = (0x0F_E2_4A_01, 1)
TABLE_CLASS = 0x0F_E2_4A_02
_SIGN, _SPAN = 1 << 31, 1 << 32
# An index counts as its table, and a TOAST table's as the table whose long values it finds. What is done to a
# partitioned table is done to its partitions, so that these share the locks of all that they are part of.
_TABLE_OF = """
SELECT t.oid, (SELECT array_agg(relid::oid) FROM pg_partition_ancestors(t.oid))
FROM (SELECT coalesce(o.oid, i.indrelid, c.oid) AS oid
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
      LEFT JOIN pg_index AS i ON i.indexrelid = c.oid
      LEFT JOIN pg_class AS o
        ON n.nspname = 'pg_toast' AND o.reltoastrelid = coalesce(i.indrelid, c.oid)
      WHERE n.nspname = %s AND c.relname = %s) AS t
"""
_HOLDER = """
SELECT a.pid, a.application_name FROM pg_locks AS l LEFT JOIN pg_stat_activity AS a USING (pid)
WHERE l.locktype = 'advisory' AND l.classid = %s AND l.objid::bigint = %s AND l.objsubid = 2 AND l.granted
  AND (l.mode = 'ExclusiveLock' OR %s) AND l.pid <> pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetLock:
    """A lock in the target, held alone or shared; ``number`` is unsigned, as the server's catalogues have it."""

    space: int
    number: int
    exclusive: bool

    @property
    def call(self) -> str:
        """The call that takes it or tells that it is not free."""
        signed = self.number - _SPAN if self.number >= _SIGN else self.number
        return f"pg_try_advisory_lock{'' if self.exclusive else '_shared'}({self.space}, {signed})"


def locks_for(read: Reader, subject: Name | None, *, alone: bool) -> tuple[TargetLock, ...]:
    """Return what an operation holds in the target; ``alone`` is not for one that only looks at the database."""
    database = TargetLock(space=LOCK[0], number=LOCK[1], exclusive=alone and subject is None)
    if subject is None:
        return (database,)
    rows = read(_TABLE_OF, subject.schema, subject.name)
    if not rows:
        return (database,)
    table, ancestors = rows[0]
    return locks_of(table, [oid for oid in ancestors or () if oid != table])


def locks_of(table: int, ancestors: Sequence[int]) -> tuple[TargetLock, ...]:
    """Return what an operation on a table holds, from the whole database to the table itself."""
    return (
        TargetLock(space=LOCK[0], number=LOCK[1], exclusive=False),
        *(TargetLock(space=TABLE_CLASS, number=oid, exclusive=False) for oid in ancestors),
        TargetLock(space=TABLE_CLASS, number=table, exclusive=True),
    )


def hold(session: Session, locks: Sequence[TargetLock]) -> None:
    """Take the locks in the target, all or none; they are given back when the session is closed.

    Raises:
        TargetBusyError: another operation has one of them.
    """
    taken = session.rows(f"SELECT {', '.join(lock.call for lock in locks)}")[0]
    if all(taken):
        return
    missed = locks[taken.index(False)]
    rows = session.rows(_HOLDER, missed.space, missed.number, missed.exclusive)
    holders = [f"pid {pid} ({name})" for pid, name in rows]
    raise TargetBusyError(
        f"Another operation of Overhaul runs in this database: {', '.join(holders) or 'it has just ended'}."
    )
