import asyncio
import json
import time
from statistics import median

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from overhaul.v1 import job_pb2 as job
from overhaul.v1 import lease_service_pb2 as wire
from tests.worker_doubles.lease_server import LeaseServer, Mischief, serving
from tests.worker_doubles.worker_rig import INSTANCE, rig
from worker_service import heartbeat, runner
from worker_service.domain.errors import ManagerUnavailableError, RegistrationRefusedError
from worker_service.worker import Timing


def says_it_drains(server: LeaseServer) -> bool:
    beats = server.calls["Heartbeat"]
    return bool(beats) and beats[-1].state == wire.WORKER_STATE_DRAINING


class TestRegistration:
    async def test_it_says_who_it_is_and_what_it_serves_but_never_where(self) -> None:
        async with rig(LeaseServer(), slots=3) as r:
            [request] = r.server.calls["RegisterWorker"]

        assert (request.worker_name, request.instance_id, request.protocol_version) == ("w1", INSTANCE, 1)
        assert (request.slots, dict(request.labels)) == (3, {"zone": "a"})
        [target] = request.targets
        assert (target.name, target.engine, target.identity) == ("app", "fake", "fake:app")
        assert target.operations[0].locks[0].exclusive
        assert b"s3cret" not in request.SerializeToString()

    async def test_a_manager_that_is_down_is_awaited(self) -> None:
        server = LeaseServer()
        server.mischief["RegisterWorker"].extend([Mischief()] * 4)
        async with rig(server) as r:
            assert r.server.session

        assert "manager unreachable" in r.logs.getvalue()
        assert "manager reached again" in r.logs.getvalue()

    async def test_the_connect_timeout_ends_the_waiting(self) -> None:
        server = LeaseServer()
        server.down = True
        async with rig(server, timing=Timing(connect_timeout=0.2), ready=False) as r:
            with pytest.raises(ManagerUnavailableError):
                await r.ends()

    async def test_a_refusal_ends_the_worker(self) -> None:
        server = LeaseServer()
        refusal = Mischief(code=grpc.StatusCode.FAILED_PRECONDITION, reason="TARGET_IDENTITY_MISMATCH")
        server.mischief["RegisterWorker"].append(refusal)
        async with rig(server, ready=False) as r:
            with pytest.raises(RegistrationRefusedError):
                await r.ends()

    async def test_a_superseded_instance_ends_in_peace(self) -> None:
        server = LeaseServer()
        refusal = Mischief(code=grpc.StatusCode.FAILED_PRECONDITION, reason="SESSION_SUPERSEDED")
        server.mischief["RegisterWorker"].append(refusal)
        async with rig(server, ready=False) as r:
            assert await r.ends()

    async def test_a_signal_before_the_registration_ends_it(self) -> None:
        server = LeaseServer()
        server.down = True
        async with rig(server, ready=False) as r:
            await asyncio.sleep(0.05)
            r.worker.lifecycle.drain()

            assert await r.ends()

    async def test_an_unavailable_target_is_served_later(self) -> None:
        async with rig(LeaseServer(), timing=Timing(recheck=0.05)) as r:
            pass
        server = LeaseServer()
        async with rig(server, timing=Timing(recheck=0.05), ready=False) as r:
            r.engine.unavailable = True
            await server.until(lambda: server.calls["RegisterWorker"])
            r.engine.unavailable = False
            await server.until(lambda: len(server.calls["RegisterWorker"]) == 2)

        first, second = server.calls["RegisterWorker"]
        assert (len(first.targets), len(second.targets)) == (0, 1)
        assert second.instance_id == first.instance_id


