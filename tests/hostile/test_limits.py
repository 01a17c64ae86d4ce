"""One more than is allowed, nothing where something has to be, and numbers from beyond every bound."""

import base64
import json
import uuid
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from overhaul.v1 import fleet_service_pb2 as fleet
from overhaul.v1 import job_pb2 as job
from overhaul.v1 import job_service_pb2 as jobs
from overhaul.v1 import lease_service_pb2 as leases
from tests.hostile.wire import BY_NAME, Wire, assert_clean, assert_refused

MEGABYTE = "n" * 1_000_000
CONTROL = ("a\x00b", "\x1b[2J", "two\nlines", "\u202ereversed", "\x7f")
HUGE = 2**63 - 1
SPANS = (
    Duration(seconds=-1),
    Duration(nanos=-1),
    Duration(seconds=HUGE, nanos=2**31 - 1),
    Duration(seconds=-HUGE),
)
NOBODY = str(uuid.UUID(int=0))
MAX_MESSAGE_BYTES = 32 * 1024 * 1024


def operations(*names: str) -> list[job.OperationSpec]:
    return [job.OperationSpec(name=name) for name in names]


def create(**fields: Any) -> jobs.CreateParentJobRequest:
    defaults: dict[str, Any] = {
        "targets": ["app"],
        "operations": operations("vacuum"),
        "allow_unknown_targets": True,
        "dry_run": True,
    }
    return jobs.CreateParentJobRequest(**(defaults | fields))


def register(**fields: Any) -> leases.RegisterWorkerRequest:
    defaults: dict[str, Any] = {
        "worker_name": "w",
        "instance_id": str(uuid.uuid4()),
        "protocol_version": 1,
        "slots": 1,
        "targets": [leases.ServedTarget(name="served", engine="sqlite", identity="i")],
    }
    return leases.RegisterWorkerRequest(**(defaults | fields))


def report(**fields: Any) -> leases.OperationResult:
    defaults: dict[str, Any] = {
        "child_job_id": NOBODY,
        "lease_id": NOBODY,
        "attempt": 1,
        "report_id": NOBODY,
        "outcome": job.OUTCOME_COMPLETED,
        "verdict": job.VERDICT_EFFECTIVE,
    }
    return leases.OperationResult(**(defaults | fields))


def offering(**fields: Any) -> leases.ServedTarget:
    offer = leases.OfferedOperation(**({"name": "vacuum"} | fields))
    return leases.ServedTarget(name="served", engine="sqlite", identity="i", operations=[offer])


