"""Benchmarks: every number in the docs comes from a JSON that one of these wrote under bench/results/."""
