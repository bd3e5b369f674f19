"""Spec, observation and time become actions: the decisions of the control plane, and the loop that carries them out.

Every decision is a pure function of values, `now` included: which revisions run, with how many replicas and which
share of the traffic, when to scale and why. `loop.py` alone has hands: it observes, asks, and acts through the
interfaces of `core`, one object at a time, objects beside each other. So the simulator runs the very same decisions
on a virtual clock.

This room may not know any backend or store, nor HTTP: those are wired to it in `api`.
"""
