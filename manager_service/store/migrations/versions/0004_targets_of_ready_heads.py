"""Let a claim walk past the heads of targets that others serve without reading them."""

from alembic import op
from sqlalchemy import text

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.drop_index("ix_queue_ready", "queue")
    op.create_index(
        "ix_queue_ready",
        "queue",
        ["rank", "turn", "child_id", "target"],
        sqlite_where=text("hold = 0"),
        postgresql_where=text("hold = 0"),
    )
