"""How this protocol is spoken on one server, and where it differs from TorchServe on purpose: one table.

`compat: right` (the default) does right where the original is wrong; `strict` does as the original did, for clients
that depend on it. Every difference a client can see is a row of `DIFFERENCES`, or of `ALWAYS_DIFFERENT` if even
`strict` does not bring it back; docs/torchserve-api.md shows the same tables, and a test holds the two together.
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
    """What a client can see. original: TorchServe 0.12. ours: what we answer."""

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
    Difference("a model, version or archive that is not there, or is there already", "its name", "and what to do"),
    Difference("a queue that is full", "the text of a model without workers", "its own text, and `reason: queue_full`"),
    Difference(
        "text of a model without workers",
        '`Model "m" Version 1.0" has no worker …`, its quotes unbalanced',
        "`model m/1.0 has no worker …`, and what to do",
    ),
    Difference("a worker that died, or ran out of memory", "`Worker died.`, `Out of resources`", "and why"),
    Difference(
        "workers that cannot start, archives that cannot be fetched",
        "`Failed to start workers for model …`, `Failed to download archive from: …`",
        "and why",
    ),
    Difference("removing the default version", "`Cannot remove default version for model …`", "and what to do first"),
    Difference("connection after an error", "closed", "kept, so that a refused client costs no new connection"),
    Difference(
        "a parameter that is no number or no flag",
        "the default, or false, is taken silently",
        "and a `Warning` header says so",
    ),
    Difference("header `Authorization`", "handlers see it", "handlers do not"),
    Difference(
        "description of a model",
        "TorchServe's members only",
        "also `argosy` (health, requests running, batch size and delay as tuned), and `phase`, `restarts` and "
        "`reason` of workers",
    ),
)

# What `strict` does not bring back, because nobody can depend on it, or nobody should.
ALWAYS_DIFFERENT = (
    Difference("probes with tokens on", "`/ping` needs a token", "`/ping`, `/livez`, `/readyz`, `/health` are open"),
    Difference(
        "`min_worker`, `initial_workers`, `batch_size` … that make no sense",
        "500, or taken as they are",
        "400 `BadRequestException` naming the parameter",
    ),
    Difference("a registration in broken JSON", "500 `JsonSyntaxException`", "400 `BadRequestException`"),
    Difference("`GET /models?limit=0`", "an empty page whose next page is itself", "as without a limit"),
    Difference("`GET …/set-default`", "describes the version", "405"),
    Difference("a body that is too large", "413 with an empty body", "413 with the error's body"),
    Difference("reason phrase of a response", "as the handler set it", "HTTP's own; HTTP/2 has none"),
    Difference("a queued request whose client left", "is worked on", "is dropped; a running one is not waited for"),
    Difference("a request that waits for too long", "is dropped without an answer", "504 `RequestTimeoutException`"),
    Difference("`/metrics` of the inference port", "404", "the same page as on the metrics port"),
    Difference(
        "pages of other sites",
        "may call, whatever they send",
        "403, unless their origin is allowed: any body is taken, so the browser's `Origin` and `Sec-Fetch-Site` decide",
    ),
    Difference("a handler's `Content-Length`, `Connection` …", "sent", "left out: they belong to the connection"),
)
