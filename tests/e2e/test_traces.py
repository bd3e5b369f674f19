"""A replica's spans: what a request cost, as a child of whoever sent it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

pytest.importorskip("opentelemetry.sdk", reason="the extra `otel` is not installed")
sys.path.insert(0, str(Path(__file__).parents[1] / "observe"))
from otlp_sink import collecting

pytestmark = pytest.mark.slow

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_a_replicas_span_is_its_gateways_child_and_is_sent_before_the_end(
    serving: Callable[..., AbstractContextManager[str]],
) -> None:
    with collecting() as sink:
        with serving("--served-model-name", "echo", "--otlp-endpoint", sink.url) as address:
            body = {"model": "echo", "max_tokens": 4, "messages": [{"role": "user", "content": "a secret"}]}
            headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
            got = httpx.post(f"{address}/v1/chat/completions", json=body, headers=headers, trust_env=False)
            assert got.status_code == 200
        (span,) = sink.wait(1)
    assert (span.role, span.trace_id, span.parent_id) == ("argosy-replica", TRACE, PARENT)
    assert span.facts["gen_ai.request.model"] == "echo"
    assert span.facts["gen_ai.usage.output_tokens"] == 4
    assert span.facts["gen_ai.usage.input_tokens"] == got.json()["usage"]["prompt_tokens"]
    assert span.facts["argosy.finish_reasons"] == "length"
    parts = [span.facts[f"argosy.{part}_seconds"] for part in ("queue", "prefill", "decode")]
    assert all(seconds >= 0 for seconds in parts)
    assert "secret" not in repr(span)
