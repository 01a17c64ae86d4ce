"""Keep with a live lease how far its operation is, and with a session whether its loss was told."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.add_column("leases", sa.Column("progress", text, nullable=True))
    op.add_column("sessions", sa.Column("lost_time", sa.BigInteger(), nullable=True))
