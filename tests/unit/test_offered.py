from hypothesis import given
from hypothesis import strategies as st

from manager_service.domain.fleet import Lock, OfferedOperation, OptionSpec, OptionType
from manager_service.store.offered import parsed_operations
from manager_service.store.rows import operations_text

_TEXTS = st.one_of(st.text(max_size=8), st.sampled_from(['"key": "x"', "key", '\\"key\\": ', 'a"', "\\"]))
_LOCKS = st.lists(st.builds(Lock, key=_TEXTS, exclusive=st.booleans()), max_size=3).map(tuple)
_OPTIONS = st.builds(
    OptionSpec,
    name=_TEXTS,
    type=st.sampled_from(OptionType),
    description=_TEXTS,
    minimum=st.none() | st.integers(),
    values=st.lists(_TEXTS, max_size=2).map(tuple),
)
_OPERATIONS = st.lists(
    st.builds(
        OfferedOperation,
        name=_TEXTS,
        description=_TEXTS,
        options=st.lists(_OPTIONS, max_size=2).map(tuple),
        locks=_LOCKS,
    ),
    max_size=4,
    unique_by=lambda operation: operation.name,
).map(tuple)


class TestParsedOperations:
    @given(operations=_OPERATIONS)
    def test_they_are_read_as_they_were_written(self, operations: tuple[OfferedOperation, ...]) -> None:
        assert parsed_operations(operations_text(operations)) == {one.name: one for one in operations}

    @given(operations=_OPERATIONS, data=st.data())
    def test_only_those_that_are_asked_for(
        self, operations: tuple[OfferedOperation, ...], data: st.DataObject
    ) -> None:
        asked = frozenset(one.name for one in operations if data.draw(st.booleans()))

        found = parsed_operations(operations_text(operations), asked)

        assert found == {one.name: one for one in operations if one.name in asked}

    def test_targets_that_differ_in_their_keys_share_the_rest(self) -> None:
        one, other = (
            parsed_operations(
                operations_text(
                    tuple(
                        OfferedOperation(name=name, description="does it", locks=(Lock(key=key, exclusive=True),))
                        for name in ("vacuum", "analyze")
                    )
                )
            )
            for key in ("file:a", "file:b")
        )

        assert [one["vacuum"].locks[0].key, other["analyze"].locks[0].key] == ["file:a", "file:b"]
        assert one["vacuum"].description is other["vacuum"].description
        assert one["vacuum"].locks is one["analyze"].locks
