import difflib
import re
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Self, cast

from worker_service.domain.errors import InvalidTargetError
from worker_service.domain.ports import Engine
from worker_service.domain.target import Target

GROUP = "overhaul.engines"
FILE_ENGINE = "sqlite"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9.-]*)(?:\+[^:/]*)?://")


class EngineRegistry:
    """The engines this worker can use, found by name or by the scheme of a target's URL.

    Args:
        engines: the engines by name.
        broken: installed plugins that could not be loaded, by name, each with its reason.
    """

    def __init__(self, engines: Mapping[str, Engine], broken: Mapping[str, str] | None = None) -> None:
        self._engines = dict(engines)
        self._broken = dict(broken or {})

    @classmethod
    def load(cls, points: Iterable[EntryPoint] | None = None) -> Self:
        """Load every installed engine; one that cannot be imported is kept aside with its reason."""
        engines: dict[str, Engine] = {}
        broken: dict[str, str] = {}
        for point in entry_points(group=GROUP) if points is None else points:
            try:
                engines[point.name] = cast("type[Engine]", point.load())()
            except Exception as error:  # noqa: BLE001 - a foreign plugin may raise anything; others go on
                broken[point.name] = f"{type(error).__name__}: {error}"
        return cls(engines, broken)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the engines that work, in order."""
        return tuple(sorted(self._engines))

    def by_name(self, name: str) -> Engine:
        """Return the engine called ``name``.

        Raises:
            InvalidTargetError: no such engine works here; the message says what is installed.
        """
        if engine := self._engines.get(name):
            return engine
        if reason := self._broken.get(name):
            raise InvalidTargetError(f"The engine {name!r} is installed but does not load: {reason}.")
        raise InvalidTargetError(self._unknown(f"There is no engine {name!r}", name))

    def for_url(self, url: str) -> Engine:
        """Return the engine that answers to the URL's scheme; a path without a scheme belongs to SQLite.

        Raises:
            InvalidTargetError: no engine answers to the scheme.
        """
        match = _SCHEME.match(url)
        if match is None:
            return self.by_name(FILE_ENGINE)
        scheme = match[1].lower()
        for engine in self._engines.values():
            if scheme in engine.schemes:
                return engine
        if scheme in self._broken:
            return self.by_name(scheme)
        raise InvalidTargetError(self._unknown(f"No engine answers to URLs of {scheme}://", scheme))

    def for_target(self, target: Target) -> Engine:
        """Return the engine that the target names, or the one of its URL when it names none."""
        return self.by_name(target.engine) if target.engine else self.for_url(target.url)

    def _unknown(self, problem: str, word: str) -> str:
        near = difflib.get_close_matches(word, self._engines, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        broken = f" Not loading: {', '.join(sorted(self._broken))}." if self._broken else ""
        return f"{problem}{hint} Installed: {', '.join(self.names) or 'none'}.{broken}"
