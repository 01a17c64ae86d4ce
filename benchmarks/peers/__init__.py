"""Overhaul beside other job systems on PostgreSQL, in the same rounds: `python -m benchmarks peers`."""
