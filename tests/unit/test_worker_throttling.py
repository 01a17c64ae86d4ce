"""When targets are looked at, and what of it is told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.worker_doubles.fake_engine import ThrottlingEngine
from worker_service.catalogue import Catalogue, Identity, Served
from worker_service.domain.errors import TargetUnavailableError
from worker_service.domain.target import Target
from worker_service.domain.throttle import Throttle
from worker_service.loops import Loop
from worker_service.throttling import REASON_LENGTH, Throttles

IDENTITY = Identity(worker_name="w", instance_id="i", build="0", host="h", pid=1, slots=1, labels={})
BUSY = Throttle(max_active_sessions=1)
NOT_LOOKED = "its throttle was not looked at yet"


def target(name: str = "app", throttle: Throttle | None = BUSY) -> Target:
    return Target(name=name, url="fake://h/app", engine="fake", throttle=throttle)


@dataclass
class Watched:
    """Throttles that look again and again, and how often they told of a change."""

    throttles: Throttles
    catalogue: Catalogue
    engine: ThrottlingEngine
    changes: list[None]
    wanted: bool = True

    async def until(self, reason: str, name: str = "app") -> None:
        async with asyncio.timeout(5):
            while self.throttles.reason(name) != reason:  # noqa: ASYNC110 - a thread decides
                await asyncio.sleep(0.002)

    async def looks(self, more: int = 2) -> None:
        """Wait for so many more looks."""
        goal = self.engine.looks + more
        async with asyncio.timeout(5):
            while self.engine.looks < goal:  # noqa: ASYNC110 - a thread decides
                await asyncio.sleep(0.002)


@asynccontextmanager
async def watched(
    *targets: Target, says: str | Exception = "", patience: float = 5, wanted: bool = True
) -> AsyncIterator[Watched]:
    engine = ThrottlingEngine()
    engine.says = says
    catalogue = Catalogue(
        identity=IDENTITY, served=[Served(target=one, engine=engine) for one in targets or (target(),)]
    )
    changes: list[None] = []
    throttles = Throttles(
        catalogue=catalogue,
        wanted=lambda: seen.wanted,
        on_change=lambda: changes.append(None),
        redact=lambda text: text.replace("s3cret", "***"),
        every=0.005,
        patience=patience,
    )
    seen = Watched(throttles, catalogue, engine, changes, wanted)
    loop = Loop("throttles", throttles.look)
    loop.start()
    try:
        yield seen
    finally:
        engine.hang.set()
        await loop.stop()
        throttles.close()


class TestALook:
    async def test_a_target_is_held_back_and_let_go(self) -> None:
        async with watched(says="2 active sessions, at most 1") as seen:
            assert seen.throttles.held_back() == {"app": NOT_LOOKED}
            await seen.until("2 active sessions, at most 1")
            seen.engine.says = ""
            await seen.until("")

            assert seen.throttles.held_back() == {}
            assert len(seen.changes) == 2

    async def test_before_the_first_nothing_is_known(self) -> None:
        async with watched(says="busy") as seen:
            assert (seen.throttles.reason("app"), seen.throttles.known_reason("app")) == (NOT_LOOKED, "")
            await seen.until("busy")

            assert seen.throttles.known_reason("app") == "busy"

    async def test_the_same_reason_with_other_numbers_is_told_and_logged_once(self) -> None:
        with capture_logs() as lines:
            async with watched(says="2 active sessions, at most 1") as seen:
                await seen.until("2 active sessions, at most 1")
                seen.engine.says = "3 active sessions, at most 1"
                await seen.until("3 active sessions, at most 1")

        assert len(seen.changes) == 1
        assert [line["event"] for line in lines] == ["target held back"]

    @pytest.mark.parametrize(
        ("trouble", "reason"),
        [
            (TargetUnavailableError("no route to s3cret"), "its throttle cannot be looked at: no route to ***"),
            (RuntimeError("s3cret"), "its throttle cannot be looked at: RuntimeError"),
            ("a\nb  c", "a b c"),
            ("x" * 999, "x" * REASON_LENGTH),
        ],
    )
    async def test_what_goes_wrong_holds_back_and_is_cleaned(self, trouble: str | Exception, reason: str) -> None:
        async with watched(says=trouble) as seen:
            await seen.until(reason)

    async def test_one_that_hangs_holds_back_and_is_not_repeated_until_it_ends(self) -> None:
        async with watched(target(), target("other"), patience=0.05) as seen:
            await seen.until("", "other")
            seen.engine.hang.clear()
            await seen.until("it did not answer within 0.05 s")
            looks = seen.engine.looks
            await asyncio.sleep(0.05)
            assert seen.engine.looks == looks

            seen.engine.hang.set()
            await seen.until("")

    async def test_a_target_without_a_throttle_is_not_looked_at(self) -> None:
        async with watched(target(throttle=None), target("other"), says="busy") as seen:
            await seen.until("busy", "other")

            assert seen.throttles.held_back() == {"other": "busy"}
            assert seen.throttles.reason("nobody's") == ""

    async def test_nothing_is_looked_at_while_there_cannot_be_work(self) -> None:
        async with watched(wanted=False) as seen:
            await asyncio.sleep(0.03)
            assert seen.engine.looks == 0

            seen.wanted = True
            await seen.until("")

    async def test_another_throttle_is_another_question(self) -> None:
        async with watched() as seen:
            await seen.until("")
            seen.engine.hang.clear()
            await seen.looks(1)
            changed = replace(target(), throttle=Throttle(max_active_sessions=7))

            seen.catalogue.serve([Served(target=changed, engine=seen.engine)])

            assert seen.throttles.held_back() == {"app": NOT_LOOKED}


class TestThePauseFile:
    async def test_it_holds_back_while_it_is_there_without_asking_the_engine(self, tmp_path: Path) -> None:
        path = tmp_path / "pause"
        path.touch()
        async with watched(target(throttle=Throttle(pause_file=path, max_active_sessions=1))) as seen:
            await seen.until("the pause file pause is there")
            assert seen.engine.looks == 0

            path.unlink()
            await seen.until("")
            assert seen.engine.looks > 0

    async def test_alone_it_asks_the_engine_nothing(self, tmp_path: Path) -> None:
        async with watched(target(throttle=Throttle(pause_file=tmp_path / "pause"))) as seen:
            await seen.until("")

        assert seen.engine.looks == 0
