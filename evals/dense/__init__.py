"""Dense probes of merging: what the patches of a tower that never saw merging still say after it.

An idea is tried in minutes, before a whole model confirms it. `python -m evals.dense --help`.
"""
