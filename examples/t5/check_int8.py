"""Measure the small T5 after conversion to CTranslate2 with int8 weights: greedy and with a beam of four.

    python examples/t5/check_int8.py examples/t5/model

Asks for the same held-out numbers as train.py and adds the shares to the model's metrics.json. The converted model
goes to a scratch folder: whoever serves the model converts it again for their own processor.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import ctranslate2
from number_pairs import DIRECTIONS, held_out_numbers, prompt
from train import HELD_OUT_PER_BAND, MAX_NEW_TOKENS, SEED, say
from transformers import AutoTokenizer, PreTrainedTokenizerBase

BEAMS = {"int8_greedy": 1, "int8_beam_4": 4}


def exact_match(
    translator: ctranslate2.Translator, tokenizer: PreTrainedTokenizerBase, numbers: list[int], beam: int
) -> dict[str, float]:
    """The share of numbers whose whole answer is right, per direction."""
    shares = {}
    for source, target in DIRECTIONS:
        prompts = [prompt(source, target, say(n, source)) for n in numbers]
        results = translator.translate_batch(
            [tokenizer.convert_ids_to_tokens(ids) for ids in tokenizer(prompts).input_ids],
            beam_size=beam,
            max_decoding_length=MAX_NEW_TOKENS,
            max_batch_size=64,
        )
        answers = [tokenizer.decode(tokenizer.convert_tokens_to_ids(result.hypotheses[0])) for result in results]
        right = sum(answer == say(n, target) for n, answer in zip(numbers, answers, strict=True))
        shares[f"{source}-{target}"] = round(right / len(numbers), 4)
    return shares


def main() -> None:
    """Convert, measure, add to metrics.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder that train.py wrote")
    folder = parser.parse_args().model
    tokenizer = AutoTokenizer.from_pretrained(folder)
    numbers = held_out_numbers(HELD_OUT_PER_BAND, SEED)
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as scratch:
        converter = ctranslate2.converters.TransformersConverter(str(folder))
        converted = converter.convert(f"{scratch}/int8", quantization="int8")
        translator = ctranslate2.Translator(converted, device="cpu", compute_type="int8", intra_threads=2)
        for name, beam in BEAMS.items():
            metrics[name] = exact_match(translator, tokenizer, numbers, beam)
            print(name, metrics[name], flush=True)
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
