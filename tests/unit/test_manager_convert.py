from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from manager_service.api.convert import enums, events, jobs, pages, requests, scalars
from manager_service.api.convert.enums import EnumTable
from manager_service.api.convert.totals import totals
from manager_service.domain.errors import InvalidRequestError
from manager_service.domain.events import BulkChange, BulkChangeKind, ChildJobChange, Event, ParentJobChange
from manager_service.domain.model import SECOND, Progress
from manager_service.domain.request import JobRequest
from manager_service.domain.states import ChildJobState, Counts, ParentJobState, Scope, Verdict
from manager_service.domain.totals import LockWaiter, Totals
from manager_service.domain.watch import Batch, ProgressUpdate, Snapshot
from overhaul.v1 import (
    fleet_service_pb2,
    job_pb2,
    job_service_pb2,
    lease_service_pb2,
)
from tests.unit.manager_doubles import CHILD_ID, NOW, PARENT_ID, child_job, parent_job

RESERVED = {job_pb2.WAIT_REASON_WINDOW_CLOSED}
TABLES: dict[str, tuple[EnumTable[Any, Any], Any]] = {
    "ParentJobState": (enums.PARENT_JOB_STATE, job_pb2.ParentJobState),
    "ChildJobState": (enums.CHILD_JOB_STATE, job_pb2.ChildJobState),
    "Outcome": (enums.OUTCOME, job_pb2.Outcome),
    "Verdict": (enums.VERDICT, job_pb2.Verdict),
    "FailureCategory": (enums.FAILURE_CATEGORY, job_pb2.FailureCategory),
    "Scope": (enums.SCOPE, job_pb2.Scope),
    "FailureMode": (enums.FAILURE_MODE, job_pb2.FailureMode),
    "WaitReason": (enums.WAIT_REASON, job_pb2.WaitReason),
    "BulkChangeKind": (enums.BULK_CHANGE_KIND, job_service_pb2.BulkChangeKind),
    "OptionType": (enums.OPTION_TYPE, lease_service_pb2.OptionType),
    "LeaseDirective": (enums.LEASE_DIRECTIVE, lease_service_pb2.LeaseDirective),
    "WorkerDirective": (enums.WORKER_DIRECTIVE, lease_service_pb2.WorkerDirective),
    "ReleaseReason": (enums.RELEASE_REASON, lease_service_pb2.ReleaseReason),
    "ReportStatus": (enums.REPORT_STATUS, lease_service_pb2.ReportStatus),
    "SessionState": (enums.SESSION_STATE, fleet_service_pb2.SessionState),
}
# These two are read where they are used: the one means an order, the other a flag.
ELSEWHERE = {"ParentJobOrder", "WorkerState"}


class TestEnums:
    def test_every_enum_of_the_contract_has_a_table(self) -> None:
        files = (job_pb2, job_service_pb2, lease_service_pb2, fleet_service_pb2)
        declared = {name for file in files for name in file.DESCRIPTOR.enum_types_by_name}

        assert declared == set(TABLES) | ELSEWHERE

    @pytest.mark.parametrize("name", TABLES)
    def test_every_value_of_the_contract_has_its_place(self, name: str) -> None:
        table, wire = TABLES[name]
        reserved = RESERVED if name == "WaitReason" else set()

        assert table.known() == set(wire.values()) - {0} - reserved

    @pytest.mark.parametrize("name", TABLES)
    def test_every_value_comes_back(self, name: str) -> None:
        table, _ = TABLES[name]

        for value in table.known():
            assert table.out(table.read(value, "f")) == value
        assert table.out(None) == 0
        assert table.read(0, "f") is None

    def test_an_unknown_value_is_refused_with_its_field(self) -> None:
        with pytest.raises(InvalidRequestError, match="scope: 99"):
            enums.SCOPE.read(99, "scope")


