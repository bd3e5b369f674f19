"""Many replicas behind one URL: choose one, split traffic, hold requests while the first replica starts.

A request that comes in is read as far as routing needs it (which service, which conversation), given to one replica
by pure functions of what is known of all of them, and its answer is passed through byte by byte. When a client
leaves, the request to the replica is closed with it, so that the abort law holds across processes. What is known of
replicas is pushed by the control plane and kept if that goes away: a gateway serves on without it.

This room may not know models, tokens or engines, nor how replicas come to run: it sees endpoints and HTTP. The front
that clients meet is `web`, the same as a replica's.
"""
