"""Each module is one benchmark: `python -m benchmarks.<name>`."""
