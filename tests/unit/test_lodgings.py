"""Servers that are started side by side, by one process or several, do not get in each other's way."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests import lodgings
from tests.lodgings import HOST, Port, new_folder

ROOT = Path(__file__).parents[2]
_OTHER = """
from tests import lodgings
lodgings._PORTS = [int(input())]
lodgings.Port()
"""


def claimed_elsewhere(number: int) -> bool:
    """Tell whether another process is refused a port."""
    other = subprocess.run(
        [sys.executable, "-c", _OTHER], cwd=ROOT, input=str(number), check=False, capture_output=True, text=True
    )
    return "no port is free" in other.stderr


class TestPort:
    def test_nobody_else_is_given_it_though_nothing_listens(self) -> None:
        port = Port()

        assert claimed_elsewhere(port.number)
        port.close()
        assert not claimed_elsewhere(port.number)

    def test_one_that_something_listens_on_is_not_given(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.create_server((HOST, 0)) as other:
            monkeypatch.setattr(lodgings, "_PORTS", [other.getsockname()[1]])

            with pytest.raises(AssertionError, match="no port is free"):
                Port()


class TestFolder:
    @pytest.fixture
    def memory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr(lodgings, "_MEMORY", tmp_path)
        monkeypatch.setattr(lodgings, "_ENOUGH", 0)
        return tmp_path

    def test_is_in_memory(self, memory: Path) -> None:
        assert new_folder("overhaul-test-").parent == memory

    def test_of_a_durable_server_is_not(self, memory: Path) -> None:
        folder = new_folder("overhaul-test-", durable=True)

        assert folder.parent != memory
        folder.rmdir()

    def test_is_not_if_memory_is_short(self, memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lodgings, "_ENOUGH", 2**62)
        folder = new_folder("overhaul-test-")

        assert folder.parent != memory
        folder.rmdir()
