"""Both planes on a virtual clock: the very decisions that run in production, over recorded or drawn traffic.

A replica is a model of one (how long a prompt and a token take at which load, how long a start takes); arrivals come
from `evals`, choices of replicas from `gateway`, queues from `serving`, replica counts from `control`. Nothing of
these is written again here: a policy that is tried out is the code that will serve. An hour of traffic takes seconds,
and the same seed gives the same figures.

This room has no sockets, processes or sleeps, and nothing in production imports it.
"""
