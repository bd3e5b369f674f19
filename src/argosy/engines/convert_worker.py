"""The child that converts: one job in on standard input, phases out on standard output, an OpenVINO folder on disk.

Run as `python -m argosy.engines.convert_worker` by `convert.py`. Never unpickles (D-04) and never runs code from the
model's repository (D-11): only safetensors and GGUF are loaded, with trust_remote_code off and the hub unreachable.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import nncf
import openvino
import torch
from optimum.exporters.openvino import main_export
from optimum.exporters.openvino.convert import export_tokenizer
from optimum.intel import OVConfig
from transformers import AutoConfig, AutoTokenizer

from argosy.engines.convert import ConversionPhase, Job, Said, WeightFormat
from argosy.engines.dequantise import dequantise

# Weights of one group share a scale; NNCF halves it where a layer's width asks. Source: optimum-intel, int4 default.
INT4_GROUP_SIZE = 128
Report = Callable[[ConversionPhase], None]


def convert(job: Job, report: Report) -> None:
    """Make the OpenVINO model of `job` in the new folder job.target."""
    source, target = Path(job.source), Path(job.target)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        if job.gguf_file:
            # Without a tokenizer: Argosy reads that of a GGUF from the file itself, for constraints, too.
            gguf, source = source / job.gguf_file, Path(scratch) / "checkpoint"
            dequantise(gguf, source, with_tokenizer=False)
        require_plain(source)
        traced = Path(scratch) / "traced"
        report(ConversionPhase.TRACE)
        trace(source, traced)
        report(ConversionPhase.COMPRESS)
        target.mkdir()
        compress(traced, target, job.weight_format)
        report(ConversionPhase.TOKENIZER)
        copy_texts(traced, target)
        convert_tokenizer(source, target)


def require_plain(source: Path) -> None:
    """Refuse what could only be loaded by running the repository's own code. Raises: ValueError."""
    config = AutoConfig.from_pretrained(source, trust_remote_code=False, local_files_only=True)
    if not list(source.glob("*.safetensors")):
        raise ValueError(f"{source} has no .safetensors file, and Argosy never unpickles weights")
    if config.is_encoder_decoder:
        raise ValueError(f"{config.model_type} is an encoder-decoder model: only decoder-only models are converted")


def trace(source: Path, target: Path) -> None:
    """Write the model as IR with the weights in fp16, keys and values as its state."""
    main_export(
        str(source),
        target,
        task="text-generation-with-past",
        trust_remote_code=False,
        local_files_only=True,
        library_name="transformers",
        convert_tokenizer=False,
        ov_config=OVConfig(dtype="fp16"),
        model_loading_kwargs={"use_safetensors": True},
    )


def compress(traced: Path, target: Path, weight_format: WeightFormat) -> None:
    """Write the traced model with its weights in the wanted format."""
    model = openvino.Core().read_model(traced / "openvino_model.xml")
    if weight_format is WeightFormat.INT8:
        model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM)
    elif weight_format is WeightFormat.INT4:
        model = nncf.compress_weights(
            model,
            mode=nncf.CompressWeightsMode.INT4_ASYM,
            group_size=INT4_GROUP_SIZE,
            advanced_parameters=nncf.AdvancedCompressionParameters(
                group_size_fallback_mode=nncf.GroupSizeFallbackMode.ADJUST
            ),
        )
    openvino.save_model(model, target / "openvino_model.xml", compress_to_fp16=True)


def copy_texts(traced: Path, target: Path) -> None:
    """Take along config, generation defaults, tokenizer and chat template."""
    for path in traced.iterdir():
        if path.suffix in {".json", ".jinja", ".txt", ".model"}:
            shutil.copyfile(path, target / path.name)


def convert_tokenizer(source: Path, target: Path) -> None:
    """Write the tokenizer, if there is one, as IR too: OpenVINO's constraints need one beside the model."""
    if not any((source / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        return
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, local_files_only=True)
    export_tokenizer(tokenizer, target)


def main() -> int:
    """Read the job, do it, exit 0; or say why not and exit 1."""
    # Libraries print to descriptor 1; the parent reads JSON there, so it becomes descriptor 2 for everybody else.
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)

    def say(said: Said) -> None:
        answers.write(msgspec.json.encode(said) + b"\n")

    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    try:
        with torch.inference_mode():
            convert(job, lambda phase: say(Said(phase=phase)))
    except Exception as error:  # noqa: BLE001  # boundary: whatever the tools raise becomes one sentence for the parent
        say(Said(error=f"{type(error).__name__}: {error}"))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
