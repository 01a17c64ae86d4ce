"""What Overhaul costs, measured: `python -m benchmarks [NAME...]`. See docs/performance.md."""
