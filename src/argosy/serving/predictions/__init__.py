"""Archived models and their handlers: registered, queued for, batched, run by workers that come and go.

Payloads in, payloads out. This room may not know what a worker is made of (it sees the `Predictor` socket), where an
archive comes from, nor any wire format.

Read first: `version.py` (one version of a model: its queue, its workers), then `job.py` (a request and its one
ending), `job_queue.py` (who gets which requests), `worker.py` (a seat whose predictor is started, watched, replaced)
and `administration.py` (what operators do).
"""
