"""How the server's views are read, of one release and of another."""

from typing import Any

import pytest

from worker_service.operations.postgresql.progress import ANALYZE, INDEX, REWRITE, VACUUM, HowFar, View

HEAP = {"heap_blks_total": 10, "heap_blks_scanned": 4, "heap_blks_vacuumed": 2}
SAMPLE = {"sample_blks_total": 9, "sample_blks_scanned": 3}
BUILD = {"blocks_total": 8, "blocks_done": 5, "tuples_total": 0, "tuples_done": 0}
TUPLES = {"tuples_total": 700, "tuples_done": 7}
LOCKERS = {"lockers_total": 2, "lockers_done": 1}


@pytest.mark.parametrize(
    ("view", "row", "told"),
    [
        (VACUUM, {"phase": "initializing", **HEAP}, (None, None, "")),
        (VACUUM, {"phase": "scanning heap", **HEAP}, (4, 10, "pages")),
        (VACUUM, {"phase": "vacuuming heap", **HEAP}, (2, None, "pages")),
        (VACUUM, {"phase": "vacuuming indexes", **HEAP}, (None, None, "")),
        (VACUUM, {"phase": "vacuuming indexes", "indexes_total": 3, "indexes_processed": 1}, (1, 3, "indexes")),
        (REWRITE, {"phase": "seq scanning heap", **HEAP}, (4, 10, "pages")),
        (REWRITE, {"phase": "rebuilding index", **HEAP}, (None, None, "")),
        (ANALYZE, {"phase": "acquiring sample rows", **SAMPLE}, (3, 9, "pages")),
        (ANALYZE, {"phase": "computing statistics", **SAMPLE}, (None, None, "")),
        (INDEX, {"phase": "waiting for old snapshots", **LOCKERS}, (1, 2, "transactions")),
        (INDEX, {"phase": "building index: scanning table", **BUILD}, (5, 8, "pages")),
        (INDEX, {"phase": "building index: sorting live tuples", **BUILD}, (None, None, "")),
        (INDEX, {"phase": "building index: loading tuples in tree", **BUILD, **TUPLES}, (7, 700, "rows")),
        (INDEX, {"phase": "initializing", **BUILD, "blocks_total": 0}, (None, None, "")),
    ],
)
def test_a_phase_tells_what_the_server_counts_in_it(view: View, row: dict[str, Any], told: HowFar) -> None:
    assert view.read(row) == told
