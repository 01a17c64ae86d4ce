"""The reference of the lifecycle: the least that a durable, fenced no-op over gRPC and SQLite can cost.

It is what is left of a manager and a worker when everything is taken out but the messages, one transaction for the
calls that wait, a lease that is compared, an event, and a row of counts: no heartbeats, expiry, retries, locks,
limits, fairness, wait reasons, watchers, checks or threads. What Overhaul takes beyond this is what those cost.
"""

import asyncio
import json
import signal
import sys
import uuid
from collections import deque
from typing import Any

import grpc
from pysqlite3 import dbapi2

from overhaul.v1 import lease_service_pb2 as wire

_PARENTS = 15
_SCHEMA = """
CREATE TABLE jobs (id TEXT PRIMARY KEY, parent TEXT, state TEXT, report TEXT, attempt INTEGER) WITHOUT ROWID;
CREATE TABLE queue (turn INTEGER PRIMARY KEY, job TEXT, parent TEXT);
CREATE TABLE leases (job TEXT PRIMARY KEY, lease TEXT, attempt INTEGER, parent TEXT) WITHOUT ROWID;
CREATE TABLE events (
    parent TEXT, sequence INTEGER, job TEXT, state TEXT, PRIMARY KEY (parent, sequence)
) WITHOUT ROWID;
CREATE TABLE counts (parent TEXT PRIMARY KEY, done INTEGER, sequence INTEGER) WITHOUT ROWID;
"""


class _Store:
    def __init__(self, path: str, synchronous: str) -> None:
        self.raw: Any = dbapi2.connect(path, isolation_level=None)
        for pragma in ("journal_mode = WAL", f"synchronous = {synchronous}", "cache_size = -32000"):
            self.raw.execute(f"PRAGMA {pragma}")
        self.run = self.raw.cursor().execute

    def fill(self, children: int) -> None:
        self.raw.executescript(_SCHEMA)
        self.run("BEGIN")
        parents = [f"0190{n:032d}" for n in range(_PARENTS)]
        jobs = [(f"0191{n:032d}", parents[n % _PARENTS]) for n in range(children)]
        self.raw.executemany("INSERT INTO counts VALUES (?, 0, 0)", [(parent,) for parent in parents])
        self.raw.executemany("INSERT INTO jobs VALUES (?, ?, 'pending', NULL, 0)", jobs)
        self.raw.executemany("INSERT INTO queue (job, parent) VALUES (?, ?)", jobs)
        self.run("COMMIT")

    def report(self, request: wire.ReportResultsRequest) -> wire.ReportResultsResponse:
        answer = wire.ReportResultsResponse()
        done: dict[str, list[str]] = {}
        for result in request.results:
            lease = self.run("SELECT * FROM leases WHERE job = ?", (result.child_job_id,)).fetchone()
            good = lease is not None and lease[1:3] == (result.lease_id, result.attempt)
            answer.verdicts.add(report_id=result.report_id, status=1 if good else 3)
            if good:
                self.run("DELETE FROM leases WHERE job = ?", lease[:1])
                self.run(
                    "UPDATE jobs SET state = 'completed', report = ? WHERE id = ?", (result.report_id, lease[0])
                )
                done.setdefault(lease[3], []).append(lease[0])
        for parent, jobs in sorted(done.items()):
            self._tell(parent, jobs)
        for turn, job, parent in self.run(
            "SELECT turn, job, parent FROM queue ORDER BY turn LIMIT ?", (request.want_next.max_leases,)
        ).fetchall():
            lease_id = str(uuid.uuid4())
            self.run("DELETE FROM queue WHERE turn = ?", (turn,))
            self.run("INSERT INTO leases VALUES (?, ?, 1, ?)", (job, lease_id, parent))
            answer.leases.add(
                lease_id=lease_id, attempt=1, child_job_id=job, parent_job_id=parent, operation="noop", target="t"
            )
        return answer

    def _tell(self, parent: str, jobs: list[str]) -> None:
        [(sequence,)] = self.run("SELECT sequence FROM counts WHERE parent = ?", (parent,)).fetchall()
        for number, job in enumerate(jobs, sequence + 1):
            self.run("INSERT INTO events VALUES (?, ?, ?, 'completed')", (parent, number, job))
        change = (len(jobs), len(jobs), parent)
        self.run("UPDATE counts SET done = done + ?, sequence = sequence + ? WHERE parent = ?", change)


class _Desk:
    """Takes calls, and commits those that wait together."""

    def __init__(self, store: _Store) -> None:
        self._store = store
        self._waiting: deque[tuple[Any, asyncio.Future[Any]]] = deque()
        self._writing: asyncio.Task[None] | None = None

    async def report(self, data: bytes, _: object) -> Any:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((wire.ReportResultsRequest.FromString(data), answer))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        return await answer

    async def _write(self) -> None:
        while self._waiting:
            calls = list(self._waiting)
            self._waiting.clear()
            self._store.run("BEGIN IMMEDIATE")
            answers = [self._store.report(request) for request, _ in calls]
            self._store.run("COMMIT")
            for (_, future), answer in zip(calls, answers, strict=True):
                future.set_result(answer)
            await asyncio.sleep(0)


async def serve(path: str, synchronous: str, children: int) -> None:
    """Serve the children of a new store until the process is told to end."""
    store = _Store(path, synchronous)
    store.fill(children)
    report: Any = _Desk(store).report
    handler: Any = grpc.unary_unary_rpc_method_handler(report, None, wire.ReportResultsResponse.SerializeToString)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Bare", {"Report": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(json.dumps({"address": f"127.0.0.1:{port}"}), flush=True)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    await server.stop(None)


async def work(address: str, slots: int) -> None:
    """Report what was leased, with the next leases in the same call, until there are none."""
    print(json.dumps({"address": address}), flush=True)
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary(
            "/Bare/Report", wire.ReportResultsRequest.SerializeToString, wire.ReportResultsResponse.FromString
        )
        request = wire.ReportResultsRequest(want_next=wire.NextPoll(max_leases=slots))
        while leases := (await call(request)).leases:
            request = wire.ReportResultsRequest(want_next=wire.NextPoll(max_leases=slots))
            for lease in leases:
                request.results.add(
                    child_job_id=lease.child_job_id,
                    lease_id=lease.lease_id,
                    attempt=lease.attempt,
                    report_id=str(uuid.uuid4()),
                )


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", path, synchronous, children]:
            asyncio.run(serve(path, synchronous, int(children)))
        case ["work", address, slots]:
            asyncio.run(work(address, int(slots)))
