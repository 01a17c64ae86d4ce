"""How values of the wire are written: enum words, safe text, times, JSON."""

from datetime import timedelta

import pytest

from manager_service.client import as_json, update_json
from manager_service.client.options import ParentState
from manager_service.client.words import duration, moment, safe, seconds, spoken, word
from overhaul.v1 import fleet_service_pb2, job_pb2, job_service_pb2
from tests.client_doubles import wire


class TestWord:
    def test_every_state_is_as_in_the_glossary(self) -> None:
        parents = [word(job_pb2.ParentJob(state=number), "state") for number in job_pb2.ParentJobState.values()]
        children = [word(job_pb2.ChildJob(state=number), "state") for number in job_pb2.ChildJobState.values()]

        assert parents[1:] == [state.value for state in ParentState]
        assert children[1:] == list(as_json.STATES[1:])
        assert parents[0] is children[0] is None

    def test_verdicts_and_session_states_lose_their_prefix(self) -> None:
        child = job_pb2.ChildJob(verdict=job_pb2.VERDICT_PARTIALLY_EFFECTIVE)
        worker = fleet_service_pb2.Worker(state=fleet_service_pb2.SESSION_STATE_DRAINING)

        assert word(child, "verdict") == "partially_effective"
        assert spoken(child, "verdict") == "partially effective"
        assert word(worker, "state") == "draining"
        assert spoken(job_pb2.ChildJob(), "verdict") == ""

    def test_a_value_of_a_newer_contract_is_named_by_its_number(self) -> None:
        newer = job_pb2.ParentJob.FromString(bytes([4 << 3, 99]))

        assert word(newer, "state") == "unknown_99"

    def test_a_field_that_is_no_enum_is_a_defect(self) -> None:
        with pytest.raises(TypeError, match=r"ParentJob\.name"):
            word(job_pb2.ParentJob(name="x"), "name")


class TestSafe:
    def test_what_steers_a_terminal_is_written_out(self) -> None:
        assert safe("a\x1b[31m\nb\u202ec\x9b") == "a\\x1b[31m\\nb\\u202ec\\x9b"

    def test_names_of_any_script_stay(self) -> None:
        assert safe("Évora 東京 [bold]") == "Évora 東京 [bold]"


class TestTimes:
    def test_unset_is_none(self) -> None:
        assert moment(job_pb2.ParentJob(), "end_time") is None
        assert duration(wire.parent_job()) is None
        assert seconds(None) == ""

    def test_a_clock_that_was_set_back_makes_no_negative_duration(self) -> None:
        assert duration(wire.parent_job(start_time=wire.at(5), end_time=wire.at(1))) == timedelta(0)

    @pytest.mark.parametrize(
        ("span", "text"), [(0.44, "0.4 s"), (59.9, "59.9 s"), (125, "02:05"), (7_384, "2:03:04")]
    )
    def test_spans_in_words(self, span: float, text: str) -> None:
        assert seconds(timedelta(seconds=span)) == text


class TestJson:
    def test_it_is_ascii_on_one_line(self) -> None:
        assert as_json.text({"name": "é\n\u202e"}) == '{"name": "\\u00e9\\n\\u202e"}'

    def test_whole_measures_are_integers(self) -> None:
        measures = as_json.measures({"b": 1e15, "a": 0.25, "c": float("inf")})

        assert measures == {"a": 0.25, "b": 10**15, "c": None}
        assert isinstance(measures["b"], int)

    def test_an_update_of_a_newer_contract_is_passed_on_empty(self) -> None:
        nothing = job_service_pb2.WatchParentJobResponse()
        event = job_service_pb2.WatchParentJobResponse(event=job_service_pb2.JobEvent(sequence=4))

        assert update_json.update(nothing) == {"update": None}
        assert update_json.update(event) == {"update": None, "sequence": 4, "event_time": None}

    def test_a_bulk_change_tells_its_counts(self) -> None:
        line = update_json.update(wire.bulk_event(4, job_pb2.ChildJobCounts(total=3, cancelled=3)))

        assert (line["update"], line["kind"], line["affected"]) == ("bulk", "ended", 3)
        assert line["counts"]["cancelled"] == 3

    def test_a_change_of_the_parent_tells_its_flags(self) -> None:
        line = update_json.update(wire.parent_event(4, wire.parent_job(paused=True)))

        assert (line["update"], line["state"], line["paused"], line["cancel_requested"]) == (
            "parent_job",
            "running",
            True,
            False,
        )
