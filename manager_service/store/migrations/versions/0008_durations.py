"""Keep how long operations took on objects: what orders the next ones, and what they are expected to take."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.create_table(
        "durations",
        sa.Column("target", text, nullable=False),
        sa.Column("operation", text, nullable=False),
        sa.Column("object", text, nullable=False),
        sa.Column("expected", sa.BigInteger(), nullable=False),
        sa.Column("kept", text, nullable=False),
        sa.Column("completions", sa.BigInteger(), nullable=False),
        sa.Column("update_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("target", "operation", "object", name="pk_durations"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_durations_update_time", "durations", ["update_time"])
