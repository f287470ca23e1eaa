"""What the tests, the soak and the benchmarks of the engine share."""
