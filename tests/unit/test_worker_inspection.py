import math

import pytest

from manager_service.leasing.checks import MAX_REASON
from overhaul.v1 import job_pb2
from overhaul.v1 import lease_service_pb2 as wire
from worker_service.domain.inspection import (
    Coverage,
    InspectedObject,
    InspectionResult,
    Scope,
    Selection,
    Threshold,
)
from worker_service.domain.lock import Lock
from worker_service.manager_client import inspections
from worker_service.manager_client.channel import MESSAGE_BYTES


def told(*previews: str) -> list[str]:
    """Return the previews of an object as they are sent."""
    item = InspectedObject(operations=("vacuum", "analyze")[: len(previews)], previews=previews)
    [message] = inspections.inspection_result(InspectionResult(objects=(item,))).objects
    return list(message.previews)


class TestSelection:
    @pytest.mark.parametrize(
        ("include", "exclude", "taken"),
        [
            ((), (), True),
            (("public.*",), (), True),
            (("orders",), (), True),
            (("ord[a-f]rs",), (), True),
            (("PUBLIC.*",), (), False),
            (("order",), (), False),
            (("audit.*", "public.o*"), (), True),
            ((), ("orders",), False),
            (("orders",), ("public.*",), False),
        ],
    )
    def test_a_pattern_fits_the_whole_name_or_the_one_without_its_schema(
        self, include: tuple[str, ...], exclude: tuple[str, ...], taken: bool
    ) -> None:
        assert Selection(include=include, exclude=exclude).takes("public.orders", "orders") is taken


