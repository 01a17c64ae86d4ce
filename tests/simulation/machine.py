"""What processes take from their machine: clocks, ids, threads, a place for logs."""

import asyncio
import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final
from unittest.mock import patch
from uuid import UUID

from manager_service.domain.model import SECOND, Instant, Span
from tests.doubles import START

Sink = Callable[[str, str, dict[str, Any]], None]


@dataclass(slots=True)
class VirtualClock:
    """The manager's clocks: the monotonic one is the loop's, the wall clock steps now and then."""

    loop: asyncio.AbstractEventLoop
    stepped: Span = 0

    def wall(self) -> Instant:
        return START + self.monotonic() + self.stepped

    def monotonic(self) -> Span:
        return round(self.loop.time() * SECOND)


@dataclass(slots=True)
class SeededIds:
    """Ids that count up and chance from the seed."""

    chance: random.Random
    count: int = 0

    def new_id(self) -> str:
        self.count += 1
        return str(UUID(int=(0x0190_0000_0000 << 80) | (7 << 76) | (2 << 62) | self.count))

    def random(self) -> float:
        return self.chance.random()


class Logger:
    """Stands in for every logger of the product: one that formats nothing costs nothing."""

    def __init__(self) -> None:
        self.sink: Sink | None = None

    def bind(self, **_: Any) -> "Logger":
        return self

    def debug(self, event: str, **fields: Any) -> None:
        self._say("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        self._say("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._say("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._say("error", event, fields)

    def exception(self, event: str, **fields: Any) -> None:
        self._say("exception", event, fields)

    def _say(self, level: str, event: str, fields: dict[str, Any]) -> None:
        if self.sink is not None:
            self.sink(level, event, fields)


LOGGER: Final = Logger()


class _Interrupter:
    """The thread that interrupts an operation, which here needs no thread."""

    def __init__(self, *, target: Any, **_: object) -> None:
        self._execution = target.__self__

    def start(self) -> None:
        asyncio.get_running_loop().call_soon(self._execution.simulated.interrupt)


@contextmanager
def product_in_simulation() -> Iterator[None]:
    """Replace what the product takes from the real machine: loggers, interrupters' threads, the global chance."""
    before = random.getstate()
    threads = SimpleNamespace(Event=threading.Event, Thread=_Interrupter)
    uuids = SimpleNamespace(uuid4=lambda: UUID(int=random.getrandbits(128)))
    with patch.multiple("worker_service.execution", threading=threads, uuid_utils=uuids):
        modules = [module for name, module in sys.modules.items() if name.startswith(_OURS)]
        loggers = [(module, module.log) for module in modules if hasattr(module, "log")]
        for module, _ in loggers:
            vars(module)["log"] = LOGGER
        try:
            yield
        finally:
            for module, log in loggers:
                vars(module)["log"] = log
            LOGGER.sink = None
            random.setstate(before)


_OURS = ("manager_service.", "worker_service.")
