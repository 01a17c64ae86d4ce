import math

import pytest

from overhaul.v1 import job_pb2
from overhaul.v1 import lease_service_pb2 as wire
from worker_service.domain.inspection import InspectedObject, InspectionResult, Scope, Selection, Threshold
from worker_service.domain.lock import Lock
from worker_service.manager_client import inspections
from worker_service.manager_client.channel import MESSAGE_BYTES


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
