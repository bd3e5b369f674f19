"""Workloads become running processes: each implementation of `core.interfaces.Backend` is one package here.

A backend is idempotent and level-triggered: it is told what should be, not what to do, and doing it twice is doing it
once. What it would submit is a pure function of the workload (`render`), so a dry run shows the same bytes. It says
what is, not what was asked for. Local processes and Kubernetes differ in this room only.

This room may not know services, rollouts or scaling: a `Workload` is all it sees. It holds no policy but how to start
again what has failed.
"""
