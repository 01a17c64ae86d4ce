import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from urllib.parse import urlsplit

from worker_service.catalogue import Served
from worker_service.domain.errors import ConfigurationError, InvalidTargetError, TargetUnavailableError
from worker_service.domain.inspection import Threshold
from worker_service.domain.ports import Engine, Engines, Throttling
from worker_service.domain.secrets import Redactor, passwords_of
from worker_service.domain.target import Target
from worker_service.domain.throttle import PAUSE_FILE, Throttle

_NAMED = re.compile(r"(?P<name>[A-Za-z][A-Za-z0-9_-]*)=(?P<url>.*)", re.DOTALL)
_FILE_ENGINES = frozenset({"", "sqlite", "file"})
NAME_LENGTH = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetOrder:
    """A target as the user asked for it; ``name`` and ``engine`` are ``None`` where they are to be found.

    Without a ``max_parallel`` of its own it has that of the worker.
    """

    url: str = field(repr=False)
    name: str | None = None
    engine: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    identity: str | None = None
    max_parallel: int | None = None
    throttle: Throttle | None = None
    only_if: tuple[Threshold, ...] = ()


def parse_target(text: str) -> TargetOrder:
    """Read ``URL``, a path, or ``NAME=URL``; a path that contains ``=`` is written ``./a=b.db``."""
    if match := _NAMED.fullmatch(text):
        return TargetOrder(name=match["name"], url=match["url"])
    return TargetOrder(url=text)


def refuse_passwords(orders: Iterable[TargetOrder]) -> None:
    """Refuse passwords that every user of this machine could read in the list of processes."""
    for order in orders:
        if passwords_of(order.url):
            raise ConfigurationError(
                "A password on the command line can be read by every user of this machine: "
                "leave it out of the URL. The servers' own ways serve: ~/.pgpass, PGPASSFILE, a service or "
                "PGPASSWORD for PostgreSQL, MYSQL_PWD or an option file for MariaDB and MySQL. A deployed worker "
                "may take such a URL from its configuration file or OVERHAUL_TARGETS; `overhaul run` takes none."
            )


def resolve_targets(
    orders: Sequence[TargetOrder], engines: Engines, *, served: Sequence[Served] = ()
) -> tuple[Served, ...]:
    """Name the targets, find their engines and have each checked; nothing is created or changed.

    A target without a name gets its file's stem or its database's name, with ``-2``, ``-3``... where that is
    taken already.

    Args:
        orders: the targets as they were asked for.
        engines: what is installed.
        served: targets that are served already, and not checked again where they are to stay as they are.

    Raises:
        ConfigurationError: no target, or a name twice.
        InvalidTargetError: a target cannot be served; the message says what to do.
    """
    if not orders:
        raise ConfigurationError("Name a target with --target PATH, --target URL or OVERHAUL_TARGETS.")
    before = {one.target.name: one for one in served}
    named = zip(orders, _names(orders), strict=True)
    return tuple(_resolve(order, name, engines, before.get(name)) for order, name in named)


def refuse_doubles(served: Sequence[Served]) -> None:
    """Refuse two names of one database, which would be maintained twice in one job.

    Raises:
        ConfigurationError: two targets are one database; the message names both.
        TargetUnavailableError: which database one is cannot be told just now.
    """
    masked = Redactor(one.target.url for one in served)
    seen: dict[str, Target] = {}
    for one in served:
        try:
            identity = one.engine.describe(one.target).identity
        except TargetUnavailableError as error:
            raise TargetUnavailableError(f"The target {one.target.name!r} cannot be read: {error}") from error
        first = seen.setdefault(identity, one.target)
        if first is not one.target:
            raise ConfigurationError(
                f"The targets {first.name!r} ({masked(first.url)}) and {one.target.name!r} "
                f"({masked(one.target.url)}) are one database: name it once."
            )


def _resolve(order: TargetOrder, name: str, engines: Engines, before: Served | None) -> Served:
    if not order.url:
        raise InvalidTargetError(f"The target {name!r} has no URL: write NAME=PATH or NAME=URL.")
    engine = engines.by_name(order.engine) if order.engine else engines.for_url(order.url)
    target = Target(
        name=name,
        url=order.url,
        engine=engine.name,
        labels=order.labels,
        identity=order.identity,
        max_parallel=order.max_parallel or 1,
        throttle=order.throttle,
        only_if=order.only_if,
    )
    found = Served(target=target, engine=engine)
    if found != before:
        engine.check(target)
        _check_throttle(target, engine)
    return found


def _check_throttle(target: Target, engine: Engine) -> None:
    asked = target.throttle.asks if target.throttle else frozenset()
    known = engine.throttles if isinstance(engine, Throttling) else frozenset()
    if unknown := sorted(asked - known):
        raise InvalidTargetError(
            f"The throttle of the target {target.name!r} has {unknown[0]}, which {engine.name} cannot tell: leave "
            f"it out. It knows {', '.join(sorted({*known, PAUSE_FILE}))}."
        )


def _names(orders: Sequence[TargetOrder]) -> list[str]:
    taken: set[str] = set()
    for order in orders:
        if order.name in taken:
            raise ConfigurationError(f"The target name {order.name!r} is given twice: names have to differ.")
        if order.name is not None:
            _check_name(order.name)
            taken.add(order.name)
    names: list[str] = []
    for order in orders:
        name = order.name or _free_name(_derived(order.url), taken)
        taken.add(name)
        names.append(name)
    return names


def _check_name(name: str) -> None:
    if not 1 <= len(name) <= NAME_LENGTH or not name.isprintable():
        raise ConfigurationError(f"The target name {name!r} is not 1 to {NAME_LENGTH} printable characters.")


def _derived(url: str) -> str:
    if "://" not in url:
        return _clean(PurePath(url).stem)
    try:
        parts = urlsplit(url)
    except ValueError:
        raise InvalidTargetError("A target's URL cannot be read: check its brackets and port.") from None
    path = PurePath(parts.path)
    return _clean(path.stem if parts.scheme in _FILE_ENGINES else path.name or parts.hostname or "")


def _clean(name: str) -> str:
    return "".join(sign for sign in name if sign.isprintable())[: NAME_LENGTH - 8] or "target"


def _free_name(name: str, taken: set[str]) -> str:
    number, candidate = 1, name
    while candidate in taken:
        number += 1
        candidate = f"{name}-{number}"
    return candidate
