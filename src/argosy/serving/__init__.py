"""A named model: engine + text + admission + adapters. Names in, deltas of text out.

This room turns a chat or a prompt into a valid `GenerateRequest`, waits for a permit, and turns the engine's token
ids back into text, tool calls and usage. It may not know which engine it holds (it sees the `Engine` socket), nor
any wire format: protocols translate `Delta`s into JSON.

Read first: `served_model.py` (how a named model answers), then `admission.py` (who runs, who waits, who is told to
come back later), then `delta.py` (what comes out).
"""
