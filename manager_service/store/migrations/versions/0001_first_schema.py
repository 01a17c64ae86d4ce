"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

# PostgreSQL sorts text by a language unless it is told not to.
Text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "parent_jobs",
        sa.Column("id", Text, nullable=False),
        sa.Column("request_id", Text, nullable=True),
        sa.Column("request_hash", Text, nullable=False),
        sa.Column("spec", Text, nullable=False),
        sa.Column("max_parallel", sa.Integer(), nullable=False),
        sa.Column("deadline", sa.BigInteger(), nullable=True),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("cancel_reason", Text, nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("state", Text, nullable=False),
        sa.Column("start_time", sa.BigInteger(), nullable=True),
        sa.Column("end_time", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_parent_jobs")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_parent_jobs_cancelling",
        "parent_jobs",
        ["id"],
        unique=False,
        sqlite_where=sa.text("state = 'cancelling'"),
        postgresql_where=sa.text("state = 'cancelling'"),
    )
    op.create_index(
        "ix_parent_jobs_deadline",
        "parent_jobs",
        ["deadline"],
        unique=False,
        sqlite_where=sa.text("deadline IS NOT NULL AND end_time IS NULL"),
        postgresql_where=sa.text("deadline IS NOT NULL AND end_time IS NULL"),
    )
    op.create_index(
        "ix_parent_jobs_end_time",
        "parent_jobs",
        ["end_time"],
        unique=False,
        sqlite_where=sa.text("end_time IS NOT NULL"),
        postgresql_where=sa.text("end_time IS NOT NULL"),
    )
    op.create_index("ix_parent_jobs_state", "parent_jobs", ["state", "id"], unique=False)
    op.create_index(
        "uq_parent_jobs_request_id",
        "parent_jobs",
        ["request_id"],
        unique=True,
        sqlite_where=sa.text("request_id IS NOT NULL"),
        postgresql_where=sa.text("request_id IS NOT NULL"),
    )
    op.create_table(
        "sessions",
        sa.Column("id", Text, nullable=False),
        sa.Column("worker_name", Text, nullable=False),
        sa.Column("instance_id", Text, nullable=False),
        sa.Column("build", Text, nullable=False),
        sa.Column("host", Text, nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("labels", Text, nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("heartbeat_sequence", sa.BigInteger(), nullable=False),
        sa.Column("heartbeat_time", sa.BigInteger(), nullable=False),
        sa.Column("poll_sequence", sa.BigInteger(), nullable=False),
        sa.Column("state", Text, nullable=False),
        sa.Column("directive", Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sessions")),
        sa.UniqueConstraint("instance_id", name=op.f("uq_sessions_instance_id")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_sessions_worker_name", "sessions", ["worker_name", "create_time"], unique=False)
    op.create_table(
        "store_state",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("mark", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_store_state")),
    )
    op.create_table(
        "targets",
        sa.Column("name", Text, nullable=False),
        sa.Column("engine", Text, nullable=False),
        sa.Column("engine_version", Text, nullable=False),
        sa.Column("identity", Text, nullable=False),
        sa.Column("labels", Text, nullable=False),
        sa.Column("max_parallel", sa.Integer(), nullable=False),
        sa.Column("operations", Text, nullable=False),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_targets")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "turns",
        sa.Column("rank", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("turn", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("rank", name=op.f("pk_turns")),
    )
    op.create_table(
        "child_jobs",
        sa.Column("id", Text, nullable=False),
        sa.Column("parent_id", Text, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("lane", sa.Integer(), nullable=False),
        sa.Column("target", Text, nullable=False),
        sa.Column("operation", Text, nullable=False),
        sa.Column("options", Text, nullable=False),
        sa.Column("object", Text, nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("losses", sa.Integer(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("state", Text, nullable=False),
        sa.Column("verdict", Text, nullable=True),
        sa.Column("reason", Text, nullable=False),
        sa.Column("failure", Text, nullable=True),
        sa.Column("before", Text, nullable=False),
        sa.Column("after", Text, nullable=False),
        sa.Column("available_time", sa.BigInteger(), nullable=True),
        sa.Column("start_time", sa.BigInteger(), nullable=True),
        sa.Column("end_time", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["parent_id"], ["parent_jobs.id"], name=op.f("fk_child_jobs_parent_id_parent_jobs")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_child_jobs")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_child_jobs_failed",
        "child_jobs",
        ["parent_id", "lane", "position"],
        unique=False,
        sqlite_where=sa.text("state = 'failed'"),
        postgresql_where=sa.text("state = 'failed'"),
    )
    op.create_index(
        "ix_child_jobs_open",
        "child_jobs",
        ["parent_id", "lane", "position"],
        unique=False,
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index(
        "ix_child_jobs_open_target",
        "child_jobs",
        ["target"],
        unique=False,
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index("uq_child_jobs_parent_id_position", "child_jobs", ["parent_id", "position"], unique=True)
    op.create_table(
        "events",
        sa.Column("parent_id", Text, nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("kind", Text, nullable=False),
        sa.Column("child_id", Text, nullable=True),
        sa.Column("previous_state", Text, nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=True),
        sa.Column("verdict", Text, nullable=True),
        sa.Column("reason", Text, nullable=True),
        sa.Column("state", Text, nullable=True),
        sa.Column("paused", sa.Boolean(), nullable=True),
        sa.Column("cancel_requested", sa.Boolean(), nullable=True),
        sa.Column("affected", sa.BigInteger(), nullable=True),
        sa.Column("counts", Text, nullable=True),
        sa.ForeignKeyConstraint(["parent_id"], ["parent_jobs.id"], name=op.f("fk_events_parent_id_parent_jobs")),
        sa.PrimaryKeyConstraint("parent_id", "sequence", name=op.f("pk_events")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "parent_counts",
        sa.Column("parent_id", Text, nullable=False),
        sa.Column("pending", sa.BigInteger(), nullable=False),
        sa.Column("leased", sa.BigInteger(), nullable=False),
        sa.Column("running", sa.BigInteger(), nullable=False),
        sa.Column("completed", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        sa.Column("cancelled", sa.BigInteger(), nullable=False),
        sa.Column("skipped", sa.BigInteger(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("first_sequence", sa.BigInteger(), nullable=False),
        sa.Column("last_turn", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["parent_id"], ["parent_jobs.id"], name=op.f("fk_parent_counts_parent_id_parent_jobs")
        ),
        sa.PrimaryKeyConstraint("parent_id", name=op.f("pk_parent_counts")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "parent_labels",
        sa.Column("parent_id", Text, nullable=False),
        sa.Column("key", Text, nullable=False),
        sa.Column("value", Text, nullable=False),
        sa.ForeignKeyConstraint(
            ["parent_id"], ["parent_jobs.id"], name=op.f("fk_parent_labels_parent_id_parent_jobs")
        ),
        sa.PrimaryKeyConstraint("key", "value", "parent_id", name=op.f("pk_parent_labels")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_parent_labels_parent_id", "parent_labels", ["parent_id"], unique=False)
    op.create_table(
        "parent_targets",
        sa.Column("target", Text, nullable=False),
        sa.Column("parent_id", Text, nullable=False),
        sa.ForeignKeyConstraint(
            ["parent_id"], ["parent_jobs.id"], name=op.f("fk_parent_targets_parent_id_parent_jobs")
        ),
        sa.PrimaryKeyConstraint("target", "parent_id", name=op.f("pk_parent_targets")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_parent_targets_parent_id", "parent_targets", ["parent_id"], unique=False)
    op.create_table(
        "session_targets",
        sa.Column("session_id", Text, nullable=False),
        sa.Column("target", Text, nullable=False),
        sa.Column("operations", Text, nullable=False),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.id"], name=op.f("fk_session_targets_session_id_sessions")
        ),
        sa.PrimaryKeyConstraint("session_id", "target", name=op.f("pk_session_targets")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_session_targets_target", "session_targets", ["target"], unique=False)
    op.create_table(
        "target_labels",
        sa.Column("target", Text, nullable=False),
        sa.Column("key", Text, nullable=False),
        sa.Column("value", Text, nullable=False),
        sa.ForeignKeyConstraint(["target"], ["targets.name"], name=op.f("fk_target_labels_target_targets")),
        sa.PrimaryKeyConstraint("key", "value", "target", name=op.f("pk_target_labels")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_target_labels_target", "target_labels", ["target"], unique=False)
    op.create_table(
        "attempts",
        sa.Column("child_id", Text, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("lease_id", Text, nullable=False),
        sa.Column("worker_name", Text, nullable=False),
        sa.Column("report_id", Text, nullable=True),
        sa.Column("outcome", Text, nullable=True),
        sa.Column("failure", Text, nullable=True),
        sa.Column("reason", Text, nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("start_time", sa.BigInteger(), nullable=True),
        sa.Column("end_time", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["child_id"], ["child_jobs.id"], name=op.f("fk_attempts_child_id_child_jobs")),
        sa.PrimaryKeyConstraint("child_id", "attempt", name=op.f("pk_attempts")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "job_logs",
        sa.Column("child_id", Text, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("level", Text, nullable=False),
        sa.Column("message", Text, nullable=False),
        sa.ForeignKeyConstraint(["child_id"], ["child_jobs.id"], name=op.f("fk_job_logs_child_id_child_jobs")),
        sa.PrimaryKeyConstraint("child_id", "attempt", "offset", name=op.f("pk_job_logs")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "leases",
        sa.Column("child_id", Text, nullable=False),
        sa.Column("lease_id", Text, nullable=False),
        sa.Column("parent_id", Text, nullable=False),
        sa.Column("target", Text, nullable=False),
        sa.Column("operation", Text, nullable=False),
        sa.Column("session_id", Text, nullable=False),
        sa.Column("worker_name", Text, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("poll_sequence", sa.BigInteger(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("losses", sa.Integer(), nullable=False),
        sa.Column("grant_time", sa.BigInteger(), nullable=False),
        sa.Column("state", Text, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("accept_time", sa.BigInteger(), nullable=False),
        sa.Column("start_time", sa.BigInteger(), nullable=True),
        sa.Column("expire_time", sa.BigInteger(), nullable=False),
        sa.Column("missed", sa.Integer(), nullable=False),
        sa.Column("graced", sa.Boolean(), nullable=False),
        sa.Column("stop", Text, nullable=True),
        sa.Column("stop_reason", Text, nullable=False),
        sa.ForeignKeyConstraint(["child_id"], ["child_jobs.id"], name=op.f("fk_leases_child_id_child_jobs")),
        sa.PrimaryKeyConstraint("child_id", name=op.f("pk_leases")),
        sa.UniqueConstraint("lease_id", name=op.f("uq_leases_lease_id")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_leases_accept_time",
        "leases",
        ["accept_time"],
        unique=False,
        sqlite_where=sa.text("state = 'leased'"),
        postgresql_where=sa.text("state = 'leased'"),
    )
    op.create_index("ix_leases_expire_time", "leases", ["expire_time"], unique=False)
    op.create_index("ix_leases_parent_id", "leases", ["parent_id"], unique=False)
    op.create_index("ix_leases_session_id", "leases", ["session_id"], unique=False)
    op.create_index("ix_leases_target", "leases", ["target"], unique=False)
    op.create_table(
        "queue",
        sa.Column("child_id", Text, nullable=False),
        sa.Column("parent_id", Text, nullable=False),
        sa.Column("target", Text, nullable=False),
        sa.Column("operation", Text, nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("turn", sa.BigInteger(), nullable=False),
        sa.Column("available_time", sa.BigInteger(), nullable=False),
        sa.Column("hold", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["child_id"], ["child_jobs.id"], name=op.f("fk_queue_child_id_child_jobs")),
        sa.PrimaryKeyConstraint("child_id", name=op.f("pk_queue")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_queue_delayed",
        "queue",
        ["available_time"],
        unique=False,
        sqlite_where=sa.text("hold = 1"),
        postgresql_where=sa.text("hold = 1"),
    )
    op.create_index("ix_queue_parent_id", "queue", ["parent_id", "hold"], unique=False)
    op.create_index(
        "ix_queue_ready",
        "queue",
        ["rank", "turn", "child_id"],
        unique=False,
        sqlite_where=sa.text("hold = 0"),
        postgresql_where=sa.text("hold = 0"),
    )
    op.create_index(
        "ix_queue_ready_operation",
        "queue",
        ["target", "operation", "rank", "turn", "child_id"],
        unique=False,
        sqlite_where=sa.text("hold = 0"),
        postgresql_where=sa.text("hold = 0"),
    )
    op.create_index(
        "ix_queue_ready_target",
        "queue",
        ["target", "rank", "turn", "child_id"],
        unique=False,
        sqlite_where=sa.text("hold = 0"),
        postgresql_where=sa.text("hold = 0"),
    )
    op.create_table(
        "stale_reports",
        sa.Column("child_id", Text, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("report_id", Text, nullable=False),
        sa.Column("outcome", Text, nullable=False),
        sa.Column("reason", Text, nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["child_id"], ["child_jobs.id"], name=op.f("fk_stale_reports_child_id_child_jobs")
        ),
        sa.PrimaryKeyConstraint("child_id", "attempt", "report_id", name=op.f("pk_stale_reports")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "live_locks",
        sa.Column("key", Text, nullable=False),
        sa.Column("child_id", Text, nullable=False),
        sa.Column("exclusive", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["child_id"], ["leases.child_id"], name=op.f("fk_live_locks_child_id_leases")),
        sa.PrimaryKeyConstraint("key", "child_id", name=op.f("pk_live_locks")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_live_locks_child_id", "live_locks", ["child_id"], unique=False)
    op.create_index(
        "uq_live_locks_exclusive",
        "live_locks",
        ["key"],
        unique=True,
        sqlite_where=sa.text("exclusive = 1"),
        postgresql_where=sa.text("exclusive"),
    )
