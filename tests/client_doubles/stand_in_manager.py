"""A stand-in for `overhaul-manager serve`: keeps the contract with `overhaul run`; the target says what happens.

quick: completes. slow: waits to be cancelled. late: refuses that. deaf: never ends.
dies, killed: ends when watched. refusing: refuses.
"""

# ruff: noqa: T201 - a program of its own, whose voice is stdout and stderr

import json
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

import grpc
from google.protobuf.message import Message

from overhaul.v1 import job_pb2, job_service_pb2
from tests.client_doubles import wire
from tests.client_doubles.fake_manager import FakeManager, Hang, Refusal
from tests.client_doubles.stand_in_worker import leave_note

CANCELLED = wire.completed_parent_job(
    state=job_pb2.PARENT_JOB_STATE_CANCELLED, counts=job_pb2.ChildJobCounts(total=1, cancelled=1)
)


class StandIn:
    def __init__(self) -> None:
        self._cancelled = threading.Event()
        self._target = ""
        self._manager = FakeManager()
        self.address = self._manager.address
        self._manager.answers("CreateParentJob", self._create)
        self._manager.answers("WatchParentJob", self._watch)
        self._manager.answers("CancelParentJob", self._cancel)
        self._manager.answers("GetParentJob", self._get)
        self._manager.answers("ListChildJobs", self._children)

    def stop(self) -> None:
        self._cancelled.set()
        self._manager.stop()

    def _create(self, request: Any) -> Message:
        [self._target] = request.targets
        leave_note("created", str(request))
        return job_service_pb2.CreateParentJobResponse(parent_job=wire.parent_job())

    def _watch(self, _: Any) -> Iterator[Message | Refusal | Hang]:
        yield wire.snapshot(wire.parent_job())
        yield wire.child_event(4, target=self._target)
        leave_note("watched", "")
        if self._target == "dies":
            print("the store burns", file=sys.stderr, flush=True)
            os._exit(7)
        if self._target == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self._target == "refusing":
            yield Refusal(code=grpc.StatusCode.NOT_FOUND, message="no such job", reason="PARENT_JOB_NOT_FOUND")
        if self._target == "deaf":
            yield Hang()
        if self._target != "quick":
            self._cancelled.wait(30)
        yield wire.parent_event(5, self._final())

    def _cancel(self, request: Any) -> Message | Refusal:
        leave_note("cancelled", request.reason)
        self._cancelled.set()
        if self._target == "late":
            return Refusal(
                code=grpc.StatusCode.FAILED_PRECONDITION, message="it is completed", reason="WRONG_STATE"
            )
        return job_service_pb2.CancelParentJobResponse(parent_job=wire.parent_job())

    def _get(self, _: Any) -> Message:
        return job_service_pb2.GetParentJobResponse(parent_job=self._final())

    def _children(self, _: Any) -> Message:
        return job_service_pb2.ListChildJobsResponse(child_jobs=[wire.completed_child_job(target=self._target)])

    def _final(self) -> job_pb2.ParentJob:
        return CANCELLED if self._cancelled.is_set() else wire.completed_parent_job()


def main() -> None:
    leave_note("manager.pid", str(os.getpid()))
    leave_note("manager.argv", json.dumps(sys.argv[1:]))
    directory = tempfile.mkdtemp(prefix="stand-in-")
    leave_note("manager.directory", directory)
    manager = StandIn()
    ready = {
        "event": "ready",
        "program": "overhaul-manager",
        "version": "0",
        "address": manager.address,
        "pid": os.getpid(),
        "store": "x",
        "temporary_directory": directory,
    }
    print("not the announcement", flush=True)
    print(json.dumps(ready), flush=True)
    sys.stdin.read()
    manager.stop()
    shutil.rmtree(directory)


if __name__ == "__main__":
    main()
