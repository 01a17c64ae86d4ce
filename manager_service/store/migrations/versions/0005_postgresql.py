"""Set up what PostgreSQL has of its own: no foreign keys, and room and vacuum for the hot tables."""

from alembic import op
from sqlalchemy import inspect

revision = "0005"
down_revision = "0004"

# Rows that live for seconds and are written again and again. Room in each page lets a new version stay on it, and
# a vacuum after some thousand dead rows, whatever the size of the table, keeps the walk along the indexes short.
_HOT = ("queue", "leases", "live_locks", "parent_counts", "sessions", "store_state", "turns")
_ROOM = "fillfactor = 70"
_VACUUM = (
    "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0"
)
# Rows that are written once at the beginning and once at the end, 100 million of them: a fifth of the table, the
# default, would be 20 million dead rows before the first vacuum.
_LARGE = ("child_jobs", "attempts", "events", "job_logs")
_OFTEN = "autovacuum_vacuum_scale_factor = 0.01, autovacuum_analyze_scale_factor = 0.01"


def upgrade() -> None:
    connection = op.get_bind()
    if connection.dialect.name != "postgresql":
        return
    for table in inspect(connection).get_table_names():
        for key in inspect(connection).get_foreign_keys(table):
            op.drop_constraint(str(key["name"]), table, type_="foreignkey")
    op.execute("INSERT INTO store_state (id, mark) VALUES (1, extract(epoch FROM clock_timestamp()) * 1000000)")
    for table in _HOT:
        op.execute(f"ALTER TABLE {table} SET ({_ROOM}, {_VACUUM})")
    for table in _LARGE:
        op.execute(f"ALTER TABLE {table} SET ({_OFTEN})")
