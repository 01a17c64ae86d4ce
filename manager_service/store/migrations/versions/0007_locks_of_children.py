"""Keep the keys that a child holds on an object: others than those of its operation on the whole database."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.add_column("child_jobs", sa.Column("locks", text, nullable=True))
