import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from worker_service.domain.errors import InvalidTargetError
from worker_service.domain.target import Target

PASSWORD_VARIABLE = "MYSQL_PWD"  # noqa: S105 - the name of a variable
_FORM = "write mariadb://USER@HOST:PORT/DATABASE"
_TEXTS = frozenset({"unix_socket", "read_default_file", "read_default_group", "ssl_ca", "ssl_cert", "ssl_key"})
_FLAGS = frozenset({"ssl_verify_cert", "ssl_verify_identity"})
_SECONDS = "connect_timeout"
_TRUE, _FALSE = frozenset({"1", "true", "yes"}), frozenset({"0", "false", "no"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a database is and as whom it is used; what is ``None`` is left to the option file or the driver."""

    database: str
    host: str | None = None
    port: int = 0
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    parameters: Mapping[str, str | bool | int] = field(default_factory=dict)

    @classmethod
    def of(cls, target: Target) -> Self:
        """Read the target's URL; nothing is connected to.

        Raises:
            InvalidTargetError: the URL does not say which database; the message says what to write.
        """
        try:
            parts = urlsplit(target.url)
            port = parts.port or 0
        except ValueError:
            raise InvalidTargetError(
                f"The URL of the target {target.name!r} cannot be read: check its port and brackets; {_FORM}."
            ) from None
        return cls(
            database=_database(target, parts),
            host=unquote(parts.hostname) if parts.hostname else None,
            port=port,
            user=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
            parameters=_parameters(target, parts.query),
        )

    def arguments(self, environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
        """Word it for the driver; the password is the URL's, or the option file's, or the environment's."""
        password = self.password
        if password is None and "read_default_file" not in self.parameters:
            password = environment.get(PASSWORD_VARIABLE)
        known: dict[str, Any] = {"host": self.host, "user": self.user, "password": password, "port": self.port}
        given = {name: value for name, value in known.items() if value}
        return {**given, "database": self.database, "connect_timeout": 10, **self.parameters}


def _database(target: Target, parts: SplitResult) -> str:
    name = unquote(parts.path.removeprefix("/"))
    if not name or parts.path.count("/") != 1:
        raise InvalidTargetError(
            f"The URL of the target {target.name!r} has to name one database: {_FORM}, "
            "with %2F for a slash in a name."
        )
    if parts.fragment:
        raise InvalidTargetError(f"The URL of the target {target.name!r} has a # in it: write it as %23.")
    return name


def _parameters(target: Target, query: str) -> dict[str, str | bool | int]:
    found: dict[str, str | bool | int] = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name in _TEXTS:
            found[name] = text
        elif name in _FLAGS:
            found[name] = _flag(target, name, text)
        elif name == _SECONDS:
            found[name] = _seconds(target, text)
        else:
            raise InvalidTargetError(_unknown(target, name))
    if file := found.get("read_default_file"):
        found["read_default_file"] = _option_file(target, str(file))
    return found


def _flag(target: Target, name: str, text: str) -> bool:
    if text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    raise InvalidTargetError(f"The URL of the target {target.name!r}: {name} takes true or false.")


def _seconds(target: Target, text: str) -> int:
    if text.isascii() and text.isdigit() and 1 <= int(text) <= 3600:  # noqa: PLR2004 - an hour
        return int(text)
    raise InvalidTargetError(f"The URL of the target {target.name!r}: {_SECONDS} takes 1 to 3600 seconds.")


def _option_file(target: Target, text: str) -> str:
    path = Path(text).expanduser()
    try:
        # The driver takes a file that it cannot read for an empty one, and then guesses the user.
        path.open("rb").close()
    except OSError as error:
        raise InvalidTargetError(
            f"The option file of the target {target.name!r} cannot be read: {path} ({error.strerror})."
        ) from error
    return str(path)


def _unknown(target: Target, name: str) -> str:
    if name.lower() in {"password", "passwd"}:
        return f"The URL of the target {target.name!r} takes a password as USER:PASSWORD@HOST only."
    known = sorted({*_TEXTS, *_FLAGS, _SECONDS})
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}."
    return f"The URL of the target {target.name!r} has an unknown parameter {name!r}: {hint}"
