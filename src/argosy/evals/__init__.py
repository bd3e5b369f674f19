"""Measuring servers from outside: load generation and reports, over any OpenAI-compatible HTTP API.

Read first: `loadtest.py`.
"""