class TestPoll:
    async def test_leases_fill_the_slots_and_no_more(self) -> None:
        async with rig(LeaseServer(), slots=3) as r:
            ids = await r.server.offer(*["block"] * 7)
            await r.server.until(lambda: r.engine.running == 3)
            await asyncio.sleep(0.05)
            assert len(r.server.live) == 3
            r.engine.go_on.set()
            await r.server.until(lambda: len(r.server.results) == len(ids))

        assert r.server.most_live == 3
        assert r.engine.most_running == 3
        assert len(r.engine.began) == len(set(r.engine.began)) == 7

    async def test_a_free_slot_never_waits_for_a_poll_window(self) -> None:
        server = LeaseServer(window=60, heartbeat=5)
        async with rig(server, slots=2) as r:
            began = time.monotonic()
            for _ in range(10):
                [lease] = await server.offer("noop")
                await server.until(lambda lease=lease: lease in server.results)
                await server.offer("noop", "noop", "noop")
            await server.until(lambda: len(server.results) == 40)

            assert time.monotonic() - began < 3
            assert len(r.engine.began) == 40

    async def test_a_poll_whose_answer_was_lost_is_replayed(self) -> None:
        server = LeaseServer()
        server.mischief["AcquireLeases"].append(Mischief(after=True))
        await server.offer("noop")
        async with rig(server) as r:
            await server.until(lambda: server.results)

        first, second = server.calls["AcquireLeases"][:2]
        assert first.poll_sequence == second.poll_sequence
        assert r.engine.began == ["child-1"]

    async def test_an_unexpected_cancelled_is_tried_again(self) -> None:
        server = LeaseServer()
        server.mischief["AcquireLeases"].append(Mischief(code=grpc.StatusCode.CANCELLED))
        await server.offer("noop")
        async with rig(server):
            await server.until(lambda: server.results)

    async def test_sequences_rise_over_polls_and_reports(self) -> None:
        server = LeaseServer()
        async with rig(server, slots=1):
            await server.offer(*["noop"] * 20)
            await server.until(lambda: len(server.results) == 20)
            nexts = [r.want_next for r in server.calls["ReportResults"] if r.HasField("want_next")]
            polls = [p.poll_sequence for p in server.calls["AcquireLeases"]]

        assert len(nexts) >= 19
        assert all(one.max_leases == 1 for one in nexts)
        sequences = [*polls, *(one.poll_sequence for one in nexts)]
        assert len(set(sequences)) == len(sequences)

    async def test_an_empty_answer_at_once_is_not_flooded(self) -> None:
        async with rig(LeaseServer(window=0.0)) as r:
            await asyncio.sleep(0.4)

        assert len(r.server.calls["AcquireLeases"]) < 60

    async def test_an_idle_worker_makes_hardly_a_call(self) -> None:
        async with rig(LeaseServer(window=5, heartbeat=5)) as r:
            await r.server.until(lambda: r.server.calls["AcquireLeases"] and r.server.calls["Heartbeat"])
            await asyncio.sleep(0.3)

            assert len(r.server.calls["AcquireLeases"]) == 1
            assert len(r.server.calls["Heartbeat"]) == 1


