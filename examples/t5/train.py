"""Train the small T5 that this folder holds: number words between English, French and German.

    python examples/t5/train.py --out examples/t5/model

The recipe, from top to bottom: draw numbers that are not held out, turn them into pieces once, train a plain T5 from
nothing with AdamW (warm-up, then a cosine to zero), write it as Hugging Face files, load it back from those files and
measure exact match on held-out numbers. Everything random comes from one seed. `check_int8.py` then measures the same
numbers after conversion to CTranslate2.

Number words make a good test model: the task is real and exact (a wrong word is wrong), lengths vary from one word to
ten, and the data needs no download.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from num2words import num2words
from number_pairs import (
    BAND_WEIGHTS,
    DIRECTIONS,
    LANGUAGES,
    LEXICON_END,
    english_spellings,
    held_out_numbers,
    prompt,
    training_numbers,
)
from transformers import AutoTokenizer, GenerationConfig, T5Config, T5ForConditionalGeneration, T5TokenizerFast
from word_pieces import write_tokenizer

SEED = 20
BATCH = 256
PEAK_RATE = 2e-3
WARM_UP_STEPS = 300
NUMBERS_PER_BAND = 20_000
HELD_OUT_PER_BAND = 250
OTHER_SPELLING_SHARE = 0.15
MAX_NEW_TOKENS = 64
IGNORED = -100
"""The label torch's cross entropy leaves out."""

Pieces = list[int]
Example = tuple[Pieces, Pieces]


@dataclass(frozen=True, kw_only=True)
class Spoken:
    """One training number: its pieces in each language, and other English spellings to read."""

    words: dict[str, Pieces]
    spellings: list[Pieces]


@cache
def say(number: int, language: str) -> str:
    """The words of a number, lower case, exactly as num2words writes them."""
    return str(num2words(number, lang=language)).lower()


def speak(numbers: list[int], tokenizer: T5TokenizerFast) -> list[Spoken]:
    """Turn numbers into pieces, once for the whole training."""
    chooser = random.Random(SEED)
    columns = {
        language: tokenizer([say(n, language) for n in numbers], add_special_tokens=False).input_ids
        for language in LANGUAGES
    }
    spellings = [english_spellings(say(n, "en")) for n in numbers]
    others = [
        tokenizer(chooser.sample(s, min(2, len(s))), add_special_tokens=False).input_ids if s else [] for s in spellings
    ]
    return [
        Spoken(words={language: column[row] for language, column in columns.items()}, spellings=others[row])
        for row in range(len(numbers))
    ]


def batches(bands: list[list[Spoken]], tokenizer: T5TokenizerFast, steps: int) -> Iterator[list[Example]]:
    """`steps` batches; sixteen at a time are drawn, sorted by length and cut, so a batch carries little padding."""
    chooser = random.Random(SEED)
    heads = {pair: tokenizer(prompt(*pair, ""), add_special_tokens=False).input_ids for pair in DIRECTIONS}
    end = tokenizer.eos_token_id
    ready: list[list[Example]] = []
    for _ in range(steps):
        if not ready:
            drawn: list[Example] = []
            for band in chooser.choices(bands, BAND_WEIGHTS, k=BATCH * 16):
                spoken, (source, target) = chooser.choice(band), chooser.choice(DIRECTIONS)
                read = spoken.words[source]
                if source == "en" and spoken.spellings and chooser.random() < OTHER_SPELLING_SHARE:
                    read = chooser.choice(spoken.spellings)
                drawn.append(([*heads[source, target], *read, end], [*spoken.words[target], end]))
            drawn.sort(key=lambda example: (len(example[0]), len(example[1])))
            ready = [drawn[start : start + BATCH] for start in range(0, len(drawn), BATCH)]
            chooser.shuffle(ready)
        yield ready.pop()


def padded(rows: list[Pieces], filler: int) -> torch.Tensor:
    """Rows of pieces as one tensor. Shapes: (rows, longest row)."""
    longest = max(map(len, rows))
    return torch.tensor([row + [filler] * (longest - len(row)) for row in rows])


