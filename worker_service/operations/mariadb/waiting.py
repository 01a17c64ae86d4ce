"""Who waits for metadata locks of an operation, as the server's own books or its list of processes tell."""

from worker_service.domain.lock_waits import BLOCKING, LockWaiter, LockWaits, Waiting
from worker_service.operations.mariadb.connection import Connection, Row, ServerError

INTERVAL = 1.0
"""Seconds between two looks at a statement; at one that is over sooner nobody looks."""

_METADATA = "Waiting for table metadata lock"
_KEEPS_BOOKS = """
SELECT COUNT(*) FROM performance_schema.setup_instruments
WHERE NAME = 'wait/lock/metadata/sql/mdl' AND ENABLED = 'YES'
"""
# Who wants a lock on a table that the operation has one on, or wants one on and stands before.
_IN_BOOKS = """
SELECT t.PROCESSLIST_ID, t.PROCESSLIST_USER, a.ATTR_VALUE, CONCAT(m.OBJECT_SCHEMA, '.', m.OBJECT_NAME), m.LOCK_TYPE
FROM performance_schema.metadata_locks AS m
JOIN performance_schema.threads AS t ON t.THREAD_ID = m.OWNER_THREAD_ID
LEFT JOIN performance_schema.session_connect_attrs AS a
  ON a.PROCESSLIST_ID = t.PROCESSLIST_ID AND a.ATTR_NAME = 'program_name'
WHERE m.OBJECT_TYPE = 'TABLE' AND m.LOCK_STATUS = 'PENDING' AND t.PROCESSLIST_ID <> %s AND EXISTS (
  SELECT 1 FROM performance_schema.metadata_locks AS o
  JOIN performance_schema.threads AS p ON p.THREAD_ID = o.OWNER_THREAD_ID AND p.PROCESSLIST_ID = %s
  WHERE o.OBJECT_TYPE = 'TABLE' AND o.OBJECT_SCHEMA = m.OBJECT_SCHEMA AND o.OBJECT_NAME = m.OBJECT_NAME)
"""
# Without the privilege PROCESS the list is one of the role's own, and looks as if nobody waited.
_MAY_SEE_ALL = "SELECT COUNT(*) FROM information_schema.INNODB_TRX"
# The list does not tell which lock. The statement does: whether it names the table is looked for in the server,
# and what it says besides is not read.
_IN_LIST = f"""
SELECT ID, USER, '', CONCAT(DATABASE(), '.', %s), '' FROM information_schema.PROCESSLIST
WHERE STATE = '{_METADATA}' AND ID <> %s AND LOCATE(%s, INFO) > 0
"""  # noqa: S608 - a constant
_NOT_KNOWN = (
    "Who waits for its locks cannot be told: grant the role PROCESS, or SELECT on performance_schema where the "
    "server runs with performance_schema=ON and the instrument wait/lock/metadata/sql/mdl."
)


class Waiters:
    """Looks for those who wait, in the best place that there is; which one that is, is found out once.

    Args:
        number: the operation's connection.
        waits: what samples are added to.
    """

    def __init__(self, number: int, waits: LockWaits) -> None:
        self._number = number
        self._waits = waits
        self._books: bool | None = None
        self._list: bool | None = None

    def look(self, connection: Connection, table: str, state: str) -> None:
        """Take a sample; ``state`` is what the operation's own connection does, as the list of processes says.

        Raises:
            ServerError: the connection broke.
        """
        own = state.lower().startswith("waiting") and "lock" in state.lower()
        self._waits.own([Waiting(session=self._number, seconds=self._waits.every)] if own else [])
        self._waits.others(_waiting(row, self._waits.every) for row in self._rows(connection, table))

    def _rows(self, connection: Connection, table: str) -> list[Row]:
        if self._books is None:
            self._books = tells(connection, _KEEPS_BOOKS)
        if self._books:
            try:
                return connection.rows(_IN_BOOKS, self._number, self._number)
            except ServerError as error:
                if not error.is_answer:
                    raise
                self._books = False
        if self._list is None:
            self._list = tells(connection, _MAY_SEE_ALL, least=0)
            if not self._list:
                self._waits.unknown(_NOT_KNOWN, BLOCKING)
        return connection.rows(_IN_LIST, table, self._number, table) if self._list else []


def tells(connection: Connection, question: str, *, least: int = 1) -> bool:
    """Tell whether the server answers with a number that is large enough, and does not refuse."""
    try:
        return int(connection.value(question)) >= least
    except ServerError as error:
        if not error.is_answer:
            raise
        return False


def _waiting(row: Row, seconds: float) -> Waiting:
    number, user, application, name, mode = row
    who = LockWaiter(
        application=str(application or ""), user=str(user or ""), object=str(name), lock_mode=str(mode)
    )
    return Waiting(session=number, seconds=seconds, who=who)