class TestOneMore:
    def test_than_the_targets_of_a_parent_job_is_refused(self, wire: Wire) -> None:
        targets = [f"t{number}" for number in range(50_001)]

        assert_refused(wire.say(create(targets=targets)), "INVALID_REQUEST", "targets")

    def test_than_the_children_of_a_parent_job_is_refused(self, wire: Wire) -> None:
        request = create(
            targets=[f"t{number}" for number in range(9_901)],
            operations=operations(*(f"o{number}" for number in range(101))),
            dry_run=False,
        )

        assert_refused(wire.say(request), "INVALID_REQUEST", "operations")

    def test_than_a_message_may_have_bytes_is_refused_by_grpc(self, wire: Wire) -> None:
        refusal = wire.send(BY_NAME["GetParentJob"], b"x" * (MAX_MESSAGE_BYTES + 1))

        assert refusal is not None
        assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "larger than max" in refusal.message

    def test_a_message_as_large_as_allowed_is_read(self, wire: Wire) -> None:
        request = create(name="n" * (MAX_MESSAGE_BYTES - 1_000))

        assert_refused(wire.say(request), "INVALID_REQUEST", "name")

    @pytest.mark.parametrize(
        ("request_", "field"),
        [
            (create(operations=operations(*(f"o{number}" for number in range(1_001)))), "operations"),
            (create(labels={f"k{number}": "v" for number in range(65)}), "labels"),
            (create(priority=101), "priority"),
            (create(priority=-101), "priority"),
            (create(max_parallel=-1), "max_parallel"),
            (create(max_parallel=2**31 - 1), "max_parallel"),
            (create(retry_policy=job.RetryPolicy(max_failures=0)), "retry_policy.max_failures"),
            (create(retry_policy=job.RetryPolicy(max_losses=101)), "retry_policy.max_losses"),
            (
                create(retry_policy=job.RetryPolicy(backoff_multiplier=float("nan"))),
                "retry_policy.backoff_multiplier",
            ),
            (
                create(retry_policy=job.RetryPolicy(backoff_multiplier=float("inf"))),
                "retry_policy.backoff_multiplier",
            ),
            (
                create(failure_policy=job.FailurePolicy(max_failed_children=-1)),
                "failure_policy.max_failed_children",
            ),
            (register(slots=1_001), "slots"),
            (register(slots=0), "slots"),
            (register(slots=-1), "slots"),
            (
                register(
                    targets=[
                        leases.ServedTarget(name=f"t{number}", engine="e", identity="i")
                        for number in range(10_001)
                    ]
                ),
                "targets",
            ),
            (register(targets=[offering(locks=[leases.Lock(key="k")] * 17)]), "targets[0].operations[0].locks"),
            (leases.ReportResultsRequest(results=[report()] * 1_001), "results"),
            (
                leases.ReportResultsRequest(results=[report(before={f"m{n}": 1.0 for n in range(65)})]),
                "results[0].before",
            ),
            (
                leases.HeartbeatRequest(sequence=1, leases=[leases.HeldLease(lease_id="l", attempt=1)] * 1_001),
                "leases",
            ),
            (
                leases.AppendLogsRequest(
                    child_job_id=NOBODY, lease_id=NOBODY, attempt=1, entries=[job.LogEntry(level="info")] * 1_001
                ),
                "entries",
            ),
            (leases.AcquireLeasesRequest(poll_sequence=1, max_leases=1_001), "max_leases"),
            (jobs.ListParentJobsRequest(page_size=1_001), "page_size"),
            (jobs.ListChildJobsRequest(parent_job_id=NOBODY, page_size=-1), "page_size"),
            (fleet.ListWorkersRequest(page_size=2**31 - 1), "page_size"),
            (fleet.ListTargetsRequest(page_size=-(2**31)), "page_size"),
        ],
        ids=lambda value: value if isinstance(value, str) else type(value).__name__,
    )
    def test_is_refused_by_its_field(self, wire: Wire, request_: Any, field: str) -> None:
        assert_refused(wire.say(request_), "INVALID_REQUEST", field)


class TestEmptyAndRepeated:
    @pytest.mark.parametrize(
        ("request_", "field"),
        [
            (create(operations=operations("")), "operations[0].name"),
            (create(operations=operations(" \t")), "operations[0].name"),
            (create(operations=operations("vacuum", "vacuum")), "operations[1].name"),
            (create(targets=[]), "targets"),
            (create(targets=[""]), "targets[0]"),
            (create(targets=["a", "b", "a"]), "targets[2]"),
            (create(target_labels={"a": "b"}), "target_labels"),
            (create(targets=[], target_labels={"no": "such"}), "target_labels"),
            (create(request_id=""), "request_id"),
            (create(labels={"": "value"}), "labels[]"),
            (register(worker_name=""), "worker_name"),
            (register(instance_id=""), "instance_id"),
            (register(targets=[offering(), offering()]), "targets[1].name"),
            (leases.HeartbeatRequest(sequence=0), "sequence"),
            (
                leases.HeartbeatRequest(sequence=1, leases=[leases.HeldLease(lease_id="l", attempt=1)] * 2),
                "leases[1].lease_id",
            ),
            (leases.AcquireLeasesRequest(max_leases=1), "poll_sequence"),
            (leases.ReportResultsRequest(results=[leases.OperationResult()]), "results[0].outcome"),
        ],
        ids=lambda value: value if isinstance(value, str) else type(value).__name__,
    )
    def test_is_refused_by_its_field(self, wire: Wire, request_: Any, field: str) -> None:
        assert_refused(wire.say(request_), "INVALID_REQUEST", field)


