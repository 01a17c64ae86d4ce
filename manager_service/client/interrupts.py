"""Ctrl-C once and twice, and the signals that mean the same."""

import asyncio
import signal
from types import TracebackType
from typing import Any, Self


class Interrupts:
    """While entered, SIGINT, SIGTERM and SIGHUP end nothing: the first sets `first`, any further one `second`."""

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # A hang-up that is ignored was asked for, by nohup. A shell's background job ignores SIGINT too, but
            # whoever sends it one by hand means it.
            if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.getsignal(number)
                loop.add_signal_handler(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        loop = asyncio.get_running_loop()
        for number, handler in self._before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)

    def _note(self) -> None:
        (self.second if self.first.is_set() else self.first).set()
