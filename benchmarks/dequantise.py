"""Turn a GGUF model into a Hugging Face folder of bf16 safetensors, so that other engines can serve the same weights.

    python benchmarks/dequantise.py SmolLM2-135M-Instruct.Q4_1.gguf smollm2-bf16

Needs the extra `[transformers]`. Writes config.json, generation_config.json, model.safetensors, tokenizer.json and
tokenizer_config.json (with the chat template).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from argosy.engines.dequantise import dequantise


def main() -> int:
    parser = argparse.ArgumentParser(description="GGUF to a Hugging Face folder of bf16 safetensors.")
    parser.add_argument("source", type=Path, help="the .gguf file")
    parser.add_argument("target", type=Path, help="the folder to create")
    arguments = parser.parse_args()
    if arguments.target.exists():
        parser.error(f"{arguments.target} exists: name a new folder, or remove it")
    dequantise(arguments.source, arguments.target)
    print(f"wrote {arguments.target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
