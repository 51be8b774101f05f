"""Measurements: micro-benchmarks of kernels, and comparisons with other frameworks."""
