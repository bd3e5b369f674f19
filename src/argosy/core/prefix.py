"""Where two prompts are the same from the start: a prompt as a chain of block hashes.

A gateway asks "which replica holds this prompt's beginning?" and a replica tells "these beginnings are in my KV
cache". Neither has the other's tokenizer, so blocks are cut from the request's own text, in the order it reaches the
model: tools, then each message's role and content (or the plain prompt). Both call `prefix_of` on the same body bytes,
so they agree by construction. The hash of a block covers all blocks before it; equal hashes mean equal beginnings.

Source: chained block hashes as in vLLM's prefix cache and the Gateway API's prefix plug-in.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import msgspec

BLOCK_BYTES = 256
MAX_BLOCKS = 2048
_HASHED_BYTES = MAX_BLOCKS * BLOCK_BYTES
# Messages of a longer body are not taken apart: a hundred thousand of them would hold up everybody else (D-25).
_LONG_BYTES = 2 * _HASHED_BYTES


class PromptPrefix(msgspec.Struct, frozen=True, kw_only=True):
    """model: as the request names it. blocks: chained hashes of the prompt's full blocks. prompt_bytes: its length.

    Read on the way, so that a gateway parses a body once: user and is_stream, as the request says, and max_tokens, the
    longest answer it asks for; None = not said. num_answers: how many answers it asks for, over all its prompts.
    """

    model: str
    blocks: tuple[int, ...] = ()
    prompt_bytes: int = 0
    user: str = ""
    is_stream: bool = False
    max_tokens: int | None = None
    num_answers: int = 1


class _Message(msgspec.Struct, gc=False):
    role: str = ""
    content: msgspec.Raw = msgspec.Raw(b"null")


class _Asked(msgspec.Struct):
    model: str = ""
    prompt: Any = None
    tools: msgspec.Raw = msgspec.Raw(b"")
    user: Any = None
    stream: Any = None
    max_tokens: Any = None
    max_completion_tokens: Any = None
    n: Any = None


class _Body(_Asked):
    messages: tuple[_Message, ...] = ()


class _LongBody(_Asked):
    messages: msgspec.Raw = msgspec.Raw(b"")


_decoder = msgspec.json.Decoder(_Body)
_long_decoder = msgspec.json.Decoder(_LongBody)


def prefix_of(body: bytes) -> PromptPrefix | None:
    """The prefix of an OpenAI chat or completion request; None if the body is neither (somebody else will refuse it).

    A completion with several prompts counts as its first.
    """
    try:
        decoded = _long_decoder.decode(body) if len(body) > _LONG_BYTES else _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    text, prompt_bytes = _prompt(decoded)
    longest = decoded.max_tokens if decoded.max_completion_tokens is None else decoded.max_completion_tokens
    return PromptPrefix(
        model=decoded.model,
        blocks=block_hashes(text, seed=decoded.model),
        prompt_bytes=prompt_bytes,
        user=decoded.user if isinstance(decoded.user, str) else "",
        is_stream=decoded.stream is True,
        max_tokens=longest if type(longest) is int else None,
        num_answers=_num_answers(decoded),
    )


def block_hashes(text: bytes, *, seed: str) -> tuple[int, ...]:
    """One 63-bit hash per full block of `text`, each covering everything before it. seed: keeps models apart."""
    so_far = sha256(seed.encode("utf-8", "surrogatepass") + b"\0")
    hashes = []
    for start in range(0, min(len(text) - BLOCK_BYTES + 1, MAX_BLOCKS * BLOCK_BYTES), BLOCK_BYTES):
        so_far.update(text[start : start + BLOCK_BYTES])
        hashes.append(int.from_bytes(so_far.digest()[:8], "little") >> 1)
    return tuple(hashes)


def _num_answers(body: _Asked) -> int:
    each = body.n if type(body.n) is int and body.n > 0 else 1
    return each * (len(body.prompt) if _are_several(body.prompt) else 1)


def _are_several(prompt: Any) -> bool:
    """A list of texts, or of lists of token ids; a list of numbers is one prompt."""
    return isinstance(prompt, list) and bool(prompt) and isinstance(prompt[0], str | list)


def _prompt(body: _Body | _LongBody) -> tuple[bytes, int]:
    """The prompt's text as far as blocks are made of it, and how long it is in all.

    The messages of a long body are one text, as they are written: blocks of long prompts match those of long prompts.
    """
    if isinstance(body, _LongBody) and (written := bytes(body.messages)):
        return (bytes(body.tools) + written[:_HASHED_BYTES])[:_HASHED_BYTES], len(body.tools) + len(written)
    if isinstance(body, _LongBody) or not body.messages:
        text = _plain_prompt(body.prompt)
        return text[:_HASHED_BYTES], len(text)
    parts, length = [bytes(body.tools)], len(body.tools)
    for number, message in enumerate(body.messages):
        if length >= _HASHED_BYTES:
            length += sum([len(later.content) for later in body.messages[number:]])
            break
        part = b"\x1e%b\x1f%b" % (message.role.encode("utf-8", "surrogatepass"), bytes(message.content))
        parts.append(part)
        length += len(part)
    return b"".join(parts)[:_HASHED_BYTES], length


def _plain_prompt(prompt: Any) -> bytes:
    if _are_several(prompt):
        prompt = prompt[0]
    if isinstance(prompt, str):
        return prompt.encode("utf-8", "surrogatepass")
    return msgspec.json.encode(prompt) if isinstance(prompt, list) else b""