class TestScalars:
    @pytest.mark.parametrize("micros", [0, 1, 999_999, 1_000_000, 1_500_001, NOW])
    def test_spans_and_times_come_back(self, micros: int) -> None:
        request = job_service_pb2.CreateParentJobRequest(
            timeout=scalars.duration(micros), deadline=scalars.timestamp(micros)
        )

        assert scalars.span(request, "timeout") == micros
        assert scalars.instant(request, "deadline") == micros

    def test_unset_is_none(self) -> None:
        request = job_service_pb2.CreateParentJobRequest()

        assert scalars.span(request, "timeout") is None
        assert scalars.instant(request, "deadline") is None
        assert scalars.duration(None) is None
        assert scalars.timestamp(None) is None

    @pytest.mark.parametrize(
        ("seconds", "nanos", "micros"), [(0, 1, 1), (0, -1, -1), (-1, -500_000_000, -1_500_000), (0, 1_001, 2)]
    )
    def test_a_tiny_span_does_not_become_none(self, seconds: int, nanos: int, micros: int) -> None:
        request = job_service_pb2.CreateParentJobRequest(timeout=Duration(seconds=seconds, nanos=nanos))

        assert scalars.span(request, "timeout") == micros

    def test_a_time_before_the_epoch_is_read(self) -> None:
        request = job_service_pb2.CreateParentJobRequest(deadline=Timestamp(seconds=-1, nanos=0))

        assert scalars.instant(request, "deadline") == -SECOND


class TestRequests:
    def test_what_is_unset_stays_unset(self) -> None:
        assert requests.job_request(job_service_pb2.CreateParentJobRequest()) == JobRequest()

    def test_every_field_arrives(self) -> None:
        message = job_service_pb2.CreateParentJobRequest(
            request_id="r",
            name="n",
            targets=["a"],
            target_labels={"k": "v"},
            operations=[job_pb2.OperationSpec(name="vacuum", options={"o": "1"})],
            scope=job_pb2.SCOPE_DATABASE,
            retry_policy=job_pb2.RetryPolicy(
                max_failures=1,
                max_losses=2,
                initial_backoff=Duration(seconds=1),
                max_backoff=Duration(seconds=2),
                backoff_multiplier=3,
            ),
            failure_policy=job_pb2.FailurePolicy(mode=job_pb2.FAILURE_MODE_MAX_FAILED, max_failed_children=4),
            priority=5,
            max_parallel=6,
            timeout=Duration(seconds=7),
            deadline=Timestamp(seconds=8),
            labels={"l": "w"},
            dry_run=True,
            allow_unknown_targets=True,
            selection=job_pb2.Selection(include=["a*"], exclude=["b"]),
            only_if=[job_pb2.Threshold(condition="c > 1", operation="vacuum", target="a", object="o*")],
        )
        assert {field.name for field, _ in message.ListFields()} == {
            field.name for field in message.DESCRIPTOR.fields
        }

        request = requests.job_request(message)

        assert request.scope is Scope.DATABASE
        assert (request.retry.max_losses, request.retry.max_backoff) == (2, 2 * SECOND)
        assert request.failure_policy.max_failed_children == 4
        assert (request.timeout, request.deadline) == (7 * SECOND, 8 * SECOND)
        default = JobRequest()
        assert all(getattr(request, name) != getattr(default, name) for name in JobRequest.__dataclass_fields__)


CHANGES = [
    (
        ChildJobChange(
            child_job_id=CHILD_ID,
            operation="vacuum",
            target="app",
            object="t",
            previous_state=ChildJobState.RUNNING,
            state=ChildJobState.COMPLETED,
            attempts=1,
            version=4,
            verdict=Verdict.EFFECTIVE,
            reason="r",
        ),
        "child_job",
    ),
    (
        ParentJobChange(
            state=ParentJobState.RUNNING, paused=True, cancel_requested=True, counts=Counts(pending=2)
        ),
        "parent_job",
    ),
    (BulkChange(kind=BulkChangeKind.ENDED, affected=3, counts=Counts(cancelled=3)), "bulk"),
]


class TestEvents:
    @pytest.mark.parametrize(("change", "field"), CHANGES)
    def test_every_change_has_its_message_with_every_field(self, change: Any, field: str) -> None:
        [response] = events.watch_responses(_batch(change), several=True)
        message = response.event

        assert message.WhichOneof("change") == field
        inner = getattr(message, field)
        assert {item.name for item, _ in inner.ListFields()} == {item.name for item in inner.DESCRIPTOR.fields}

    def test_every_other_update_has_its_message(self) -> None:
        [first] = events.watch_responses(Snapshot(parent_job=parent_job(), resynced=True), several=True)
        update = ProgressUpdate(
            child_job_id=CHILD_ID,
            operation="vacuum",
            target="app",
            object="users",
            progress=Progress(phase="copy", done=1),
            remaining=1_500_000,
        )
        [second] = events.watch_responses(update, several=True)
        snapshot, progress = first.snapshot, second.progress

        assert (snapshot.parent_job.id, snapshot.resynced) == (PARENT_ID, True)
        assert (progress.child_job_id, progress.progress.done) == (CHILD_ID, 1)
        assert not progress.progress.HasField("total")
        assert progress.object == "users"
        assert progress.progress.remaining == Duration(seconds=1, nanos=500_000_000)

    def test_several_events_are_one_message_for_those_who_take_it(self) -> None:
        batch = _batch(*(change for change, _ in CHANGES))

        [together] = events.watch_responses(batch, several=True)
        singly = events.watch_responses(batch, several=False)

        assert list(together.events.events) == [message.event for message in singly]
        assert [message.event.sequence for message in singly] == list(range(1, len(CHANGES) + 1))


