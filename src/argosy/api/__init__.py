"""The root of the control plane: its HTTP API, and the one process in which loop, store, backend and gateway meet.

Specs come in as JSON or YAML, are decoded once into frozen types, and are put into the store; the answer is given at
once, and the loop does the rest. The routes say what they take and give as types, so /openapi.json is made from them.
A key needs the scope `admin` here, unless a path says otherwise.

This room may know every room of the control plane, and none of the data plane: a replica is an argv and an HTTP
surface to it, never an import.
"""
