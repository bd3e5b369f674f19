"""TorchServe's wire protocol over `serving.predictions`: predictions, management and metrics, bytes for bytes.

One prediction, in order: `routes.py` (which path), `predictions.py` (who is asked, with what), `inputs.py` and
`forms.py` (bytes to named parts), `serving.predictions` (queue, batch, worker), `prediction_answer.py` (pieces to
bytes). `errors.py` has every failure in TorchServe's shape; `settings.py` lists where we differ on purpose, and
docs/torchserve-api.md tells users.

Nothing here knows an archive, a process or a handler. Read first: `predictions.py`, then `management.py`.
"""

from __future__ import annotations

from argosy.protocols.torchserve.answers import REPLY_HEADERS
from argosy.protocols.torchserve.errors import ErrorShape, rejection
from argosy.protocols.torchserve.routes import Api, Parts, paths_of, routes_of
from argosy.protocols.torchserve.settings import WireSettings

__all__ = ["REPLY_HEADERS", "Api", "ErrorShape", "Parts", "WireSettings", "paths_of", "rejection", "routes_of"]