class TestWire:
    def test_what_is_looked_for_is_read(self) -> None:
        message = wire.Inspection(
            scope=job_pb2.SCOPE_INDEX,
            operations=[job_pb2.OperationSpec(name="vacuum", options={"freeze": "true"})],
            selection=job_pb2.Selection(include=["a*"], exclude=["b*"]),
            preview=True,
        )

        found = inspections.inspection(message)

        assert found.scope is Scope.INDEX
        assert [(wanted.name, wanted.options) for wanted in found.operations] == [("vacuum", {"freeze": "true"})]
        assert found.selection == Selection(include=("a*",), exclude=("b*",))
        assert found.preview

    def test_a_scope_of_a_newer_manager_is_the_database(self) -> None:
        message = wire.Inspection()
        message.ParseFromString(b"\x08\x63")

        assert inspections.inspection(message).scope is Scope.DATABASE

    def test_names_are_told_once_and_a_measure_that_is_not_known_is_not_a_number(self) -> None:
        found = InspectionResult(
            locks=(Lock(key="database", exclusive=False),),
            measures=("pages", "age"),
            only_if=(Threshold(condition="age > 1", operation="vacuum", object="public.*"),),
            objects=(
                InspectedObject(
                    object="public.a",
                    operations=("vacuum", "analyze"),
                    size_bytes=8192,
                    measures={"dead_rows": 3},
                    locks=(Lock(key="a"),),
                    previews=("VACUUM a", "ANALYZE a"),
                ),
                InspectedObject(operations=("analyze",), measures={"pages": 1}, left_out="it is a view"),
            ),
        )

        message = inspections.inspection_result(found)

        first, second = message.objects
        assert list(message.only_if) == [
            job_pb2.Threshold(condition="age > 1", operation="vacuum", object="public.*")
        ]
        assert list(message.operations) == ["vacuum", "analyze"]
        assert list(message.measures) == ["dead_rows", "pages", "age"]
        assert [(lock.key, lock.exclusive) for lock in message.locks] == [("database", False)]
        assert (first.object, list(first.operations), first.size_bytes) == ("public.a", [0, 1], 8192)
        assert first.measures[0] == 3
        assert math.isnan(first.measures[1])
        assert [(lock.key, lock.exclusive) for lock in first.locks] == [("a", True)]
        assert list(first.previews) == ["VACUUM a", "ANALYZE a"]
        assert not second.HasField("object")
        assert (list(second.operations), second.left_out) == ([1], "it is a view")

    @pytest.mark.parametrize("tables", [40, 150])
    def test_a_long_list_of_statements_is_cut_between_two_of_them(self, tables: int) -> None:
        statements = [f"OPTIMIZE TABLE `shop`.`{number:063}` -- nobody waits" for number in range(tables)]
        text = "\n".join([*statements, "-- and 7 statements more"])

        [preview] = told(text)

        *head, note, last = preview.splitlines()
        left_out = statements[len(head) :]
        assert len(preview) <= MAX_REASON
        assert len(head) > 20
        assert head == statements[: len(head)]
        assert note == f"-- lines not shown: {len(left_out)}, of {sum(map(len, left_out)):,} characters"
        assert last == "-- and 7 statements more"

    @pytest.mark.parametrize("statement", ["s" * 20, "s" * 5_000])
    def test_a_long_line_is_cut_at_a_statements_end_where_there_is_one(self, statement: str) -> None:
        text = "; ".join([statement] * 500)

        [preview] = told(text)

        head, note, *rest = preview.splitlines()
        assert len(preview) <= MAX_REASON
        assert text.startswith(head)
        assert len(head) > 3_500
        assert head.endswith(statement) == (len(statement) < 100)
        assert text.endswith("".join(rest))
        assert bool(rest) == (len(statement) < 100)
        assert note == f"-- not shown: {len(text) - len(head) - len(''.join(rest)):,} characters"

    def test_what_stands_behind_the_statements_is_kept(self) -> None:
        end = "SHARE UPDATE EXCLUSIVE: keeps out other maintenance; needs about 12.3 MB of disk meanwhile"
        text = "; ".join([*["REINDEX INDEX CONCURRENTLY public.some_index"] * 200, end])

        [preview] = told(text)

        head, note, rest = preview.splitlines()
        assert len(preview) <= MAX_REASON
        assert text.startswith(head)
        assert text.endswith(rest)
        assert rest.endswith(end)
        assert note == f"-- not shown: {len(text) - len(head) - len(rest):,} characters"

    def test_what_fits_is_told_as_it_is(self) -> None:
        text = "s" * inspections.TEXT_CHARACTERS

        assert told(text, "VACUUM a") == [text, "VACUUM a"]

    def test_a_long_reason_to_leave_something_out_is_cut_too(self) -> None:
        item = InspectedObject(object="a", operations=("vacuum",), left_out="because " * 1_000)

        [message] = inspections.inspection_result(InspectionResult(objects=(item,))).objects

        assert len(message.left_out) <= MAX_REASON
        assert message.left_out.startswith("because because")

    def test_what_covers_what_is_told_once(self) -> None:
        covered = (Coverage(operation="reindex", by="vacuum", reason="it rebuilds the table"),)
        both = ("vacuum", "reindex")
        found = InspectionResult(
            objects=(
                InspectedObject(object="a", operations=both, covered=covered),
                InspectedObject(object="b", operations=both),
                InspectedObject(object="c", operations=both, covered=covered),
            )
        )

        message = inspections.inspection_result(found)

        assert list(message.coverages) == [wire.Coverage(operation=1, by=0, reason="it rebuilds the table")]
        assert [list(item.covered) for item in message.objects] == [[0], [], [0]]

    def test_a_coverage_of_what_is_not_wanted_of_the_object_is_left_out(self) -> None:
        covered = (Coverage(operation="reindex", by="vacuum", reason="it rebuilds the table"),)
        item = InspectedObject(object="a", operations=("reindex",), covered=covered)

        message = inspections.inspection_result(InspectionResult(objects=(item,)))

        assert list(message.coverages) == []
        assert list(message.objects[0].covered) == []

    def test_the_statements_of_a_dry_run_are_told_as_far_as_there_is_room(self) -> None:
        operations = ("vacuum", "analyze", "reindex")
        statement = "s" * 300
        found = InspectionResult(
            objects=tuple(
                InspectedObject(
                    object=f"a_schema_of_a_long_name.a_table_of_quite_a_long_name_{number:05}",
                    operations=operations,
                    measures={f"a_measure_{measure}": 1.5 for measure in range(16)},
                    locks=(Lock(key="a_key_of_a_table_of_a_server_" * 2),),
                    previews=(statement,) * len(operations),
                )
                for number in range(50_000)
            )
        )

        message = inspections.inspection_result(found)

        told = [list(item.previews) for item in message.objects]
        shown = sum(texts == [statement] * 3 for texts in told)
        assert shown == inspections.PREVIEW_BYTES // 900
        assert told[:shown] == [[statement] * 3] * shown
        assert told[shown:] == [["not shown: too many objects"] * 3] * (50_000 - shown)
        assert message.ByteSize() < MESSAGE_BYTES
