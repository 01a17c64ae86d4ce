import hashlib
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

from worker_service.domain.errors import InvalidTargetError
from worker_service.domain.lock import Lock
from worker_service.domain.target import Target
from worker_service.operations.sqlite.location import Location

_MACHINE_FILES = (
    Path("/etc/machine-id"),
    Path("/var/lib/dbus/machine-id"),
    Path("/proc/sys/kernel/random/boot_id"),
)
_MOUNTS = Path("/proc/self/mountinfo")
_OCTAL = re.compile(r"\\([0-7]{3})")
_NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smbfs", "smb3", "9p", "afs", "ceph", "glusterfs", "lustre", "beegfs", "gpfs", "gfs2"}
    | {"ocfs2", "ncpfs", "coda", "virtiofs", "vboxsf", "davfs", "orangefs"}
)
_NETWORK_FUSE = (
    "sshfs",
    "s3fs",
    "rclone",
    "glusterfs",
    "ceph",
    "davfs",
    "gcsfuse",
    "grpcfuse",
    "juicefs",
    "smb",
    "nfs",
)


def identity_of(target: Target, location: Location) -> str:
    """Tell which database the target really is: machine, device and inode, or what the target states.

    Raises:
        InvalidTargetError: the file lies on a network file system, whose device and inode name it on this
            host alone, and the target states no identity.
        OSError: the file cannot be read.
    """
    if target.identity:
        return target.identity
    if kind := network_file_system(location.path):
        raise InvalidTargetError(
            f"The target {target.name!r} lies on a network file system ({kind}), where this host cannot tell "
            "which database it is: set the target's identity, the same on every host. "
            "SQLite's locks are often unsafe there."
        )
    return f"sqlite:{machine()}:{file_key(location)}"


def lock_on(identity: str) -> Lock:
    """The one key that every operation on a file holds alone."""
    return Lock(key=identity if identity.startswith("sqlite:") else f"sqlite:{identity}")


def file_key(location: Location) -> str:
    """Device and inode: equal for every name of one file on this host."""
    entry = location.stat()
    return f"{entry.st_dev:x}:{entry.st_ino:x}"


def several_links(location: Location) -> str | None:
    """Say why a file with more than one hard link is refused; ``None`` when it has but one.

    SQLite looks for a journal or a log beside the name it was told. Under another name it misses the changes that
    lie there, rewrites the file without them, and has destroyed it when they are brought in later.
    """
    entry = location.stat()
    if not stat.S_ISREG(entry.st_mode) or entry.st_nlink <= 1:
        return None
    return (
        f"The file has {entry.st_nlink} hard links, and SQLite sees a journal or log beside one name only: "
        "writing under the other would destroy the database. Leave one name, or make the others symbolic links."
    )


def machine(files: Iterable[Path] = _MACHINE_FILES) -> str:
    """A hash of the machine's id, which must not be told as it is; of the boot's id where it has none."""
    for file in files:
        try:
            text = file.read_text().strip()
        except OSError:
            continue
        if text and text != "uninitialized":
            return hashlib.sha256(f"overhaul:{text}".encode()).hexdigest()[:16]
    return hashlib.sha256(f"overhaul:{os.uname().nodename}".encode()).hexdigest()[:16]


def network_file_system(path: str, mounts: Path = _MOUNTS) -> str | None:
    """The type of the network file system that holds ``path``; ``None`` on a local one or where unknown."""
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    best, kind = "", ""
    for line in lines:
        point, found = _mount(line)
        if len(point) >= len(best) and _lies_under(path, point):
            best, kind = point, found
    return kind if _is_network(kind) else None


def _mount(line: str) -> tuple[str, str]:
    left, _, right = line.partition(" - ")
    fields, kinds = left.split(" "), right.split(" ")
    point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[4]) if len(fields) > 4 else ""  # noqa: PLR2004 - proc(5)
    return point, kinds[0]


def _lies_under(path: str, point: str) -> bool:
    return point != "" and (path == point or path.startswith(point.rstrip("/") + "/"))


def _is_network(kind: str) -> bool:
    return kind in _NETWORK or (kind.startswith("fuse.") and any(word in kind for word in _NETWORK_FUSE))
