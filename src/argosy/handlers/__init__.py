"""Handlers: the Python code that an archive brings, run where it can hurt nobody.

User code never runs in the server. Every worker of a model is a process of its own, limited in memory and files, with
one socket to the server that nobody else can reach. `WorkerPredictor` is the server's side of it. What happens inside
the process is in `worker`; what an import of `ts.…` finds there is in `shims`.

Workers are forked from a `Nursery`: a clean process with one thread that has imported the heavy libraries and has never
run a line of an archive. So a worker starts in milliseconds, and four workers hold one copy of PyTorch between them.
"""
