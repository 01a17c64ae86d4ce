"""What has to hold in a job store on PostgreSQL whatever happened to it, asked of its tables."""

import psycopg

# A query for each sentence; every row that it finds is a violation.
_NEVER = {
    "a child is in the queue and has a lease": "SELECT child_id FROM queue JOIN leases USING (child_id)",
    "a child has a lease and has ended": """
        SELECT c.id, c.state FROM child_jobs c JOIN leases l ON l.child_id = c.id WHERE c.state <> 'pending'""",
    "a child is in the queue and has ended": """
        SELECT c.id, c.state FROM child_jobs c JOIN queue q ON q.child_id = c.id WHERE c.state <> 'pending'""",
    "a target has more leases than it allows": """
        SELECT t.name, count(*) FROM leases l JOIN targets t ON t.name = l.target
        GROUP BY t.name, t.max_parallel HAVING count(*) > t.max_parallel""",
    "a parent job has more leases than it allows": """
        SELECT p.id, count(*) FROM leases l JOIN parent_jobs p ON p.id = l.parent_id WHERE p.max_parallel > 0
        GROUP BY p.id, p.max_parallel HAVING count(*) > p.max_parallel""",
    "a session has more leases than slots": """
        SELECT s.id, count(*) FROM leases l JOIN sessions s ON s.id = l.session_id
        GROUP BY s.id, s.slots HAVING count(*) > s.slots""",
    "a key is held exclusively and by others": """
        SELECT key FROM live_locks GROUP BY key HAVING bool_or(exclusive) AND count(*) > 1""",
    "a key is held without a lease": """
        SELECT key FROM live_locks WHERE child_id NOT IN (SELECT child_id FROM leases)""",
    "a lane has two heads": """
        SELECT c.parent_id, c.lane, count(*) FROM child_jobs c
        JOIN (SELECT child_id FROM queue UNION ALL SELECT child_id FROM leases) h ON h.child_id = c.id
        GROUP BY c.parent_id, c.lane HAVING count(*) > 1""",
    "a lane of a running parent job has pending children and no head": """
        SELECT DISTINCT c.parent_id, c.lane FROM child_jobs c JOIN parent_jobs p ON p.id = c.parent_id
        WHERE c.state = 'pending' AND p.state = 'running' AND NOT EXISTS (
            SELECT 1 FROM child_jobs o JOIN (SELECT child_id FROM queue UNION ALL SELECT child_id FROM leases) h
            ON h.child_id = o.id WHERE o.parent_id = c.parent_id AND o.lane = c.lane)""",
    "the counts are not those of the children": """
        SELECT n.parent_id FROM parent_counts n LEFT JOIN (
            SELECT c.parent_id, array_agg(COALESCE(l.state, c.state)) AS states
            FROM child_jobs c LEFT JOIN leases l ON l.child_id = c.id GROUP BY c.parent_id) s USING (parent_id)
        WHERE (n.pending, n.leased, n.running, n.completed, n.failed, n.cancelled, n.skipped) <> (
            SELECT count(*) FILTER (WHERE state = 'pending'), count(*) FILTER (WHERE state = 'leased'),
                count(*) FILTER (WHERE state = 'running'), count(*) FILTER (WHERE state = 'completed'),
                count(*) FILTER (WHERE state = 'failed'), count(*) FILTER (WHERE state = 'cancelled'),
                count(*) FILTER (WHERE state = 'skipped') FROM unnest(s.states) AS state)""",
    "the numbers of events have a gap": """
        SELECT n.parent_id, count(e.sequence), min(e.sequence), max(e.sequence), n.sequence, n.first_sequence
        FROM parent_counts n LEFT JOIN events e USING (parent_id)
        GROUP BY n.parent_id HAVING count(e.sequence) <> n.sequence - n.first_sequence + 1
            OR min(e.sequence) <> n.first_sequence OR max(e.sequence) <> n.sequence""",
    "a parent job ended more than once in a round": """
        SELECT p.id, p.round, count(*) FROM parent_jobs p JOIN events e ON e.parent_id = p.id
        WHERE e.kind = 'parent' AND e.state IN ('completed', 'partially_completed', 'failed', 'cancelled')
        GROUP BY p.id, p.round HAVING count(*) > p.round""",
    "a parent job has ended before its children, or they before it": """
        SELECT p.id, p.state FROM parent_jobs p JOIN parent_counts n ON n.parent_id = p.id
        WHERE (p.state IN ('completed', 'partially_completed', 'failed', 'cancelled'))
            <> (n.pending + n.leased + n.running = 0)
            OR (p.end_time IS NULL) <> (p.state IN ('running', 'cancelling'))""",
    "the attempts of a child are not numbered without a gap": """
        SELECT c.id, c.attempts, count(a.attempt) FROM child_jobs c LEFT JOIN attempts a ON a.child_id = c.id
        GROUP BY c.id HAVING count(a.attempt) <> c.attempts OR max(a.attempt) <> c.attempts""",
    "a lease has not the next attempt": """
        SELECT l.child_id FROM leases l JOIN child_jobs c ON c.id = l.child_id
        WHERE l.attempt <> c.attempts + 1""",
    "a lease of a cancelled parent job is not told to stop": """
        SELECT l.child_id FROM leases l JOIN parent_jobs p ON p.id = l.parent_id
        WHERE p.cancel_requested AND l.stop IS NULL""",
    "a head of a paused parent job is not held, or one of another is": """
        SELECT q.child_id FROM queue q JOIN parent_jobs p ON p.id = q.parent_id WHERE p.paused <> (q.hold = 2)""",
    "rows are left of a parent job that is gone": """
        SELECT parent_id FROM (SELECT parent_id FROM child_jobs UNION ALL SELECT parent_id FROM parent_counts
            UNION ALL SELECT parent_id FROM events UNION ALL SELECT parent_id FROM parent_targets
            UNION ALL SELECT parent_id FROM queue UNION ALL SELECT parent_id FROM leases) r
        WHERE parent_id NOT IN (SELECT id FROM parent_jobs)""",
    "rows are left of a child that is gone": """
        SELECT child_id FROM (SELECT child_id FROM attempts UNION ALL SELECT child_id FROM stale_reports
            UNION ALL SELECT child_id FROM job_logs) r WHERE child_id NOT IN (SELECT id FROM child_jobs)""",
    "a session serves a target that is not known": """
        SELECT session_id, target FROM session_targets WHERE target NOT IN (SELECT name FROM targets)""",
    "a target is served by a session that is gone": """
        SELECT session_id FROM session_targets WHERE session_id NOT IN (
            SELECT id FROM sessions WHERE state IN ('ready', 'draining'))""",
    "a worker has two open sessions": """
        SELECT worker_name FROM sessions WHERE state IN ('ready', 'draining')
        GROUP BY worker_name HAVING count(*) > 1""",
}


def violations(url: str) -> dict[str, list[tuple[object, ...]]]:
    """Return what does not hold in a job store, as of one moment."""
    with psycopg.connect(url) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        found = {sentence: connection.execute(query.encode()).fetchall() for sentence, query in _NEVER.items()}
    return {sentence: rows for sentence, rows in found.items() if rows}


def check_integrity(url: str) -> None:
    """Show that the invariants hold in a job store."""
    assert violations(url) == {}
