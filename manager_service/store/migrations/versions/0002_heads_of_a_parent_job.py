"""Find the first ready heads of a parent job."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.drop_index("ix_queue_parent_id", table_name="queue")
    op.create_index("ix_queue_parent_id", "queue", ["parent_id", "hold", "turn"], unique=False)
