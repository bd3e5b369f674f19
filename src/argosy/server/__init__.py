"""One replica: the composition root of the data plane.

`app.py` wires artifacts, an engine, text, serving and protocols into one ASGI application behind the edge of `web`;
`run.py` starts it, drains it on SIGTERM and stops it. This is the only place of the data plane that knows every room.

Read first: `app.py`.
"""
