"""Measurements that name their machine: ``make bench``, or ``python -m benchmarks``."""
