"""The operations that a target offers, read from what `operations_text` wrote."""

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import count
from sys import intern
from typing import Any, NamedTuple

from manager_service.domain.fleet import Lock, OfferedOperation, OptionSpec, OptionType

# In JSON nothing but the name of a field looks like this: within a text the quotes are escaped.
_KEY = re.compile(r'"key": ("[^"\\]*(?:\\.[^"\\]*)*")')
_NO_KEY = '"key": 0'


class _Offer(NamedTuple):
    """An operation without its lock keys: of each lock its place among the keys, and whether it is exclusive."""

    name: str
    description: str
    options: tuple[OptionSpec, ...]
    locks: tuple[tuple[int, bool], ...]


# Requests name the same targets again and again; more than these are not worth their memory.
@lru_cache(maxsize=4_096)
def parsed_operations(text: str, only: frozenset[str] | None = None) -> Mapping[str, OfferedOperation]:
    """Return the operations that ``operations_text`` wrote, by name; with ``only`` no others than these.

    Thousands of targets offer the same but for their lock keys: what is left without these is parsed once. The
    operations of one target mostly take the same keys: what is equal is shared.
    """
    between, keys = (parts := _KEY.split(text))[::2], parts[1::2]
    shared: dict[tuple[tuple[str, bool], ...], tuple[Lock, ...]] = {}
    offers = {}
    for name, description, options, locks in _parsed(_NO_KEY.join(between), only):
        held = tuple([(keys[place], exclusive) for place, exclusive in locks])
        if held not in shared:
            shared[held] = tuple(Lock(key=_unquoted(key), exclusive=exclusive) for key, exclusive in held)
        offers[name] = OfferedOperation(name=name, description=description, options=options, locks=shared[held])
    return offers


def _unquoted(text: str) -> str:
    if "\\" not in text:
        return text[1:-1]
    value: str = json.loads(text)
    return value


@lru_cache(maxsize=256)
def _parsed(text: str, only: frozenset[str] | None) -> tuple[_Offer, ...]:
    places = count()
    offers = [
        _Offer(
            name=intern(value["name"]),
            description=intern(value["description"]),
            options=_options(*map(_option_key, value["options"])),
            locks=tuple((next(places), lock["exclusive"]) for lock in value["locks"]),
        )
        for value in json.loads(text)
    ]
    return tuple(offer for offer in offers if only is None or offer.name in only)


def _option_key(value: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what `_options` makes an option of; the bounds are missing where an older release wrote it."""
    bounds = value.get("minimum"), value.get("maximum"), tuple(value.get("values", ()))
    return (value["name"], value["type"], value["description"], *bounds)


@lru_cache(maxsize=4_096)
def _options(*options: tuple[Any, ...]) -> tuple[OptionSpec, ...]:
    return tuple(
        OptionSpec(
            name=name,
            type=OptionType(kind),
            description=description,
            minimum=minimum,
            maximum=maximum,
            values=values,
        )
        for name, kind, description, minimum, maximum, values in options
    )
