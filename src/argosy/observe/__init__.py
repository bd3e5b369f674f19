"""Metric names, JSON logs, trace context: what an operator sees.

One table holds every metric (`metrics.py`); one formatter writes every log line (`logs.py`). Prompts and keys are
never logged.
"""