class TestSpansAndTimes:
    @pytest.mark.parametrize("span", SPANS, ids=lambda span: f"{span.seconds}s{span.nanos}")
    def test_negative_and_huge_ones_are_refused(self, wire: Wire, span: Duration) -> None:
        retry = job.RetryPolicy(initial_backoff=span, max_backoff=span)

        assert_refused(wire.say(create(timeout=span)), "INVALID_REQUEST", "timeout")
        assert_refused(wire.say(create(retry_policy=retry)), "INVALID_REQUEST", "retry_policy.initial_backoff")
        assert_refused(
            wire.say(leases.AcquireLeasesRequest(poll_sequence=1, max_leases=1, wait=span)),
            "INVALID_REQUEST",
            "wait",
        )
        assert_refused(wire.say(leases.HeartbeatRequest(sequence=1, wait=span)), "INVALID_REQUEST", "wait")
        released = report(
            outcome=job.OUTCOME_RELEASED, verdict=None, released=leases.RELEASE_REASON_DRAIN, retry_after=span
        )
        assert_refused(
            wire.say(leases.ReportResultsRequest(results=[released])), "INVALID_REQUEST", "results[0].retry_after"
        )

    @pytest.mark.parametrize("seconds", [-HUGE, -1, 0, 253_402_300_800, HUGE])
    def test_deadlines_beyond_time_are_refused(self, wire: Wire, seconds: int) -> None:
        assert_refused(wire.say(create(deadline=Timestamp(seconds=seconds))), "INVALID_REQUEST", "deadline")

    @pytest.mark.parametrize("seconds", [-HUGE, -1, 253_402_300_800, HUGE])
    def test_log_times_beyond_time_are_refused(self, wire: Wire, seconds: int) -> None:
        entry = job.LogEntry(level="info", message="m", time=Timestamp(seconds=seconds))
        request = leases.AppendLogsRequest(child_job_id=NOBODY, lease_id=NOBODY, attempt=1, entries=[entry])

        assert_refused(wire.say(request), "INVALID_REQUEST", "entries[0].time")

    @pytest.mark.parametrize("sequence", [-1, -HUGE])
    def test_negative_sequences_are_refused(self, wire: Wire, sequence: int) -> None:
        watch = jobs.WatchParentJobRequest(parent_job_id=NOBODY, after_sequence=sequence)
        poll = leases.AcquireLeasesRequest(poll_sequence=sequence, max_leases=1)

        assert_refused(wire.say(watch), "INVALID_REQUEST", "after_sequence")
        assert_refused(wire.say(poll), "INVALID_REQUEST", "poll_sequence")


class TestTexts:
    @pytest.mark.parametrize("text", [MEGABYTE, *CONTROL], ids=["megabyte", *map(repr, CONTROL)])
    def test_too_long_or_unprintable_they_are_refused(self, wire: Wire, text: str) -> None:
        wrong = [
            (create(name=text), "name"),
            (create(request_id=text), "request_id"),
            (create(targets=[text]), "targets[0]"),
            (create(operations=operations(text)), "operations[0].name"),
            (create(labels={"key": text}), "labels[key]"),
            (register(worker_name=text), "worker_name"),
            (register(host=text), "host"),
            (register(targets=[leases.ServedTarget(name=text, engine="e", identity="i")]), "targets[0].name"),
            (register(targets=[offering(locks=[leases.Lock(key=text)])]), "targets[0].operations[0].locks[0].key"),
            (leases.ReportResultsRequest(results=[report(lease_id=text)]), "results[0].lease_id"),
            (
                leases.ReportResultsRequest(
                    results=[report(outcome=job.OUTCOME_FAILED, verdict=None, failure=job.Failure(reason=text))]
                ),
                "results[0].failure.reason",
            ),
        ]

        for request, field in wrong:
            assert_refused(wire.say(request), "INVALID_REQUEST", field)

    @pytest.mark.parametrize("text", [MEGABYTE, *CONTROL], ids=["megabyte", *map(repr, CONTROL)])
    def test_as_names_of_what_is_sought_they_name_nothing(self, wire: Wire, text: str) -> None:
        assert_refused(wire.say(jobs.GetParentJobRequest(parent_job_id=text)), "PARENT_JOB_NOT_FOUND")
        assert_refused(wire.say(jobs.GetChildJobRequest(child_job_id=text)), "CHILD_JOB_NOT_FOUND")
        assert_refused(wire.say(fleet.DrainWorkerRequest(worker_name=text)), "WORKER_NOT_FOUND")
        assert_refused(wire.say(fleet.PauseTargetRequest(target=text)), "TARGET_UNKNOWN")
        assert_refused(
            wire.say(leases.AcquireLeasesRequest(session_id=text, poll_sequence=1, max_leases=1)),
            "SESSION_UNKNOWN",
        )
        assert_refused(wire.say(leases.HeartbeatRequest(session_id=text, sequence=1)), "SESSION_UNKNOWN")
        assert wire.say(leases.DeregisterWorkerRequest(session_id=text)) is None
        assert wire.say(jobs.ListParentJobsRequest(target=text)) is None

    def test_for_people_they_have_an_end_too(self, wire: Wire) -> None:
        failed = report(outcome=job.OUTCOME_FAILED, verdict=None, failure=job.Failure(message=MEGABYTE))
        option = leases.OptionSpec(name="full", type=leases.OPTION_TYPE_BOOLEAN, description=MEGABYTE)
        wrong = [
            (leases.ReportResultsRequest(results=[report(reason=MEGABYTE)]), "results[0].reason"),
            (leases.ReportResultsRequest(results=[failed]), "results[0].failure.message"),
            (register(targets=[offering(description=MEGABYTE)]), "targets[0].operations[0].description"),
            (register(targets=[offering(options=[option])]), "targets[0].operations[0].options[0].description"),
        ]

        for request, field in wrong:
            assert_refused(wire.say(request), "INVALID_REQUEST", field)


