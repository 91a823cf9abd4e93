"""Public benchmarks by their official protocols: each has a loader and a score; one runner asks them all.

python -m evals.runners <name> --data FOLDER --out FOLDER. Data sets and weights are not included.
"""
