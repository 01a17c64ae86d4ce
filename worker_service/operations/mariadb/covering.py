"""Whether the one of two rebuilds of a table is enough, by how this server is set."""

from worker_service.domain.inspection import Coverage
from worker_service.operations.mariadb.connection import Reader
from worker_service.operations.mariadb.options import BINLOG, ONLINE, REBUILD, Options
from worker_service.operations.mariadb.tables import Table

# With either of them OPTIMIZE says OK and leaves the table's file as it is.
_NO_REBUILD = "SHOW VARIABLES WHERE Variable_name IN ('innodb_optimize_fulltext_only', 'innodb_defragment')"
_COVERED = Coverage(operation="reindex", by="vacuum", reason="vacuum rebuilds it with all its indexes")


def optimize_rebuilds(reader: Reader) -> bool:
    """Tell whether OPTIMIZE of an InnoDB table is a rebuild on this server.

    Raises:
        ServerError: the server's variables cannot be read.
    """
    return not any(str(value).upper() in {"ON", "1"} for _, value in reader.rows(_NO_REBUILD))


def covered(
    table: Table, vacuum: Options | None, reindex: Options | None, *, rebuilds: bool
) -> tuple[Coverage, ...]:
    """Tell that a vacuum does what a reindex of the same table would.

    ANALYZE is left as it is beside OPTIMIZE, which ends with one: it reads a few pages, may gather the statistics
    that MariaDB keeps for every engine, which OPTIMIZE does not, and has to be done where a rebuild fails.

    Args:
        table: what both are done to.
        vacuum: the options of the vacuum that is wanted; ``None`` where none is.
        reindex: those of the reindex.
        rebuilds: what ``optimize_rebuilds`` says of the server.
    """
    if vacuum is None or reindex is None or not table.is_innodb:
        return ()
    by_alter = bool(vacuum[REBUILD.name] or vacuum[ONLINE.name])
    # Replicas run what is in the binary log, and their indexes are meant too.
    same_servers = vacuum[BINLOG.name] >= reindex[BINLOG.name]
    return (_COVERED,) if same_servers and (by_alter or rebuilds) else ()
