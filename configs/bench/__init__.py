"""Sizes for benchmarks."""
