"""An event loop whose time is virtual, and processes within it that can be paused and killed."""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar, cast

from typing_extensions import TypeVarTuple, Unpack

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")

MAX_STEPS = 400_000

_TASKS_KEPT = 64


class Process:
    """What would be a process of its own: it owns whatever its tasks start, because contexts are inherited.

    While it is paused nothing of it runs, and timers that fall due are late; once it is killed nothing of it
    runs ever again.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.dead = asyncio.Event()
        self.fuse: int | None = None
        self.on_death: Callable[[], None] = lambda: None
        self.frozen: deque[asyncio.Handle] = deque()
        self.tasks: list[asyncio.Task[Any]] = []
        self._most_tasks = 2 * _TASKS_KEPT
        self.paused = False
        self.context = copy_context()
        self.context.run(OWNER.set, self)

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine as a task of this process."""
        return asyncio.get_running_loop().create_task(coroutine, context=self.context.copy())

    def end(self) -> None:
        """Note that nothing of this process runs any more."""
        self.alive = False
        self.dead.set()

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Keep a task: one that was killed must not be cleaned up before the world ends."""
        self.tasks.append(task)
        if len(self.tasks) > self._most_tasks:
            self.tasks = [kept for kept in self.tasks if not kept.done()]
            self._most_tasks = 2 * max(_TASKS_KEPT, len(self.tasks))


OWNER: ContextVar[Process | None] = ContextVar("OWNER", default=None)
OUTSIDE = Context()


class StuckError(Exception):
    """Nothing is left to do, or there is no end of it."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs one callback per step; when none is ready, time jumps to the next timer.

    Args:
        after_step: called after each step with the process it belonged to.
        most_steps: after so many steps it counts as stuck.
    """

    def __init__(self, after_step: Callable[[Process | None], None], *, most_steps: int = MAX_STEPS) -> None:
        super().__init__()
        self._after_step = after_step
        self._most_steps = most_steps
        self._moment = 5_000.0
        self._ready: deque[asyncio.Handle] = deque()
        self._scheduled: list[asyncio.TimerHandle] = []
        self.steps = 0
        self.reaping = False
        self.set_task_factory(_make_task)

    def time(self) -> float:
        return self._moment

    def pause(self, process: Process) -> None:
        process.paused = True

    def resume(self, process: Process) -> None:
        process.paused = False
        self._ready.extend(process.frozen)
        process.frozen.clear()

    def kill(self, process: Process) -> None:
        """End a process as kill -9 does: between two steps, without a word."""
        if process.alive:
            process.end()
            process.on_death()

    def reap(self, processes: list[Process]) -> None:
        """Clean up what belongs to processes, now that it can do no harm."""
        self.reaping = True
        tasks = [task for process in processes for task in process.tasks if not task.done()]
        for process in processes:
            self._ready.extend(process.frozen)
            process.frozen.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            self.run_until_complete(asyncio.wait(tasks, timeout=60))

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[_Ts]], _T], *args: *_Ts
    ) -> asyncio.Future[_T]:
        """Do at once what a thread would do: it takes no virtual time, and in a real one any."""
        future: asyncio.Future[_T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 -- whoever waits for the thread gets it
            future.set_exception(error)
        return future

    def _run_once(self) -> None:
        """Take one step; replaces the whole of the base's, which would wait for real."""
        handle = self._next()
        if handle.cancelled():
            return
        owner = cast("Process | None", cast("Any", handle)._context.get(OWNER))
        if owner is not None and not self.reaping:
            if owner.paused or not owner.alive:
                owner.frozen.append(handle)
                return
            if owner.fuse is not None:
                owner.fuse -= 1
                if owner.fuse < 0:
                    self.kill(owner)
                    owner.frozen.append(handle)
                    return
        self.steps += 1
        cast("Any", handle)._run()
        self._after_step(owner)

    def _next(self) -> asyncio.Handle:
        ready, timers = self._ready, self._scheduled
        if not ready:
            while timers and timers[0].cancelled():
                heapq.heappop(timers)
            if not timers or self.steps > self._most_steps:
                raise StuckError(f"{len(timers)} timers left after {self.steps} steps")
            self._moment = max(self._moment, timers[0].when())
        while timers and timers[0].when() <= self._moment:
            ready.append(heapq.heappop(timers))
        return ready.popleft()

    def _write_to_self(self) -> None:
        """Wake nobody: there is no other thread."""

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Leave cancelled timers where they are until their time comes."""


def _make_task(
    loop: asyncio.AbstractEventLoop, coroutine: Any, *, context: Context | None = None, **_: Any
) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, context=context)
    owner = OWNER.get() if context is None else context.get(OWNER)
    if owner is not None:
        owner.adopt(task)
    return task
