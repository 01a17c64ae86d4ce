"""Messages that decode and make no sense: for every field of the contract, values that somebody did not expect."""

from collections.abc import Sequence
from typing import Any, cast

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

TEXTS = (
    "",
    " ",
    "app",
    "vacuum",
    "info",
    "a\x00b",
    "\x1b[31m",
    "line\nline",
    "\u202etxet",
    "naïve ☃ 🦆",
    "'; DROP TABLE child_jobs; --",
    "%s {0} ${x}",
    "../../etc/passwd",
    "x" * 129,
    "x" * 5_000,
)
_BOUNDS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_DEEPEST = 3


def messages(kind: type[Message], known: Sequence[str], depth: int = 0) -> st.SearchStrategy[Message]:
    """Make messages of a kind; ``known`` are texts that mean something to the manager, such as ids."""

    @st.composite
    def build(draw: st.DrawFn) -> Message:
        message = kind()
        for field in kind.DESCRIPTOR.fields:
            if draw(st.integers(0, 3)):
                _fill(draw, message, cast(FieldDescriptor, field), known, depth)
        return message

    return build()


def _fill(draw: st.DrawFn, message: Any, field: FieldDescriptor, known: Sequence[str], depth: int) -> None:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        value_field = field.message_type.fields_by_name["value"]
        for _ in range(draw(st.integers(0, 2))):
            getattr(message, field.name)[draw(_texts(known))] = draw(_scalars(value_field, known))
    elif field.message_type is not None:
        _fill_message(draw, message, field, known, depth)
    elif field.is_repeated:
        getattr(message, field.name).extend(draw(st.lists(_scalars(field, known), max_size=3)))
    else:
        setattr(message, field.name, draw(_scalars(field, known)))


def _fill_message(draw: st.DrawFn, message: Any, field: FieldDescriptor, known: Sequence[str], depth: int) -> None:
    if depth >= _DEEPEST:
        return
    place = getattr(message, field.name)
    kind: type[Message] = type(place.add()) if field.is_repeated else type(place)
    if field.is_repeated:
        message.ClearField(field.name)
        place = getattr(message, field.name)
        place.extend(draw(st.lists(messages(kind, known, depth + 1), max_size=2)))
    else:
        place.CopyFrom(draw(messages(kind, known, depth + 1)))


def _texts(known: Sequence[str]) -> st.SearchStrategy[str]:
    return st.one_of(st.sampled_from(tuple(known)), st.sampled_from(TEXTS), st.text(max_size=20))


def _scalars(field: FieldDescriptor, known: Sequence[str]) -> st.SearchStrategy[Any]:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            return _texts(known)
        case FieldDescriptor.CPPTYPE_BOOL:
            return st.booleans()
        case FieldDescriptor.CPPTYPE_ENUM:
            return st.one_of(st.integers(0, 12), st.sampled_from((-1, 99, 2**31 - 1, -(2**31))))
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return st.floats()
        case _:
            low, high = _BOUNDS[field.cpp_type]
            return st.one_of(st.integers(0, 5), st.sampled_from((low, high, 0)), st.integers(low, high))
