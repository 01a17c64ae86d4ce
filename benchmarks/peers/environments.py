"""The peers' own environments, made from their locks at the first use."""

import subprocess
import sys
from pathlib import Path

_HERE = Path(__file__).parent
PROJECT = _HERE.parents[1]
_FOLDER = PROJECT / "build" / "peers"


def python_of(peer: str) -> Path:
    """Return the Python of a peer's environment, which is made anew if its lock has changed."""
    lock = _HERE / f"{peer}.txt"
    folder = _FOLDER / peer
    python, made_from = folder / "bin" / "python", folder / "made-from.txt"
    if not made_from.exists() or made_from.read_text() != lock.read_text():
        print(f"making {folder.relative_to(PROJECT)}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([python, *install, "--require-hashes", "-r", lock], check=True)
        made_from.write_text(lock.read_text())
    return python
