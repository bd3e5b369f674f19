"""Prompt token ids in, completion token ids out.

Each engine is one file (or folder) behind the `Engine` socket of `core/interfaces.py`, named in the table below and
imported only when a model needs it. An engine knows nothing of text, HTTP or model names, and engines do not know
each other. The event loop never runs a forward pass.

Read first: `echo.py`, the smallest engine, whose answers can be computed by hand.
"""

from __future__ import annotations

from argosy.core.model import ModelFiles

ENGINES = {
    "echo": "argosy.engines.echo:EchoEngine",
    "openvino": "argosy.engines.openvino.engine:OpenVinoEngine",
    "seq2seq": "argosy.engines.seq2seq.engine:Seq2SeqEngine",
    "transformers": "argosy.engines.transformers:TransformersEngine",
    "vllm": "argosy.engines.vllm:VllmEngine",
}

# What an engine can do before it is known which model it will load; a standby process does it.
AHEAD = {"openvino": "argosy.engines.openvino.channel:start_ahead"}

DEFAULT_ENGINE = "openvino"
ENCODER_DECODER_ENGINE = "seq2seq"


def default_engine(files: ModelFiles) -> str:
    """The engine for these files when the user names none."""
    return ENCODER_DECODER_ENGINE if files.info.is_encoder_decoder else DEFAULT_ENGINE
