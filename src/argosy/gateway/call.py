"""One client's request on its way to a replica: what routing needs of it, read once."""

from __future__ import annotations

import msgspec

from argosy.core.errors import InvalidRequest, NotFound
from argosy.core.prefix import PromptPrefix, prefix_of
from argosy.core.principal import Principal
from argosy.gateway.services import ServiceState
from argosy.gateway.transport import Question
from argosy.gateway.usage import USAGE_HEADER

# A replica sends a first byte, or a keep-alive, every 15 s of a stream: three missed are silence.
STREAM_SILENCE_SECONDS = 45.0
_BYTES_PER_TOKEN = 4
_MAX_STICKY_BYTES = 256
_JSON = (b"content-type", b"application/json")


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks, and under which ids; traceparent may be empty."""

    principal: Principal = Principal()
    request_id: str = ""
    traceparent: str = ""


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A request, ready to be placed. arrived_at: the gateway's clock.

    sticky: what its caller is recognised by, with the service's name; empty if the service is not sticky.
    revision: the only one that may answer; empty = by weights. draw: from [0, 1), which revision the weights give it.
    """

    service: ServiceState
    path: str
    body: bytes
    prefix: PromptPrefix
    caller: Caller
    arrived_at: float
    sticky: str = ""
    revision: str = ""
    draw: float = 0.0

    @property
    def prompt_tokens(self) -> int:
        """An estimate: nobody here has the tokenizer."""
        return self.prefix.prompt_bytes // _BYTES_PER_TOKEN + 1

    def question(self) -> Question:
        """What a replica is asked: the body as it came, and no header of the client's but those that name its ids.

        The key's name goes along, so that a replica is fair to callers and not to gateways.
        """
        headers = [_JSON, USAGE_HEADER]
        if self.caller.principal.name:
            headers.append((b"x-argosy-caller", self.caller.principal.name.encode("ascii", "replace")))
        if self.caller.request_id:
            headers.append((b"x-request-id", self.caller.request_id.encode()))
        if self.caller.traceparent:
            headers.append((b"traceparent", self.caller.traceparent.encode()))
        return Question(
            path=self.path.encode(),
            headers=tuple(headers),
            body=self.body,
            silence_seconds=STREAM_SILENCE_SECONDS if self.prefix.is_stream else None,
        )


class _ModelOnly(msgspec.Struct):
    model: str | None = None


_model_decoder = msgspec.json.Decoder(_ModelOnly)


def routing_facts(body: bytes) -> PromptPrefix:
    """What routing needs of a body, of any path. A replica will say what else is wrong with it. Raises: InvalidRequest.

    Duplicate keys: the last one wins, here as in the replica, so that both mean the same model.
    """
    found = prefix_of(body)
    if found is not None:
        return found
    try:
        return PromptPrefix(model=_model_decoder.decode(body).model or "")
    except RecursionError as exc:
        raise InvalidRequest("the body is nested too deeply to be read: flatten it") from exc
    except UnicodeDecodeError as exc:
        raise InvalidRequest(f"the body is not UTF-8: {exc.reason} at byte {exc.start}: send UTF-8") from exc
    except msgspec.ValidationError as exc:
        raise InvalidRequest(str(exc), param="model" if "$.model" in str(exc) else None) from exc
    except msgspec.DecodeError as exc:
        raise InvalidRequest(f"the body is not JSON: {exc}: send one JSON object") from exc


def sticky_caller(service: str, name: str) -> str:
    """What a sticky caller is placed by; empty for one that has no name."""
    return f"{service}\0{name[:_MAX_STICKY_BYTES]}" if name else ""


def require_revision(service: ServiceState, revision: str) -> str:
    """The revision a caller pinned, if the service runs it. Raises: NotFound listing what there is."""
    running = [each.revision for each in service.route.revisions]
    if revision in running:
        return revision
    shown = revision if len(revision) <= 32 else revision[:29] + "..."
    raise NotFound(
        f"{service.name!r} runs no revision {shown!r}: it runs {', '.join(running) or 'none'}",
        param="x-argosy-revision",
    )
