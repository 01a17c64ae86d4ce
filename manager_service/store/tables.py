"""The tables of the job store.

Times are microseconds since the Unix epoch, ids UUID text of version 7, so that both sort by age. Columns are
grouped by who writes them. What is live lies in narrow tables of its own: ``queue`` holds the children that could
be leased next, ``leases`` the live leases. A child that has a lease is LEASED or RUNNING whatever its row says:
that is written when it is made and when an attempt ends.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
    literal_column,
    text,
)
from sqlalchemy import Text as AnyText

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

READY, DELAYED, HELD = 0, 1, 2
# Both stores order text by its bytes.
Text = AnyText().with_variant(AnyText(collation="C"), "postgresql")


def _partial(name: str, *columns: str, where: str, postgresql: str = "", unique: bool = False) -> Index:
    condition = text(postgresql or where)
    return Index(name, *columns, unique=unique, sqlite_where=text(where), postgresql_where=condition)


# One row. `mark` is the store's mark of life.
store_state = Table(
    "store_state",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("mark", BigInteger, nullable=False),
)

# The turn of the last grant of each rank: where a parent job that was idle joins the round. A rank has its own,
# because the turns of urgent jobs would otherwise send newcomers of lower rank behind all that wait there.
turns = Table(
    "turns",
    metadata,
    Column("rank", Integer, primary_key=True, autoincrement=False),
    Column("turn", BigInteger, nullable=False),
)

parent_jobs = Table(
    "parent_jobs",
    metadata,
    # Written at creation.
    Column("id", Text, primary_key=True),
    Column("request_id", Text),
    Column("request_hash", Text, nullable=False),
    Column("spec", Text, nullable=False),
    Column("max_parallel", Integer, nullable=False),
    Column("deadline", BigInteger),
    Column("create_time", BigInteger, nullable=False),
    # Written by clients.
    Column("paused", Boolean, nullable=False),
    Column("cancel_requested", Boolean, nullable=False),
    Column("cancel_reason", Text, nullable=False),
    Column("round", Integer, nullable=False),
    # Written when the unit of work decides the state.
    Column("state", Text, nullable=False),
    Column("start_time", BigInteger),
    Column("end_time", BigInteger),
    # A request_id names one parent job; most internal jobs have none.
    _partial("uq_parent_jobs_request_id", "request_id", where="request_id IS NOT NULL", unique=True),
    # fail_overdue looks at jobs with a deadline that have not ended, and at no others.
    _partial("ix_parent_jobs_deadline", "deadline", where="deadline IS NOT NULL AND end_time IS NULL"),
    # prune looks for the oldest ended jobs.
    _partial("ix_parent_jobs_end_time", "end_time", where="end_time IS NOT NULL"),
    # Jobs to sweep, whose heads a claim passes over.
    _partial("ix_parent_jobs_cancelling", "id", where="state = 'cancelling'"),
    Index("ix_parent_jobs_state", "state", "id"),
    sqlite_with_rowid=False,
)

parent_labels = Table(
    "parent_labels",
    metadata,
    Column("parent_id", Text, ForeignKey("parent_jobs.id"), nullable=False),
    Column("key", Text, nullable=False),
    Column("value", Text, nullable=False),
    PrimaryKeyConstraint("key", "value", "parent_id"),
    Index("ix_parent_labels_parent_id", "parent_id"),
    sqlite_with_rowid=False,
)

# Which parent jobs have a child on a target: one row per parent job and target, however many children.
parent_targets = Table(
    "parent_targets",
    metadata,
    Column("target", Text, nullable=False),
    Column("parent_id", Text, ForeignKey("parent_jobs.id"), nullable=False),
    PrimaryKeyConstraint("target", "parent_id"),
    Index("ix_parent_targets_parent_id", "parent_id"),
    sqlite_with_rowid=False,
)

# The narrow row that every change of a child touches: once per transaction and parent job.
parent_counts = Table(
    "parent_counts",
    metadata,
    Column("parent_id", Text, ForeignKey("parent_jobs.id"), primary_key=True),
    Column("pending", BigInteger, nullable=False),
    Column("leased", BigInteger, nullable=False),
    Column("running", BigInteger, nullable=False),
    Column("completed", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("cancelled", BigInteger, nullable=False),
    Column("skipped", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("first_sequence", BigInteger, nullable=False),
    Column("last_turn", BigInteger, nullable=False),
    # The sums of what its attempts did, as JSON; null before the first.
    Column("totals", Text),
    sqlite_with_rowid=False,
)

child_jobs = Table(
    "child_jobs",
    metadata,
    # Written at creation.
    Column("id", Text, primary_key=True),
    Column("parent_id", Text, ForeignKey("parent_jobs.id"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("lane", Integer, nullable=False),
    Column("target", Text, nullable=False),
    Column("operation", Text, nullable=False),
    Column("options", Text, nullable=False),
    Column("object", Text),
    Column("size", BigInteger, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    # The keys that it holds while it is live, where they are not those of its operation on the whole database.
    Column("locks", Text),
    # Written when an attempt ends, and by a retry of the parent job.
    Column("attempts", Integer, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("losses", Integer, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("verdict", Text),
    Column("reason", Text, nullable=False),
    Column("failure", Text),
    Column("before", Text, nullable=False),
    Column("after", Text, nullable=False),
    Column("available_time", BigInteger),
    Column("start_time", BigInteger),
    Column("end_time", BigInteger),
    Column("waiters", Text),
    Index("uq_child_jobs_parent_id_position", "parent_id", "position", unique=True),
    # The end of a child looks for the next open one of its lane; a sweep for all open ones of the parent job.
    _partial("ix_child_jobs_open", "parent_id", "lane", "position", where="state = 'pending'"),
    # How many children wait for a target, and whether it may be forgotten.
    _partial("ix_child_jobs_open_target", "target", where="state = 'pending'"),
    # A retry looks for the failed ones.
    _partial("ix_child_jobs_failed", "parent_id", "lane", "position", where="state = 'failed'"),
    sqlite_with_rowid=False,
)

# Pending children at the head of their lane. `rank` is minus the priority: one ascending index is the order.
queue = Table(
    "queue",
    metadata,
    Column("child_id", Text, ForeignKey("child_jobs.id"), primary_key=True),
    Column("parent_id", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("operation", Text, nullable=False),
    Column("rank", Integer, nullable=False),
    Column("turn", BigInteger, nullable=False),
    Column("available_time", BigInteger, nullable=False),
    Column("hold", Integer, nullable=False),
    # A claim walks the ready heads in dispatch order, past those of targets that others serve, and stops after its
    # grants.
    _partial("ix_queue_ready", "rank", "turn", "child_id", "target", where="hold = 0"),
    # Where foreign or busy heads lie in front, it asks for the first head of each target it serves.
    _partial("ix_queue_ready_target", "target", "rank", "turn", "child_id", where="hold = 0"),
    # Where that head's operation is not offered or its keys are held, it asks for the heads of the others.
    _partial("ix_queue_ready_operation", "target", "operation", "rank", "turn", "child_id", where="hold = 0"),
    # release_due takes the delayed heads whose time has come.
    _partial("ix_queue_delayed", "available_time", where="hold = 1"),
    # Pausing, resuming and sweeping a parent job; its first heads for a claim, where others are closed.
    Index("ix_queue_parent_id", "parent_id", "hold", "turn"),
    sqlite_with_rowid=False,
)

# Live leases only. `version` counts the child's changes since its row was written; `graced` tells that expire_time
# holds the grace of an outage already, so that a row of crashes cannot keep a lease alive for ever.
leases = Table(
    "leases",
    metadata,
    # Written at the grant.
    Column("child_id", Text, ForeignKey("child_jobs.id"), primary_key=True),
    Column("lease_id", Text, nullable=False),
    Column("parent_id", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("operation", Text, nullable=False),
    Column("session_id", Text, nullable=False),
    Column("worker_name", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("poll_sequence", BigInteger, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("losses", Integer, nullable=False),
    Column("grant_time", BigInteger, nullable=False),
    # Written by heartbeats.
    Column("state", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("accept_time", BigInteger, nullable=False),
    Column("start_time", BigInteger),
    Column("expire_time", BigInteger, nullable=False),
    Column("missed", Integer, nullable=False),
    Column("graced", Boolean, nullable=False),
    # Written by a cancel or a deadline.
    Column("stop", Text),
    Column("stop_reason", Text, nullable=False),
    # Written by heartbeats that tell it, and gone with the lease.
    Column("progress", Text),
    UniqueConstraint("lease_id"),
    # Slots are counted, heartbeats renew and a repeated poll answers by session.
    Index("ix_leases_session_id", "session_id"),
    # Limits are counted by target and by parent job.
    Index("ix_leases_target", "target"),
    Index("ix_leases_parent_id", "parent_id"),
    Index("ix_leases_expire_time", "expire_time"),
    # Leases that no heartbeat named yet.
    _partial("ix_leases_accept_time", "accept_time", where="state = 'leased'"),
    sqlite_with_rowid=False,
)

live_locks = Table(
    "live_locks",
    metadata,
    Column("key", Text, nullable=False),
    Column("child_id", Text, ForeignKey("leases.child_id"), nullable=False),
    Column("exclusive", Boolean, nullable=False),
    PrimaryKeyConstraint("key", "child_id"),
    Index("ix_live_locks_child_id", "child_id"),
    # Two exclusive holders of one key cannot be live, whatever the code above believes.
    _partial("uq_live_locks_exclusive", "key", where="exclusive = 1", postgresql="exclusive", unique=True),
    sqlite_with_rowid=False,
)

# Ended attempts. `outcome` is null where the worker was lost.
attempts = Table(
    "attempts",
    metadata,
    Column("child_id", Text, ForeignKey("child_jobs.id"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("lease_id", Text, nullable=False),
    Column("worker_name", Text, nullable=False),
    Column("report_id", Text),
    Column("outcome", Text),
    Column("failure", Text),
    Column("reason", Text, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("start_time", BigInteger),
    Column("end_time", BigInteger, nullable=False),
    PrimaryKeyConstraint("child_id", "attempt"),
    sqlite_with_rowid=False,
)

stale_reports = Table(
    "stale_reports",
    metadata,
    Column("child_id", Text, ForeignKey("child_jobs.id"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("report_id", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    PrimaryKeyConstraint("child_id", "attempt", "report_id"),
    sqlite_with_rowid=False,
)

# What an event says of a child (operation, target, object) is read from the child's row.
events = Table(
    "events",
    metadata,
    Column("parent_id", Text, ForeignKey("parent_jobs.id"), nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    # Of a child's change.
    Column("child_id", Text),
    Column("previous_state", Text),
    Column("attempts", Integer),
    Column("version", BigInteger),
    Column("verdict", Text),
    Column("reason", Text),
    # Of a child's or the parent job's change.
    Column("state", Text),
    # Of the parent job's change.
    Column("paused", Boolean),
    Column("cancel_requested", Boolean),
    # Of a bulk change.
    Column("affected", BigInteger),
    # Of the parent job's or a bulk change.
    Column("counts", Text),
    PrimaryKeyConstraint("parent_id", "sequence"),
    sqlite_with_rowid=False,
)

sessions = Table(
    "sessions",
    metadata,
    # Written by registration.
    Column("id", Text, primary_key=True),
    Column("worker_name", Text, nullable=False),
    Column("instance_id", Text, nullable=False),
    Column("build", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("labels", Text, nullable=False),
    Column("slots", Integer, nullable=False),
    Column("offers_id", Text),
    Column("create_time", BigInteger, nullable=False),
    # Written by heartbeats and polls.
    Column("heartbeat_sequence", BigInteger, nullable=False),
    Column("heartbeat_time", BigInteger, nullable=False),
    Column("poll_sequence", BigInteger, nullable=False),
    # Written by heartbeats that tell others than the one before: why targets are held back, by name.
    Column("held_back", Text),
    # Written by the worker's, an operator's or a newer instance's act.
    Column("state", Text, nullable=False),
    Column("directive", Text, nullable=False),
    # Written by the manager that finds it lost; its next heartbeat or registration takes it away.
    Column("lost_time", BigInteger),
    UniqueConstraint("instance_id"),
    Index("ix_sessions_worker_name", "worker_name", "create_time"),
    sqlite_with_rowid=False,
)

session_targets = Table(
    "session_targets",
    metadata,
    Column("session_id", Text, ForeignKey("sessions.id"), nullable=False),
    Column("target", Text, nullable=False),
    Column("operations", Text, nullable=False),
    PrimaryKeyConstraint("session_id", "target"),
    # Which workers serve a target.
    Index("ix_session_targets_target", "target"),
    # The columns of the primary key without the fat rest of the row: a claim goes through all targets it serves.
    Index("ix_session_targets_session_id", "session_id", "target"),
    sqlite_with_rowid=False,
)

targets = Table(
    "targets",
    metadata,
    # Written by registration.
    Column("name", Text, primary_key=True),
    Column("engine", Text, nullable=False),
    Column("engine_version", Text, nullable=False),
    Column("identity", Text, nullable=False),
    Column("labels", Text, nullable=False),
    Column("max_parallel", Integer, nullable=False),
    Column("operations", Text, nullable=False),
    # Written by operators.
    Column("paused", Boolean, nullable=False),
    # All that a claim has to know of a target.
    Index("ix_targets_room", "name", "paused", "max_parallel"),
    sqlite_with_rowid=False,
)

target_labels = Table(
    "target_labels",
    metadata,
    Column("target", Text, ForeignKey("targets.name"), nullable=False),
    Column("key", Text, nullable=False),
    Column("value", Text, nullable=False),
    PrimaryKeyConstraint("key", "value", "target"),
    Index("ix_target_labels_target", "target"),
    sqlite_with_rowid=False,
)

# How long operations took on objects; the empty one is the whole database. Written beside what is recorded, in
# batches: a manager that dies loses what it had not written yet.
durations = Table(
    "durations",
    metadata,
    Column("target", Text, nullable=False),
    Column("operation", Text, nullable=False),
    Column("object", Text, nullable=False),
    # What is to be expected of the next, and the last few that this is made of.
    Column("expected", BigInteger, nullable=False),
    Column("kept", Text, nullable=False),
    Column("completions", BigInteger, nullable=False),
    Column("update_time", BigInteger, nullable=False),
    PrimaryKeyConstraint("target", "operation", "object"),
    # prune_durations looks for those that were not added to for long.
    Index("ix_durations_update_time", "update_time"),
    sqlite_with_rowid=False,
)

job_logs = Table(
    "job_logs",
    metadata,
    Column("child_id", Text, ForeignKey("child_jobs.id"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("level", Text, nullable=False),
    Column("message", Text, nullable=False),
    PrimaryKeyConstraint("child_id", "attempt", "offset"),
    sqlite_with_rowid=False,
)

# A foreign key costs PostgreSQL a locked row of the parent job for each row of its children, and the rows of one
# parent job are written by many transactions at once. There the verbs alone keep what SQLite checks as well.
for _table in metadata.tables.values():
    for _key in _table.foreign_key_constraints:
        _key.ddl_if(dialect="sqlite")

# Conditions of partial indexes have to be spelled out in a statement: a bound value would hide them.
is_ready = queue.c.hold == literal_column("0")
is_delayed = queue.c.hold == literal_column("1")
is_open = child_jobs.c.state == literal_column("'pending'")
is_failed = child_jobs.c.state == literal_column("'failed'")
is_unaccepted = leases.c.state == literal_column("'leased'")
is_cancelling = parent_jobs.c.state == literal_column("'cancelling'")
