"""Accuracy and speed, measured by one command: ``python -m benchmarks``."""
