"""Measuring servers from outside: load generation and reports, over any OpenAI-compatible HTTP API.

The room knows no server of ours: it sees bytes on a socket, so the same code measures Argosy, vLLM or llama.cpp,
and a comparison is fair by construction. Three rules shape it:

* *When* requests are sent is decided before the run by pure functions (`arrivals.py`, `traces.py`); latency counts
  from that intended time, so a stalled server or a late client cannot hide waiting (coordinated omission).
* *What was seen* is one record per request (`records.py`), and every figure is a pure function of the records
  (`metrics.py`): anyone can recompute a report from the raw JSONL.
* The client shares the machine with the server, so it must be light, and must say how light it was:
  `stream_client.py` reads about a token per ten microseconds, `probe.py` measures its CPU share and its lag.

`spec.py` is what may be asked, `prompts.py` writes the prompts, `loadtest.py` runs, `tables.py` and
`html_report.py` present. Read first: `records.py`, `metrics.py`, then `loadtest.py`.
"""
