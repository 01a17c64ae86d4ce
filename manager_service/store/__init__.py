"""The job store; ``open_store`` is its only door."""

from manager_service.domain.errors import InvalidStoreError
from manager_service.domain.fleet import Timing
from manager_service.domain.ports import Clock, IdSource, JobStore

__all__ = ["open_store"]


def open_store(url: str, *, clock: Clock, ids: IdSource, timing: Timing, synchronous: str = "full") -> JobStore:
    """Open the job store that a URL names, making or migrating it as needed.

    Args:
        url: ``sqlite:///relative.db`` or ``sqlite:////absolute.db``.
        clock: where time comes from.
        ids: where ids and chance come from.
        timing: the spans that leases live by.
        synchronous: ``full``: what was answered survives a power failure; ``normal``: the last moments may not.

    Raises:
        InvalidStoreError: the URL is wrong, or what it names is no job store of this release.
        StoreInUseError: another manager has the store open.
    """
    scheme = url.partition(":")[0]
    if scheme == "sqlite":
        from manager_service.store.embedded import open_embedded  # noqa: PLC0415 -- a store loads its own driver only

        return open_embedded(url, clock=clock, ids=ids, timing=timing, synchronous=synchronous)
    if scheme.partition("+")[0] == "postgresql":
        raise InvalidStoreError("PostgreSQL stores are not in this release; write sqlite:///FILE")
    raise InvalidStoreError(f"{url!r} is no job store's URL; write sqlite:///FILE")
