"""Pages of lists. A token is opaque: where the next page begins, and a digest of the list it belongs to."""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from google.protobuf.message import Message

from manager_service.domain.errors import FieldViolation, InvalidRequestError

DEFAULT_PAGE = 100
MAX_PAGE = 1_000
T = TypeVar("T")

_NUMBER = re.compile(r"[0-9]{1,18}")


class _Listing(Protocol):
    @property
    def page_size(self) -> int: ...
    @property
    def page_token(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What part of a list to answer; ``after`` is empty for the first page."""

    size: int
    after: str
    digest: str

    @property
    def probe(self) -> int:
        """One more than the page holds, so that it shows whether there is another."""
        return self.size + 1

    def cut(self, found: Sequence[T], cursor: Callable[[T], object]) -> tuple[Sequence[T], str]:
        """Return what belongs to this page, and the token of the next or an empty one."""
        if len(found) <= self.size:
            return found, ""
        return found[: self.size], _token(str(cursor(found[self.size - 1])), self.digest)


def read_page(request: _Listing, *, numeric: bool = False) -> Page:
    """Read the page that a list request asks for.

    Raises:
        InvalidRequestError: the size is out of bounds, or the token is not one of this list.
    """
    if not 0 <= request.page_size <= MAX_PAGE:
        raise _wrong(
            "page_size", f"is {request.page_size}; it must be from 1 to {MAX_PAGE}, or 0 for {DEFAULT_PAGE}"
        )
    digest = _digest(request)
    after = _after(request.page_token, digest) if request.page_token else ""
    if numeric and _NUMBER.fullmatch(after or "0") is None:
        raise _wrong_token()
    return Page(size=request.page_size or DEFAULT_PAGE, after=after, digest=digest)


def _digest(request: _Listing) -> str:
    """Digest the kind of the list and its filters: all of the request but the page."""
    if not isinstance(request, Message):
        raise TypeError(request)
    filters = type(request)()
    filters.CopyFrom(request)
    filters.ClearField("page_size")
    filters.ClearField("page_token")
    text = request.DESCRIPTOR.full_name.encode() + filters.SerializeToString(deterministic=True)
    return hashlib.sha256(text).hexdigest()[:16]


def _token(after: str, digest: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([after, digest]).encode()).decode()


def _after(token: str, digest: str) -> str:
    try:
        after, of_list = json.loads(base64.urlsafe_b64decode(token.encode()))
    except (binascii.Error, ValueError, TypeError, RecursionError):
        raise _wrong_token() from None
    # What is not printable, such as half a surrogate pair, is no text that a store can look for.
    if of_list != digest or not isinstance(after, str) or not after.isprintable():
        raise _wrong_token()
    return after


def _wrong_token() -> InvalidRequestError:
    return _wrong("page_token", "is not a token of this list; repeat the filters, or begin without a token")


def _wrong(field: str, description: str) -> InvalidRequestError:
    return InvalidRequestError([FieldViolation(field, description)])
