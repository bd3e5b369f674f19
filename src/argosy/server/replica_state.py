"""`GET /replica/state?since=N`: what a gateway asks of a replica several times a second, in one small answer.

How busy it is, how its start went, and what its prefix cache took in and gave up since the sequence the gateway
named. It answers in every phase, so that whoever waits for a replica sees what it is doing; it costs no more than a
probe, because nothing is computed for it. A key needs the scope `metrics`.
"""

from __future__ import annotations

import secrets

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from argosy.core.errors import InvalidRequest
from argosy.core.load_report import REPLICA_REPORT_PATH, PrefixChanges, ReplicaReport
from argosy.server.replica import Replica
from argosy.web.errors import ErrorBody
from argosy.web.operation import Operation, describes

_encode = msgspec.json.Encoder().encode


class ReplicaState:
    """The route, over the life of one replica."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._epoch = secrets.token_hex(8)

    def routes(self) -> list[Route]:
        """Our one route."""
        return [Route(REPLICA_REPORT_PATH, self.state)]

    @describes(
        Operation(
            summary="Load, start phases, and what the prefix cache took in and gave up since a sequence",
            tag="operations",
            response=ReplicaReport,
            error_body=ErrorBody,
            errors=(400, 401, 403),
        )
    )
    async def state(self, request: Request) -> Response:
        """Raises: InvalidRequest if `since` is no sequence."""
        return Response(_encode(self.report(_since(request))), media_type="application/json")

    def report(self, since: int) -> ReplicaReport:
        """The replica now. A replica of several models speaks of its first; this request does not count."""
        replica = self._replica
        report = ReplicaReport(
            epoch=self._epoch,
            phase=replica.phase.value,
            in_flight=max(replica.in_flight - 1, 0),
            start_seconds={name: round(seconds, 4) for name, seconds in replica.start_seconds().items()},
        )
        models = replica.registry.list()
        if not models:
            return report
        stats, info, prefixes = models[0].stats(), models[0].engine_info, models[0].prefixes
        return msgspec.structs.replace(
            report,
            num_requests_running=stats.num_requests_running,
            num_requests_waiting=stats.num_requests_waiting,
            kv_cache_usage_ratio=round(stats.kv_cache_usage_ratio, 4),
            max_num_seqs=info.max_num_seqs,
            kv_cache_tokens=info.kv_cache_tokens,
            generation_tokens=models[0].generation_tokens,
            prefix=prefixes.changes(since) if prefixes else PrefixChanges(),
        )


def _since(request: Request) -> int:
    text = request.query_params.get("since", "0")
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise InvalidRequest(
            f"since={text[:40]!r} is no sequence: name the last one you were told, or 0", param="since"
        )
    return int(text)
