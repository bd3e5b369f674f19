"""Many replicas behind one URL: choose one, split traffic, hold requests while the first replica starts.

A request that comes in is read as far as routing needs it (which service, which conversation), given to one replica
by pure functions of what is known of all of them, and its answer is passed through byte by byte. When a client
leaves, the request to the replica is closed with it, so that the abort law holds across processes. What is known of
replicas is pushed by the control plane and kept if that goes away: a gateway serves on without it.

This room may not know models, tokens or engines, nor how replicas come to run: it sees endpoints and HTTP. The front
that clients meet is `web`, the same as a replica's.

    inference.py ─▶ relay.py ─▶ dispatch.py ─▶ upstream.py, connection.py        a request's way
    services.py, endpoints.py, counters.py                                       what is known, what is counted
    traffic_split.py, balancers.py, outlier.py, retry_budget.py, quotas.py       decisions: pure
    hold.py, response_cache.py, shadow.py                                        who waits, what is kept, what is copied
    replica_polls.py, reports.py, control_link.py                                talk with replicas and control plane
    app.py, run.py                                                               wiring, and a life

Read first: `dispatch.py`, then `relay.py`. docs/gateway.md tells users the same.
"""
