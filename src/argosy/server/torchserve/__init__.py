"""A server with TorchServe's three APIs in front of archives: what `argosy serve --torchserve` runs.

config.properties, snapshot, flags → `configuration.py` → core.torchserve_spec.TorchServeSpec → `run.py`
"""