def _batch(*changes: Any) -> Batch:
    return Batch(events=tuple(Event(sequence=n, time=NOW, change=change) for n, change in enumerate(changes, 1)))


class TestJobs:
    def test_a_sum_that_nobody_told_is_unset_and_one_of_0_is_not(self) -> None:
        told = totals(Totals(attempts=2, sized=1, waited=2))

        assert (told.attempts, told.sized_attempts, told.lock_wait_attempts) == (2, 1, 2)
        assert (told.HasField("bytes_reclaimed"), told.HasField("bytes_grown")) == (True, True)
        assert told.HasField("lock_wait_seconds")
        assert not told.HasField("blocking_seconds")

    def test_every_sum_and_waiter_arrives(self) -> None:
        waiter = LockWaiter(application="a", user="u", object="t", lock_mode="m", seconds=2.5, sessions=3)
        told = totals(
            Totals(
                attempts=1, sized=1, reclaimed=5.0, grown=2.0, blocked=1, blocking_seconds=2.5, waiters=(waiter,)
            )
        )

        [found] = told.lock_waiters
        assert (told.bytes_reclaimed, told.bytes_grown, told.blocking_seconds) == (5.0, 2.0, 2.5)
        assert (found.application, found.user, found.object, found.lock_mode) == ("a", "u", "t", "m")
        assert (found.seconds, found.sessions) == (2.5, 3)

    def test_counts_tell_their_sum(self) -> None:
        counts = jobs.counts(Counts(pending=1, leased=2, running=3, completed=4, failed=5, cancelled=6, skipped=7))

        assert counts.total == 28
        assert counts.skipped == 7

    def test_progress_that_was_not_told_is_left_out(self) -> None:
        told = jobs.child_job(replace(child_job(), progress=Progress(phase="copy", done=0)))
        untold = jobs.child_job(child_job())

        assert (told.progress.phase, told.progress.done, told.progress.HasField("total")) == ("copy", 0, False)
        assert not untold.HasField("progress")


def listing(**fields: Any) -> job_service_pb2.ListParentJobsRequest:
    return job_service_pb2.ListParentJobsRequest(**fields)


class TestPages:
    def token(self, **fields: Any) -> str:
        _, token = pages.read_page(listing(page_size=1, **fields)).cut(["a", "b"], str)
        return token

    def test_the_last_page_has_no_token(self) -> None:
        assert pages.read_page(listing(page_size=2)).cut(["a", "b"], str) == (["a", "b"], "")

    def test_a_token_goes_on_after_the_last_shown(self) -> None:
        page = pages.read_page(listing(page_size=5, page_token=self.token()))

        assert (page.after, page.size, page.probe) == ("a", 5, 6)

    def test_unset_is_a_hundred(self) -> None:
        assert pages.read_page(listing()).size == 100

    @pytest.mark.parametrize("size", [-1, 1_001])
    def test_a_size_out_of_bounds_is_refused(self, size: int) -> None:
        with pytest.raises(InvalidRequestError, match="page_size"):
            pages.read_page(listing(page_size=size))

    @pytest.mark.parametrize("token", ["x", "ä", "bnVsbA==", "WzEsIDJd", "W10=", "e30="])
    def test_what_is_no_token_is_refused(self, token: str) -> None:
        with pytest.raises(InvalidRequestError, match="page_token"):
            pages.read_page(listing(page_token=token))

    def test_a_token_of_other_filters_is_refused(self) -> None:
        with pytest.raises(InvalidRequestError, match="page_token"):
            pages.read_page(listing(page_token=self.token(labels={"a": "1", "b": "2"}), labels={"a": "1"}))

    def test_a_token_of_another_kind_of_list_is_refused(self) -> None:
        with pytest.raises(InvalidRequestError, match="page_token"):
            pages.read_page(fleet_service_pb2.ListWorkersRequest(page_token=self.token()))

    def test_a_cursor_that_is_no_number_is_refused_where_one_is_needed(self) -> None:
        with pytest.raises(InvalidRequestError, match="page_token"):
            pages.read_page(listing(page_token=self.token()), numeric=True)
