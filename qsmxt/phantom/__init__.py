"""The digital head with known susceptibility: demo dataset, tests, benchmarks."""
