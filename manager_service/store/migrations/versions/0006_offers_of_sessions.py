"""Give what a session offers an id: a manager keeps what it read of it as long as that stays the same."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("sessions", sa.Column("offers_id", sa.Text))
