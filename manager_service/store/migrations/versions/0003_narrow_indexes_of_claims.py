"""Index what a claim reads of targets and of what sessions offer, without the rest of their fat rows."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_index("ix_session_targets_session_id", "session_targets", ["session_id", "target"])
    op.create_index("ix_targets_room", "targets", ["name", "paused", "max_parallel"])