def token(value: object) -> str:
    """Pack as a page token what a caller would like it to say."""
    text = value if isinstance(value, str) else json.dumps(value)
    return base64.urlsafe_b64encode(text.encode()).decode()


class TestPageTokens:
    @pytest.fixture
    def of_list(self, wire: Wire) -> tuple[jobs.ListChildJobsRequest, str]:
        """Make a parent job; return how its children are listed, and the digest of that list."""
        made = wire.answer(create(dry_run=False, operations=operations("vacuum", "analyze")))
        parent = jobs.CreateParentJobResponse.FromString(made).parent_job.id
        request = jobs.ListChildJobsRequest(parent_job_id=parent, page_size=1)
        first = jobs.ListChildJobsResponse.FromString(wire.answer(request)).next_page_token
        _, digest = json.loads(base64.urlsafe_b64decode(first))
        return request, digest

    @pytest.mark.parametrize(
        "bad",
        [
            "x",
            "é",
            "====",
            "\x00",
            "A" * 1_000_000,
            token("["),
            token("[" * 100_000),
            token("9" * 5_000),
            token({}),
            token([]),
            token([1, 2]),
            token(["1"]),
        ],
        ids=lambda bad: bad[:12],
    )
    def test_what_is_none_is_refused(self, wire: Wire, bad: str) -> None:
        for request in (
            jobs.ListParentJobsRequest(page_token=bad),
            jobs.ListChildJobsRequest(parent_job_id=NOBODY, page_token=bad),
            fleet.ListWorkersRequest(page_token=bad),
            fleet.ListTargetsRequest(page_token=bad),
        ):
            assert_refused(wire.say(request), "INVALID_REQUEST", "page_token")

    @pytest.mark.parametrize(
        "after", ["-1", "1.5", "9" * 30, "9" * 5_000, "\ud800", "\x00", "٣", "1e3", None, 1, []]
    )
    def test_one_that_was_altered_is_refused(
        self, wire: Wire, of_list: tuple[jobs.ListChildJobsRequest, str], after: object
    ) -> None:
        request, digest = of_list
        request.page_token = token([after, digest])

        assert_refused(wire.say(request), "INVALID_REQUEST", "page_token")

    def test_one_of_another_list_is_refused(
        self, wire: Wire, of_list: tuple[jobs.ListChildJobsRequest, str]
    ) -> None:
        request, digest = of_list
        request.operation = "vacuum"
        request.page_token = token(["0", digest])

        assert_refused(wire.say(request), "INVALID_REQUEST", "page_token")

    def test_half_a_surrogate_pair_names_no_parent_job(self, wire: Wire) -> None:
        wire.answer(create(dry_run=False))
        wire.answer(create(dry_run=False))
        answer = wire.answer(jobs.ListParentJobsRequest(page_size=1))
        first = jobs.ListParentJobsResponse.FromString(answer).next_page_token
        _, digest = json.loads(base64.urlsafe_b64decode(first))
        request = jobs.ListParentJobsRequest(page_size=1, page_token=token(["\ud800", digest]))

        assert_refused(wire.say(request), "INVALID_REQUEST", "page_token")


class TestNumbers:
    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    def test_measures_that_are_none_are_refused(self, wire: Wire, value: float) -> None:
        request = leases.ReportResultsRequest(results=[report(before={"bytes": value})])

        assert_refused(wire.say(request), "INVALID_REQUEST", "results[0].before[bytes]")

    def test_enums_from_elsewhere_are_refused(self, wire: Wire) -> None:
        unknown: Any = 99
        assert_refused(wire.say(create(scope=unknown)), "INVALID_REQUEST", "scope")
        assert_refused(wire.say(jobs.ListParentJobsRequest(states=[unknown])), "INVALID_REQUEST", "states")
        assert_refused(
            wire.say(leases.ReportResultsRequest(results=[report(outcome=unknown)])),
            "INVALID_REQUEST",
            "results[0].outcome",
        )
        assert_clean(wire.say(leases.HeartbeatRequest(sequence=1, state=unknown)))