class TestHeartbeat:
    async def test_a_lease_stays_listed_until_its_report_was_answered(self) -> None:
        server = LeaseServer(heartbeat=0.1)
        server.mischief["ReportResults"].extend([Mischief()] * 12)
        async with rig(server):
            [lease] = await server.offer("noop")
            await server.until(lambda: len(server.calls["ReportResults"]) > 2)
            seen = len(server.calls["Heartbeat"])
            await server.until(lambda: len(server.calls["Heartbeat"]) > seen + 3)
            unanswered = server.calls["Heartbeat"][seen + 1 :]
            assert all([held.lease_id for held in beat.leases] == [lease] for beat in unanswered)
            await server.until(lambda: server.results)
            seen = len(server.calls["Heartbeat"])
            await server.until(lambda: len(server.calls["Heartbeat"]) > seen + 2)

        assert not server.calls["Heartbeat"][-1].leases
        sequences = [beat.sequence for beat in server.calls["Heartbeat"]]
        assert sequences == sorted(set(sequences))

    async def test_a_long_operation_is_soon_listed_so_that_a_cancel_reaches_it(self) -> None:
        server = LeaseServer(heartbeat=60.0)
        async with rig(server) as r:
            [lease] = await server.offer("block")
            await server.until(lambda: r.engine.running)
            began = time.monotonic()
            await server.cancel(lease)
            await server.until(lambda: server.results)

            assert time.monotonic() - began < 10  # the heartbeat's interval is 60 s

    async def test_an_early_answer_makes_a_lease_named_that_was_not_yet(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("worker_service.heartbeat._NO_NEWS_PAUSE", 300.0)
        server = LeaseServer(heartbeat=60.0)
        async with rig(server) as r:
            await server.until(lambda: server.calls["Heartbeat"])
            await server.offer("block")
            await server.until(lambda: r.engine.running)
            before = len(server.calls["Heartbeat"])
            await server.nudge()
            await server.until(lambda: len(server.calls["Heartbeat"]) > before)
            beat = server.calls["Heartbeat"][before]

        assert len(beat.leases) == 1
        assert beat.wait.ToMilliseconds() == 0

    async def test_a_lease_that_comes_in_a_pause_is_named_all_the_same(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(heartbeat, "_NO_NEWS_PAUSE", 600.0)
        server = LeaseServer(heartbeat=60.0, lease=300.0, window=60)
        async with rig(server) as r:
            await server.until(lambda: server.calls["Heartbeat"])
            await server.nudge()  # without any news: the heart pauses
            await asyncio.sleep(0.1)
            await server.offer("block")
            await server.until(lambda: any(beat.leases for beat in server.calls["Heartbeat"]))
            r.engine.go_on.set()
            await server.until(lambda: server.results)

    async def test_short_operations_cost_no_heartbeat(self) -> None:
        server = LeaseServer(heartbeat=3.0, window=60)
        async with rig(server):
            await server.until(lambda: server.calls["Heartbeat"])
            before = len(server.calls["Heartbeat"])
            await server.offer(*["noop"] * 50)
            await server.until(lambda: len(server.results) == 50)

        assert len(server.calls["Heartbeat"]) - before <= 2

    async def test_progress_travels_within_about_a_second(self) -> None:
        server = LeaseServer(heartbeat=4.0)
        async with rig(server):
            await server.offer("progress")
            began = time.monotonic()
            await server.until(
                lambda: any(h.HasField("progress") for b in server.calls["Heartbeat"] for h in b.leases)
            )

            assert time.monotonic() - began < 2.5
        [held] = next(b.leases for b in server.calls["Heartbeat"] if b.leases and b.leases[0].HasField("progress"))
        assert (held.progress.phase, held.progress.done, held.progress.total) == ("copy", 1, 2)

    async def test_a_cancel_interrupts_within_milliseconds(self) -> None:
        delays = []
        server = LeaseServer(heartbeat=2.0)
        async with rig(server, slots=1) as r:
            for _ in range(5):
                r.engine.interrupts.clear()
                [lease] = await server.offer("block")
                await server.until(
                    lambda lease=lease: any(
                        h.lease_id == lease for b in server.calls["Heartbeat"] for h in b.leases
                    )
                )
                await asyncio.sleep(0.01)
                sent = time.monotonic()
                await server.cancel(lease)
                await server.until(lambda lease=lease: lease in server.results)
                delays.append(r.engine.interrupts[0] - sent)
                assert server.results[lease].outcome == job.OUTCOME_CANCELLED
                assert server.results[lease].before["pages"] == 7

        assert median(delays) < 1.0  # the heartbeat's interval is 2 s: the news came in between

    async def test_an_interrupt_is_repeated_and_no_answer_spins_meanwhile(self) -> None:
        server = LeaseServer(heartbeat=2.0)
        async with rig(server, slots=1) as r:
            [lease] = await server.offer("deaf")
            await server.until(lambda: any(b.leases for b in server.calls["Heartbeat"]))
            await server.cancel(lease)
            await server.until(lambda: len(r.engine.interrupts) >= 4)
            beats = len(server.calls["Heartbeat"])
            r.engine.go_on.set()
            await server.until(lambda: server.results)

        assert beats < 12
        assert server.results[lease].outcome == job.OUTCOME_COMPLETED

    async def test_a_lost_lease_is_interrupted_and_not_reported(self) -> None:
        server = LeaseServer(heartbeat=0.2)
        async with rig(server, slots=1) as r:
            [lost] = await server.offer("block")
            await server.until(lambda: r.engine.running)
            await server.lose(lost)
            await server.until(lambda: r.engine.interrupts and not len(r.worker.inventory))
            r.engine.go_on.set()
            [other] = await server.offer("noop")
            await server.until(lambda: other in server.results)

        reported = [result.lease_id for call in server.calls["ReportResults"] for result in call.results]
        assert reported == [other]

    async def test_one_failed_renewal_kills_nothing(self) -> None:
        server = LeaseServer(heartbeat=0.1)
        async with rig(server) as r:
            [lease] = await server.offer("block")
            await server.until(lambda: r.engine.running)
            server.mischief["Heartbeat"].extend([Mischief()] * 2)
            await server.until(lambda: not server.mischief["Heartbeat"])
            r.engine.go_on.set()
            await server.until(lambda: server.results)

        assert server.results[lease].outcome == job.OUTCOME_COMPLETED
        assert not r.engine.interrupts


class TestFence:
    async def test_a_worker_cut_off_waits_between_statements_and_goes_on_when_it_is_back(self) -> None:
        server = LeaseServer(heartbeat=0.1, lease=0.4)
        async with rig(server, slots=1) as r:
            [lease] = await server.offer("steps")
            await server.until(lambda: r.engine.running)
            execution = r.worker.inventory.get(lease)
            assert execution is not None
            server.down = True
            await server.wake()
            await server.until(lambda: time.monotonic() > execution.control.fence)
            r.engine.go_on.set()
            server.down = False
            await server.until(lambda: server.results)

        assert server.results[lease].outcome == job.OUTCOME_COMPLETED

    async def test_a_poll_that_hung_long_is_confirmed_by_a_beat_at_once(self) -> None:
        server = LeaseServer(heartbeat=60.0, lease=0.6, window=60)
        async with rig(server, slots=1) as r:
            await asyncio.sleep(0.5)
            await server.offer("steps")
            began = time.monotonic()
            await server.until(lambda: any(b.leases for b in server.calls["Heartbeat"]))
            took = time.monotonic() - began
            r.engine.go_on.set()
            await server.until(lambda: server.results)

        assert took < 25  # the beat that hangs would have ended later


class TestReports:
    async def test_a_report_whose_answer_was_lost_is_repeated_and_its_leases_arrive(self) -> None:
        server = LeaseServer()
        server.mischief["ReportResults"].append(Mischief(after=True, code=grpc.StatusCode.INTERNAL))
        async with rig(server, slots=1) as r:
            await server.offer("noop", "noop")
            await server.until(lambda: len(server.results) == 2)

        first, second = server.calls["ReportResults"][:2]
        assert first.results[0].report_id == second.results[0].report_id
        assert first.want_next == second.want_next
        assert len(r.engine.began) == 2

    async def test_ends_of_one_moment_share_a_call(self) -> None:
        server = LeaseServer()
        async with rig(server, slots=20) as r:
            await server.offer(*["block"] * 20)
            await server.until(lambda: r.engine.running == 20)
            r.engine.go_on.set()
            await server.until(lambda: len(server.results) == 20)

        assert len(server.calls["ReportResults"]) <= 8

    @pytest.mark.parametrize(
        ("operation", "outcome", "detail"),
        [
            ("boom", job.OUTCOME_FAILED, "INTERNAL"),
            ("exit", job.OUTCOME_FAILED, "INTERNAL"),
            ("nonsense", job.OUTCOME_FAILED, "INVALID_OPERATION"),
            ("nan", job.OUTCOME_FAILED, "REPORT_REFUSED"),
            ("busy", job.OUTCOME_RELEASED, wire.RELEASE_REASON_TARGET_BUSY),
        ],
    )
    async def test_whatever_escapes_is_a_result(self, operation: str, outcome: int, detail: str | int) -> None:
        server = LeaseServer()
        async with rig(server) as r:
            [lease, after] = await server.offer(operation, "noop")
            await server.until(lambda: len(server.results) == 2)

        result = server.results[lease]
        assert result.outcome == outcome
        assert detail in (result.failure.reason, result.released)
        assert server.results[after].outcome == job.OUTCOME_COMPLETED
        assert "s3cret" not in result.failure.message
        assert "s3cret" not in r.logs.getvalue()
        assert not result.failure.retryable

    async def test_an_unknown_target_goes_back(self) -> None:
        server = LeaseServer()
        async with rig(server):
            [lease] = await server.offer("noop", target="elsewhere")
            await server.until(lambda: server.results)

        assert server.results[lease].released == wire.RELEASE_REASON_UNSUITABLE

    async def test_a_timeout_is_enforced_here(self) -> None:
        server = LeaseServer()
        async with rig(server) as r:
            timeout = Duration(nanos=100_000_000)
            [slow] = await server.offer("block", timeout=timeout)
            [late] = await server.offer("late", timeout=timeout)
            await server.until(lambda: len(server.results) == 2)

        failure = server.results[slow].failure
        assert (failure.reason, failure.category, failure.retryable) == (
            "TIMEOUT",
            job.FAILURE_CATEGORY_TIMEOUT,
            False,
        )
        assert server.results[late].outcome == job.OUTCOME_COMPLETED
        assert len(r.engine.interrupts) >= 2

    async def test_a_batch_with_a_bad_report_does_not_drag_others_down(self) -> None:
        server = LeaseServer()
        refusal = Mischief(code=grpc.StatusCode.INVALID_ARGUMENT, reason="INVALID_REQUEST")
        async with rig(server, slots=3) as r:
            server.mischief["ReportResults"].append(refusal)
            await server.offer("block", "block", "block")
            await server.until(lambda: r.engine.running == 3)
            r.engine.go_on.set()
            await server.until(lambda: len(server.results) == 3)

        assert (
            all(one.outcome == job.OUTCOME_COMPLETED for one in server.results.values())
            or len(server.calls["ReportResults"][0].results) == 1
        )

    async def test_a_report_refused_for_good_is_dropped_and_its_slot_is_free(self) -> None:
        server = LeaseServer()
        refusal = Mischief(code=grpc.StatusCode.INVALID_ARGUMENT, reason="INVALID_REQUEST")
        server.mischief["ReportResults"].extend([refusal] * 2)
        async with rig(server, slots=1) as r:
            await server.offer("noop")
            await server.until(lambda: "report dropped" in r.logs.getvalue())
            server.live.clear()
            [after] = await server.offer("noop")
            await server.until(lambda: after in server.results)


class TestSession:
    async def test_an_unknown_session_is_opened_again_and_nothing_is_lost(self) -> None:
        server = LeaseServer(heartbeat=0.1)
        async with rig(server) as r:
            [lease] = await server.offer("block")
            await server.until(lambda: r.engine.running)
            server.session = "forgotten"
            await server.until(lambda: len(server.calls["RegisterWorker"]) == 2)
            r.engine.go_on.set()
            await server.until(lambda: server.results)

        assert {request.instance_id for request in server.calls["RegisterWorker"]} == {INSTANCE}
        assert server.results[lease].outcome == job.OUTCOME_COMPLETED
        assert r.engine.began == ["child-1"]

    async def test_a_superseded_worker_finishes_and_never_registers_again(self) -> None:
        server = LeaseServer(heartbeat=0.1, window=0.2)
        async with rig(server) as r:
            [lease] = await server.offer("block")
            await server.until(lambda: r.engine.running)
            server.superseded = True
            await server.until(lambda: r.worker.lifecycle.ending)
            assert not r.run.done()
            r.engine.go_on.set()
            assert await r.ends()

        assert server.results[lease].outcome == job.OUTCOME_COMPLETED
        assert len(server.calls["RegisterWorker"]) == 1
        assert "superseded" in r.logs.getvalue()

    async def test_a_manager_that_restarts_finds_the_worker_and_its_operations(self) -> None:
        server = LeaseServer(heartbeat=0.2)
        async with rig(server) as r:
            [lease] = await server.offer("block")
            await server.until(lambda: r.engine.running)
            server.down = True
            await server.wake()
            await asyncio.sleep(0.3)
            r.engine.go_on.set()
            await asyncio.sleep(0.2)
            server.down = False
            await server.until(lambda: server.results)

        assert server.results[lease].outcome == job.OUTCOME_COMPLETED

    async def test_a_stopping_worker_does_not_register_again(self) -> None:
        server = LeaseServer(heartbeat=0.1)
        async with rig(server) as r:
            await server.offer("block")
            await server.until(lambda: r.engine.running)
            r.worker.lifecycle.drain()
            server.session = "forgotten"
            await server.wake()
            assert await r.ends()

        assert len(server.calls["RegisterWorker"]) == 1
        assert r.engine.interrupts

    async def test_a_connection_that_breaks_is_made_anew(self) -> None:
        server = LeaseServer(heartbeat=0.2)
        async with rig(server) as r:
            port = int(r.address.rpartition(":")[2])
            assert port
        async with serving(server, port) as address:
            assert address == r.address


class TestDrain:
    async def test_what_runs_finishes_within_the_grace(self) -> None:
        server = LeaseServer()
        async with rig(server) as r:
            [lease] = await server.offer("block")
            await server.until(lambda: r.engine.running)
            r.worker.lifecycle.drain()
            await server.until(lambda: says_it_drains(server))
            await server.offer("noop")
            await asyncio.sleep(0.05)
            r.engine.go_on.set()
            assert await r.ends()

        assert server.results[lease].outcome == job.OUTCOME_COMPLETED
        assert r.engine.began == ["child-1"]
        assert len(server.calls["DeregisterWorker"]) == 1

    async def test_what_outlives_the_grace_goes_back(self) -> None:
        server = LeaseServer()
        async with rig(server, timing=Timing(drain_grace=0.1)) as r:
            [lease] = await server.offer("block")
            await server.until(lambda: r.engine.running)
            r.worker.lifecycle.drain()
            assert await r.ends()

        assert server.results[lease].released == wire.RELEASE_REASON_DRAIN
        assert server.results[lease].outcome == job.OUTCOME_RELEASED

    async def test_the_second_signal_releases_now(self) -> None:
        server = LeaseServer()
        async with rig(server, timing=Timing(drain_grace=60)) as r:
            [lease] = await server.offer("block")
            await server.until(lambda: r.engine.running)
            r.worker.lifecycle.drain()
            await asyncio.sleep(0.05)
            assert not r.run.done()
            r.worker.lifecycle.release()
            assert await r.ends()

        assert server.results[lease].released == wire.RELEASE_REASON_DRAIN

    async def test_an_operation_that_cannot_be_stopped_is_handed_back_all_the_same(self) -> None:
        server = LeaseServer()
        async with rig(server, timing=Timing(drain_grace=0, stop_patience=0.2)) as r:
            [lease] = await server.offer("deaf")
            await server.until(lambda: r.engine.running)
            r.worker.lifecycle.drain()
            assert await r.ends()
            assert r.worker.stuck
            r.engine.go_on.set()

        assert server.results[lease].released == wire.RELEASE_REASON_DRAIN

    async def test_reports_that_cannot_be_delivered_are_told(self) -> None:
        server = LeaseServer()
        async with rig(server, timing=Timing(drain_grace=0.1, stop_patience=0.2, report_patience=0.2)) as r:
            await server.offer("block")
            await server.until(lambda: r.engine.running)
            server.down = True
            r.worker.lifecycle.drain()

            assert not await r.ends()

    async def test_the_directive_drain_pauses_and_none_resumes(self) -> None:
        server = LeaseServer(heartbeat=0.2)
        async with rig(server) as r:
            await server.direct(wire.WORKER_DIRECTIVE_DRAIN)
            await server.until(lambda: says_it_drains(server))
            await server.offer("noop")
            await asyncio.sleep(0.1)
            assert not r.engine.began
            assert not r.run.done()
            await server.direct(wire.WORKER_DIRECTIVE_NONE)
            await server.until(lambda: server.results)

    async def test_the_directive_terminate_ends_it_when_idle(self) -> None:
        server = LeaseServer()
        async with rig(server) as r:
            [lease] = await server.offer("block")
            await server.until(lambda: r.engine.running)
            await server.direct(wire.WORKER_DIRECTIVE_TERMINATE)
            await server.until(lambda: r.worker.lifecycle.ending)
            r.engine.go_on.set()
            assert await r.ends()

        assert server.results[lease].outcome == job.OUTCOME_COMPLETED


class TestLogs:
    async def test_all_lines_are_stored_before_the_report(self) -> None:
        server = LeaseServer()
        server.mischief["AppendLogs"].append(Mischief(after=True))
        stored: list[int] = []
        original = server._record

        def record(result: wire.OperationResult) -> wire.ReportVerdict:
            stored.append(len(server.logs[result.lease_id]))
            return original(result)

        server._record = record  # type: ignore[method-assign]  # a spy
        async with rig(server):
            [lease] = await server.offer("log")
            await server.until(lambda: server.results)

        assert stored[0] == 3
        assert server.logs[lease] == [f"line {number} of ***" for number in range(3)]

    async def test_an_operation_that_logs_nothing_costs_no_call(self) -> None:
        server = LeaseServer()
        async with rig(server):
            await server.offer("noop")
            await server.until(lambda: server.results)

        assert not server.calls["AppendLogs"]

    async def test_lines_of_a_running_operation_are_sent(self) -> None:
        server = LeaseServer()
        async with rig(server) as r:
            [lease] = await server.offer("block")
            await server.until(lambda: r.engine.running)
            execution = r.worker.inventory.get(lease)
            assert execution is not None
            execution.control.log("warning", "still here")
            await server.until(lambda: server.logs[lease] == ["still here"])

    async def test_a_gap_is_closed_where_the_manager_says(self) -> None:
        server = LeaseServer()
        gap = Mischief(code=grpc.StatusCode.FAILED_PRECONDITION, reason="LOG_GAP", metadata={"next_offset": "0"})
        server.mischief["AppendLogs"].append(gap)
        async with rig(server):
            [lease] = await server.offer("log")
            await server.until(lambda: server.results)

        assert server.logs[lease][1:] == [f"line {number} of ***" for number in range(3)]

    @pytest.mark.parametrize("refused", [True, False])
    async def test_lines_that_nobody_takes_do_not_hold_the_report_up(self, refused: bool) -> None:
        server = LeaseServer()
        if refused:
            server.mischief["AppendLogs"].append(Mischief(code=grpc.StatusCode.INVALID_ARGUMENT))
        else:
            server.gone.add("lease-1")
        async with rig(server):
            [lease] = await server.offer("log")
            await server.until(lambda: lease in server.results)

    async def test_the_end_of_every_operation_is_told_and_that_long_ones_run(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(runner, "TOLD_AFTER", 0.05)
        server = LeaseServer()
        async with rig(server) as r:
            await server.offer("block")
            await server.until(lambda: "operation runs" in r.logs.getvalue())
            r.engine.go_on.set()
            await server.until(lambda: server.results)
            await server.offer("noop")
            await server.until(lambda: len(server.results) == 2)
            await asyncio.sleep(0.1)

        about = [json.loads(line) for line in r.logs.getvalue().splitlines() if "child-" in line]
        told = [(line["event"], line["child_job_id"]) for line in about]
        assert told == [
            ("operation runs", "child-1"),
            ("operation ended", "child-1"),
            ("operation ended", "child-2"),
        ]
        assert about[1]["seconds"] >= about[0]["seconds"] >= 0.05
        assert about[2]["seconds"] >= 0

    async def test_a_failure_is_a_warning_and_its_text_is_there_once(self) -> None:
        server = LeaseServer()
        async with rig(server) as r:
            await server.offer("boom")
            await server.until(lambda: server.results)
            await server.until(lambda: "operation ended" in r.logs.getvalue())

        [line] = [json.loads(one) for one in r.logs.getvalue().splitlines() if "operation ended" in one]
        assert (line["level"], line["outcome"]) == ("warning", "failed")
        assert line["failure"]
        assert line["message"]
        assert "reason" not in line

    async def test_every_line_about_a_job_carries_its_ids(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(runner, "TOLD_AFTER", 0.0)
        server = LeaseServer()
        async with rig(server) as r:
            await server.offer("block")
            await server.until(lambda: "operation runs" in r.logs.getvalue())
            r.engine.go_on.set()
            await server.until(lambda: server.results)

        about = [json.loads(line) for line in r.logs.getvalue().splitlines() if "child-1" in line]
        assert len(about) >= 2
        keys = ("parent_job_id", "child_job_id", "attempt", "lease_id", "target", "operation")
        assert {tuple(line[key] for key in keys) for line in about} == {
            ("parent-1", "child-1", 1, "lease-1", "app", "block")
        }


class TestThroughput:
    async def test_batches_keep_the_calls_few(self) -> None:
        server = LeaseServer(window=60, heartbeat=5)
        async with rig(server, slots=10) as r:
            await server.offer(*["noop"] * 500)
            await server.until(lambda: len(server.results) == 500)

        assert server.most_live <= 10
        assert r.engine.most_running <= 10
        assert len(server.calls["ReportResults"]) + len(server.calls["AcquireLeases"]) < 400


class TestRenewal:
    async def test_a_refused_or_failed_registration_is_tried_again_while_operations_run(self) -> None:
        server = LeaseServer(heartbeat=0.1)
        async with rig(server) as r:
            [lease] = await server.offer("block")
            await server.until(lambda: r.engine.running)
            refusal = Mischief(code=grpc.StatusCode.FAILED_PRECONDITION, reason="TARGET_IDENTITY_MISMATCH")
            server.mischief["RegisterWorker"].extend([refusal, Mischief(code=grpc.StatusCode.UNKNOWN)])
            server.session = "forgotten"
            await server.until(lambda: len(server.calls["RegisterWorker"]) >= 4)
            r.engine.go_on.set()
            await server.until(lambda: server.results)

        assert server.results[lease].outcome == job.OUTCOME_COMPLETED
        assert "registration failed" in r.logs.getvalue()

    async def test_superseded_while_it_was_forgotten_it_loses_what_it_held_and_ends(self) -> None:
        server = LeaseServer(heartbeat=0.1)
        async with rig(server) as r:
            await server.offer("block")
            await server.until(lambda: r.engine.running)
            refusal = Mischief(code=grpc.StatusCode.FAILED_PRECONDITION, reason="SESSION_SUPERSEDED")
            server.mischief["RegisterWorker"].append(refusal)
            server.session = "forgotten"

            assert await r.ends()
        assert r.engine.interrupts
        assert len(server.calls["RegisterWorker"]) == 2