def new_model(tokenizer: T5TokenizerFast) -> T5ForConditionalGeneration:
    """A T5 of the first kind (ReLU, tied embeddings) with the original's token ids, small enough for a repository."""
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=128,
        d_kv=32,
        d_ff=512,
        num_layers=3,
        num_decoder_layers=3,
        num_heads=4,
        dropout_rate=0.0,
        feed_forward_proj="relu",
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    model = T5ForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        max_new_tokens=MAX_NEW_TOKENS,
        do_sample=False,
        num_beams=1,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    return model


def rate_at(step: int, steps: int) -> float:
    """The learning rate of a step: a straight warm-up, then half a cosine down to zero."""
    if step < WARM_UP_STEPS:
        return PEAK_RATE * (step + 1) / WARM_UP_STEPS
    return PEAK_RATE * 0.5 * (1 + math.cos(math.pi * (step - WARM_UP_STEPS) / max(1, steps - WARM_UP_STEPS)))


def train(model: T5ForConditionalGeneration, stream: Iterator[list[Example]], steps: int) -> float:
    """Train in place, saying the progress every 100 steps. Returns the seconds it took."""
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01)
    started = time.monotonic()
    losses: list[float] = []
    model.train()
    for step, examples in enumerate(stream):
        sources, targets = zip(*examples, strict=True)
        inputs = padded(list(sources), model.config.pad_token_id)
        output = model(
            input_ids=inputs,
            attention_mask=(inputs != model.config.pad_token_id).long(),
            labels=padded(list(targets), IGNORED),
        )
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, steps)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(output.loss.item())
        if (step + 1) % 100 == 0:
            pace = (step + 1) / (time.monotonic() - started)
            left_seconds = (steps - step - 1) / pace
            loss = sum(losses[-100:]) / 100
            print(
                f"step {step + 1}/{steps}  loss {loss:.4f}  {pace:.2f} steps/s  {left_seconds:.0f} s left", flush=True
            )
    return time.monotonic() - started


def translate(model: T5ForConditionalGeneration, tokenizer: T5TokenizerFast, prompts: list[str]) -> list[str]:
    """Answers of the model's own generation settings (greedy), in the order of the prompts."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    answers: dict[int, str] = {}
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        inputs = tokenizer([prompts[i] for i in chosen], return_tensors="pt", padding=True)
        with torch.inference_mode():
            outputs = model.generate(**inputs)
        answers.update(zip(chosen, tokenizer.batch_decode(outputs, skip_special_tokens=True), strict=True))
    return [answers[i] for i in range(len(prompts))]


def exact_match(folder: Path, numbers: list[int]) -> dict[str, float]:
    """The share of numbers whose whole answer is right, per direction, with the files as written."""
    model = T5ForConditionalGeneration.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    shares = {}
    for source, target in DIRECTIONS:
        answers = translate(model, tokenizer, [prompt(source, target, say(n, source)) for n in numbers])
        wrong = [(n, answer) for n, answer in zip(numbers, answers, strict=True) if answer != say(n, target)]
        shares[f"{source}-{target}"] = round(1 - len(wrong) / len(numbers), 4)
        print(f"{source} -> {target}: {shares[f'{source}-{target}']:.4f}", *wrong[:3], flush=True)
    return shares


def main() -> None:
    """Train, write, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the model's files")
    parser.add_argument("--steps", type=int, default=3_000, help="batches to train on (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="processor threads (default: %(default)s)")
    options = parser.parse_args()
    torch.manual_seed(SEED)
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)

    tokenizer = write_tokenizer(options.out, say, max_length=512)
    bands = [speak(band, tokenizer) for band in training_numbers(NUMBERS_PER_BAND, SEED)]
    model = new_model(tokenizer)
    print(f"{len(tokenizer)} pieces, {model.num_parameters()} parameters, {sum(map(len, bands))} numbers", flush=True)
    seconds = train(model, batches(bands, tokenizer, options.steps), options.steps)
    model.eval().save_pretrained(options.out)

    held_out = held_out_numbers(HELD_OUT_PER_BAND, SEED)
    metrics = {
        "parameters": model.num_parameters(),
        "pieces": len(tokenizer),
        "steps": options.steps,
        "training_seconds": round(seconds),
        "held_out_numbers": len(held_out),
        "torch_greedy": exact_match(options.out, held_out),
        "torch_greedy_below_100": exact_match(options.out, list(range(LEXICON_END))),
    }
    (options.out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
