"""The PostgreSQL store where it is large, shared or hindered: `python -m benchmarks scale`."""
