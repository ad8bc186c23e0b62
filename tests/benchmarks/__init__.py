"""Benchmarks: ratios against named peers, measured side by side. ``python -m tests.benchmarks --help``."""
