"""The root of the control plane: its HTTP API, and the process in which loop, store and backend meet.

Specs come in as JSON, are decoded once into frozen types, and are put into the store; the answer is given at
once, and the loop does the rest. The routes say what they take and give as types, so /openapi.json is made from them.
A key needs the scope `admin` here, unless a path says otherwise.

    app.py → service_routes.py, fleet_routes.py   what each route takes and gives
             plane.py      the questions behind them, over store, backend and loop
             streams.py    answers that go on: bounded, begun at once, ended together
             scrape.py     one scrape of everything
    run_up.py, run_control.py, run_gateway.py     the processes; local_state.py: their directory

This room may know every room of the control plane, and none of the data plane: a replica is an argv and an HTTP
surface to it, never an import.
Read first: `app.py`, then `plane.py`; docs/control-api.md.
"""
