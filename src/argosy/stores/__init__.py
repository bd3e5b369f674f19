"""Where desired state is kept: each implementation of `core.interfaces.Store` is one module here.

A store holds resources (spec and status, apart) under optimistic concurrency: who writes what was changed meanwhile
gets a conflict, and reads again. On a laptop it is one SQLite file, on Kubernetes the custom resources of a
namespace. Both pass the same contract tests, so the control plane cannot tell which one it has.

This room may not know what the resources mean: no rule about services or replicas stands here.
"""
