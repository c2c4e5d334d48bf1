"""Benchmarks: ``python -m benchmarks NAME`` measures here and writes benchmarks/results/."""
