"""Argosy takes an open model from checkpoint to an autoscaled, observable service.

Two planes, one waist. The *data plane* turns HTTP bytes into tokens and back; the *control plane* turns specs into
running replicas. Start reading at `argosy.core` (the vocabulary), then `engines/echo.py` (what an engine must do),
then `serving/served_model.py` (how a named model answers).
"""

__version__ = "0.1.0"
