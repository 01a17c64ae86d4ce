"""How the transactions of several managers keep out of each other's way on PostgreSQL."""

from collections.abc import Collection, Sequence

from sqlalchemy import literal_column, select

from manager_service.store.eligible import SEED, SHARED
from manager_service.store.exclusion import Held
from manager_service.store.parents import SELECT_PARENTS
from manager_service.store.postgresql import PostgresConnection
from manager_service.store.statements import Among, Rows, Statement
from manager_service.store.tables import leases, parent_counts, queue, sessions, targets

# Two numbers: of another kind than the hashes of names, which are one.
_LIVE = "0, 1"
_LOCK_LIVE = f"SELECT pg_advisory_xact_lock({_LIVE})"
_LOCK_LIVE_SHARED = f"SELECT pg_advisory_xact_lock_shared({_LIVE})"
_EACH = "FROM json_array_elements_text(CAST($1 AS JSON)) AS name"
_EACH_CHILD = "FROM json_array_elements_text(CAST($1 AS JSON)) AS child(id)"
_HASH = f"hashtextextended(name, {SEED})"
_LOCK = f"SELECT pg_advisory_xact_lock({_HASH}) {_EACH}"
_LOCK_SHARED = f"SELECT pg_advisory_xact_lock_shared({_HASH}) {_EACH}"
_LOCK_SHARED_OF = f"""SELECT name, pg_advisory_xact_lock_shared({_HASH}) FROM (
    SELECT DISTINCT leases.parent_id AS name {_EACH_CHILD} JOIN leases ON child_id = child.id ORDER BY 1
) AS held"""  # noqa: S608 -- of constants
_TRY = f"SELECT name {_EACH} WHERE pg_try_advisory_xact_lock({_HASH})"
_TRY_SHARED = f"SELECT name {_EACH} WHERE pg_try_advisory_xact_lock_shared({_HASH})"

_s, _l, _q, _t, _n = sessions.c, leases.c, queue.c, targets.c, parent_counts.c
HOLD_SESSION = Statement(
    select(literal_column("1")).select_from(sessions).where(Among(_s.id, "ids")).with_for_update()
)
_held = select(leases).where(Among(_l.child_id, "ids")).order_by(_l.child_id)
HOLD_LEASES = Statement(_held.with_for_update())
HOLD_FREE_LEASES = Statement(_held.with_for_update(skip_locked=True))
HOLD_HEADS = Statement(
    select(_q.child_id)
    .select_from(queue.join(targets, _t.name == _q.target))
    .where(Among(_q.child_id, "ids"), SHARED)
    # Not for their keys: who begins to serve a target goes on.
    .with_for_update(of=[queue, targets], key_share=True, skip_locked=True)
)
HOLD_COUNTS = Statement(
    select(_n.parent_id).where(Among(_n.parent_id, "ids")).order_by(_n.parent_id).with_for_update()
)


class PostgresExclusion:
    """Row locks on what is changed, advisory locks on what is only counted, compared or agreed upon.

    Parent jobs are shared by whoever starts or ends attempts of their children, and owned by whoever steers them.
    """

    alone = False

    def __init__(self, connection: PostgresConnection) -> None:
        self._connection = connection

    def join(self) -> None:
        """Begin: wait until nobody stands alone. Whoever waits for this holds nothing yet."""
        self._connection.post_locking(_LOCK_LIVE_SHARED)

    def stand_alone(self) -> None:
        """Begin in place of ``join``: wait until all that began before have ended, and let nobody begin."""
        self._connection.post_locking(_LOCK_LIVE)

    def hold_session(self, session_id: str) -> None:
        """Lock the row."""
        self._connection.hold(HOLD_SESSION, ids=[session_id])

    def hold_name(self, worker_name: str) -> None:
        """Lock the name: the row may not be there yet."""
        self._connection.post_names(_LOCK, [f"worker {worker_name}"])

    def share_parents(self, ids: Collection[str]) -> None:
        """Lock their ids, shared."""
        self._connection.post_names(_LOCK_SHARED, sorted(ids))

    def share_parents_of(self, children: Sequence[str]) -> Rows:
        """Lock the ids that stand in the leases, shared."""
        return self._connection.ask_names(_LOCK_SHARED_OF, children)

    def try_share_parents(self, ids: Collection[str]) -> Rows:
        """Lock those ids, shared, that nobody locked for himself."""
        return self._connection.ask_names(_TRY_SHARED, sorted(ids))

    def own_parent(self, parent_id: str) -> None:
        """Lock the id."""
        self._connection.post_names(_LOCK, [parent_id])

    def try_own_parent(self, parent_id: str) -> bool:
        """Lock the id, if nobody has."""
        return bool(self._connection.ask_names(_TRY, [parent_id])())

    def leases(self, children: Sequence[str], *, wait: bool) -> Rows:
        """Lock the rows, in the order of the children."""
        return self._connection.ask(HOLD_LEASES if wait else HOLD_FREE_LEASES, ids=sorted(children))

    def heads(self, ids: Collection[str], keys: Collection[str]) -> Held:
        """Lock the rows of heads and targets, and the names of keys; pass over those that are locked."""
        free = self._connection.ask_names(_TRY, sorted(keys))
        held = self._connection.ask(HOLD_HEADS, ids=sorted(ids))
        return lambda: ({row.child_id for row in held()}, set(free()))

    def counts(self, ids: Sequence[str]) -> Rows:
        """Lock the rows, then read them with those of the parent jobs, which nobody changes without that lock."""
        self._connection.hold(HOLD_COUNTS, ids=list(ids))
        return self._connection.ask(SELECT_PARENTS, ids=list(ids))
