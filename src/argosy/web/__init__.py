"""The HTTP front every Argosy server shares: a replica, the gateway and the control plane's API.

    bytes ──listener.py──▶ http_protocol.py (guards each connection) ──▶ edge.py (one pass around every request)
                                                                           └─▶ access.py, paths.py: who may come in

What a server brings is its routes, its `Paths`, and a `Lifecycle` that says whether it takes requests. What it gets
is listening before it is ready, limits on whatever a client can hold open, keys and scopes, errors as the OpenAI wire
shows them (`errors.py`), the probes, metrics and /openapi.json (`operations.py`, `openapi.py`, from the `Operation`s
on the routes), and a process set up for it (`process.py`).

This room may not know models, engines, replicas or services: it sees paths, heads and bytes. Only this room
knows uvicorn.

Read first: `edge.py`, then `access.py`.
"""
