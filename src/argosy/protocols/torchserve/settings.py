"""How this protocol is spoken on one server, and where it differs from TorchServe on purpose: one table.

`compat: right` (the default) does right where the original is wrong; `strict` does as the original did, for clients
that depend on it. Every difference a client can see is a row of `DIFFERENCES`; docs/torchserve-api.md shows the same
table, and a test holds the two together.
"""

from __future__ import annotations

import msgspec

from argosy.core.torchserve_spec import Compat, SequenceHeaders


class WireSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The choices of one server.

    shows_causes: an error of a handler tells the client its exception. may_change_models: models can be registered
    and unregistered over HTTP; else those calls are answered 405. open_inference: the Open Inference Protocol's routes.
    max_response_bytes: the largest answer of a handler. unregister_timeout_seconds: longest drain of an unregistration.
    """

    compat: Compat = Compat.RIGHT
    shows_causes: bool = False
    may_change_models: bool = True
    open_inference: bool = False
    sequence_headers: SequenceHeaders = SequenceHeaders()
    max_response_bytes: int = 6_553_500
    unregister_timeout_seconds: float = 120.0

    @property
    def is_strict(self) -> bool:
        """Whether TorchServe's mistakes are kept."""
        return self.compat is Compat.STRICT


class Difference(msgspec.Struct, frozen=True):
    """What a client can see. original: TorchServe 0.12, and `strict`. ours: `right`."""

    what: str
    original: str
    ours: str


DIFFERENCES = (
    Difference(
        "missing or wrong token",
        "400 `InvalidKeyException`",
        "401 `InvalidKeyException` and `WWW-Authenticate: Bearer`",
    ),
    Difference(
        "members of an error",
        "`code`, `type`, `message`",
        "also `reason`, our finer code; `cause` where the operator lets causes be shown",
    ),
    Difference("a model or version that is not there", "its name", "and what there is"),
    Difference("a queue that is full", "the text of a model without workers", "its own text, and `reason: queue_full`"),
    Difference(
        "text of a model without workers", "quotes around the version are unbalanced", "balanced, and what to do"
    ),
    Difference("a worker that died, or ran out of memory", "`Worker died.`, `Out of resources`", "and why"),
    Difference("workers that cannot start", "`Failed to start workers for model …`", "and why"),
    Difference("connection after an error", "closed", "kept, so that a refused client costs no new connection"),
    Difference(
        "a parameter that is no number or flag", "the default is taken silently", "and a `Warning` header says so"
    ),
    Difference(
        "`min_worker` or `initial_workers` below 0", "500 `InternalServerException`", "400 `BadRequestException`"
    ),
    Difference("header `Authorization`", "handlers see it", "handlers do not"),
    Difference(
        "description of a model",
        "TorchServe's members only",
        "also `argosy`: health, requests running, batch size and delay as tuned, restarts and reasons of workers",
    ),
)
