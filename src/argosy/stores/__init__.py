"""Where desired state is kept: each implementation of `core.interfaces.Store` is one module here.

A store holds resources (spec and status, apart) under optimistic concurrency: who writes what was changed meanwhile
gets a conflict, and reads again. On a laptop it is one SQLite file, on Kubernetes the custom resources of a
namespace. Both pass the same contract tests, so the control plane cannot tell which one it has.

    records.py   the kinds there are, and what a write makes of what was there   (pure; shared)
    watchers.py  who hears of it, however slowly                                 (shared)
    memory.py    dictionaries, for tests and simulations
    sqlite.py    one file: writer.py (the thread), tables.py (the SQL), schema.py (the file, its versions)

This room may not know what the resources mean: no rule about services or replicas stands here.
Read first: `core/interfaces.py` (`Store`), `records.py`, then `sqlite.py`; docs/store.md.
"""
