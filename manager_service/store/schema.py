"""Bring a store to this release's schema, or refuse it."""

from pathlib import Path

from sqlalchemy import Column, MetaData, Table, Text, func, insert, inspect, select
from sqlalchemy.engine import Connection, Engine

from manager_service.domain.errors import InvalidStoreError
from manager_service.store.tables import metadata

# The newest migration. A store that stands here needs no Alembic, whose import takes longer than opening the file.
HEAD = "0010"
_VERSION = Table("alembic_version", MetaData(), Column("version_num", Text, primary_key=True))
# The name of the lock that a migration takes: the letters of "overhaul".
_MIGRATION = 0x6F76_6572_6861_756C
_MIGRATIONS = Path(__file__).parent / "migrations"


def prepare(engine: Engine, existing: frozenset[str], name: str) -> None:
    """Make the tables of a new store, or migrate those of an older one.

    Raises:
        InvalidStoreError: the tables are not a job store's, or a newer release made them.
    """
    with engine.connect() as connection:
        if not existing:
            _create(connection)
        elif "alembic_version" not in existing or "store_state" not in existing:
            raise InvalidStoreError(f"{name} is a database, but no job store; name another file")
        elif _version(connection) != HEAD:
            _migrate(connection, name)
        connection.commit()


def migrate(engine: Engine, name: str) -> str:
    """Bring a database on PostgreSQL to this release's schema, and return the schema that it had before.

    All or nothing, and one program at a time: several may be told to at once.

    Raises:
        InvalidStoreError: a newer release made the tables, or they are not a job store's.
    """
    with engine.begin() as connection:
        connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION)))
        before = _found(connection, name)
        if before != HEAD:
            _migrate(connection, name)
    return before or ""


def check(engine: Engine, name: str) -> None:
    """Refuse a database on PostgreSQL that has not this release's schema; raise ``InvalidStoreError``."""
    with engine.connect() as connection:
        found = _found(connection, name)
    if found != HEAD:
        stands = f"has the schema {found}, this release needs {HEAD}" if found else "holds no job store yet"
        raise InvalidStoreError(f"{name} {stands}; run: overhaul-manager migrate --store URL")


def _found(connection: Connection, name: str) -> str | None:
    """Return the schema that a database has; raise ``InvalidStoreError`` where it is not to be touched."""
    tables = set(inspect(connection).get_table_names())
    if not tables & {"alembic_version", "store_state", "parent_jobs"}:
        return None
    if not tables >= {"alembic_version", "store_state"}:
        raise InvalidStoreError(f"{name} has tables of another program; name another database")
    found = _version(connection)
    if found and found > HEAD:
        raise InvalidStoreError(_newer(name, found))
    return found


def _newer(name: str, found: str | None) -> str:
    return f"{name} was made by a newer release (schema {found}); upgrade this manager"


def _create(connection: Connection) -> None:
    """Make the newest tables at once; a test proves that the migrations make the same ones."""
    metadata.create_all(connection, checkfirst=False)
    connection.exec_driver_sql(
        "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, "
        "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
    )
    connection.execute(insert(_VERSION).values(version_num=HEAD))


def _version(connection: Connection) -> str | None:
    version: str | None = connection.execute(select(_VERSION.c.version_num)).scalar()
    return version


def _migrate(connection: Connection, name: str) -> None:
    from alembic import command  # noqa: PLC0415 -- 120 ms, and only an older store needs it
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise InvalidStoreError(_newer(name, _version(connection))) from error
