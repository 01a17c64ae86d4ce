"""Keep how far a live lease's operation is, whether a session's loss was told, and an id of what a session offers.

A manager keeps what it read of offers as long as their id stays the same.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.add_column("leases", sa.Column("progress", text, nullable=True))
    op.add_column("sessions", sa.Column("lost_time", sa.BigInteger(), nullable=True))
    op.add_column("sessions", sa.Column("offers_id", text, nullable=True))
