"""The `argosy` command: one file per command, thin over the rooms, which are imported by string inside a command.

Read first: `main.py`.
"""
