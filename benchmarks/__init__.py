"""The commands behind docs/benchmarks.md: each measures one figure, both sides in one run, in interleaved rounds.

Not tests: they take minutes and want a quiet machine. docs/benchmarking.md says how each one works.
Read first: `rounds.py`.
"""
