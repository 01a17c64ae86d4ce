"""Keep what the attempts of a parent job did in all, and who waited for locks of a child's last one."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.add_column("parent_counts", sa.Column("totals", text, nullable=True))
    op.add_column("child_jobs", sa.Column("waiters", text, nullable=True))
